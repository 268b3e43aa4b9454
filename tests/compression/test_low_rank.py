"""Networks with layers as products of two thinner ones: which layers, what they cost, what is restored."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.cost import factor_rank
from reptile_env.compression.low_rank import can_factor_group, factored
from reptile_env.compression.macs import count_macs
from reptile_env.compression.modules import Factored
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split, call, map_inputs
from reptile_env.tasks.task import Task
from tests.compression.factors import factors_of, ranked
from tests.compression.kinds import KINDS, first, made
from tests.compression.networks import CASES, task_of
from tests.helpers import random_plan

RECOVERIES = ["none", "reconstruct", "reconstruct-sequential"]
EVERY = [*KINDS, *CASES]


def evaluator_of(name: str, recovery: str = "none") -> LiveEvaluator:
    if name in CASES:
        return LiveEvaluator(task_of(name), Settings(recovery))
    if name not in KINDS:
        return LiveEvaluator(make_task(name), Settings(recovery))
    model, data, _ = made(name)
    loss: Any = lambda outputs, targets: first(outputs).mean()  # noqa: E731
    return LiveEvaluator(Task(model, data[:6], data[6:], metric=lambda outputs, targets: 1.0, loss=loss), Settings(recovery))


def outputs_of(evaluator: LiveEvaluator, plan: Plan, inputs: Any) -> Tensor:
    with torch.no_grad():
        return first(call(evaluator.compressed_model(plan), inputs))


@pytest.mark.parametrize("recovery", RECOVERIES)
@pytest.mark.parametrize("name", EVERY)
def test_costs_are_those_of_the_factored_network(name: str, recovery: str) -> None:
    evaluator = evaluator_of(name, recovery)
    one = map_inputs(lambda t: t[:1], evaluator.task.valid.inputs)
    generator = np.random.default_rng(0)
    seen = 0
    for _ in range(4):
        plan = random_plan(evaluator.group_names, evaluator.sizes, generator)
        plan = Plan(plan.names, plan.keep, ranks=generator.choice([1.0, 0.9, 0.7, 0.5, 0.3, 0.05], len(plan.keep)).tolist())
        model = evaluator.compressed_model(plan)
        seen += len(factors_of(model))
        assert evaluator.costs.all(*plan.levels) == {
            "params": sum(p.numel() for p in model.parameters()),
            "macs": count_macs(model, one),
            "bytes": sum(t.nbytes for t in model.state_dict().values()),
        }
    assert bool(seen) == any(evaluator.rankable)


@pytest.mark.parametrize("recovery", RECOVERIES)
def test_the_nearer_the_rank_to_whole_the_smaller_the_error(recovery: str) -> None:
    evaluator = evaluator_of("digits-mlp", recovery)
    x = evaluator.task.valid.inputs
    dense = outputs_of(evaluator, evaluator.dense, x)
    errors = [
        float((outputs_of(evaluator, ranked(evaluator.dense, r), x) - dense).square().mean()) for r in (0.15, 0.3, 0.45, 0.6, 0.9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


NORMED = [
    (name, r) for name in ("residual", "depthwise") for r in (*RECOVERIES, "recalibrate", "reconstruct-sequential+recalibrate")
]


@pytest.mark.parametrize(("name", "recovery"), [*NORMED, *(("transformer", recovery) for recovery in RECOVERIES)])
def test_a_plan_measures_the_same_whatever_was_built_before(name: str, recovery: str) -> None:
    evaluator = evaluator_of(name, recovery)
    before = copy.deepcopy(evaluator.task.model.state_dict())
    generator = np.random.default_rng(0)
    cut = random_plan(evaluator.group_names, evaluator.sizes, generator)
    plans = [evaluator.dense, cut, ranked(cut, 0.4), ranked(evaluator.dense, 0.6)]
    plans.append(evaluator.dense.replace(0, rank=0.3))
    alone = [evaluator_of(name, recovery).compressed_model(plan).state_dict() for plan in plans]
    for at in [2, 0, 3, 1, 2, 4, 3, 0]:
        state = evaluator.compressed_model(plans[at]).state_dict()
        assert state.keys() == alone[at].keys()
        assert all(torch.equal(tensor, alone[at][key]) for key, tensor in state.items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in evaluator.task.model.state_dict().items())


@pytest.mark.parametrize("recovery", RECOVERIES)
def test_what_can_not_be_factored_stays_as_it_is(recovery: str) -> None:
    evaluator = evaluator_of("rnn time first", recovery)
    x = evaluator.task.valid.inputs
    assert torch.equal(outputs_of(evaluator, ranked(evaluator.dense, 0.2), x), outputs_of(evaluator, evaluator.dense, x))
    assert evaluator.rankable == (False, False, False)
    depthwise = evaluator_of("depthwise", recovery)
    small = depthwise.compressed_model(ranked(depthwise.dense, 0.3))
    assert "depthwise.0" not in factors_of(small)
    assert small.get_submodule("depthwise.0").groups == 12


def test_which_groups_can_be_factored() -> None:
    for name in EVERY:
        evaluator = evaluator_of(name)
        for group in range(len(evaluator.sizes)):
            small = evaluator.compressed_model(evaluator.dense.replace(group, rank=1e-6))
            assert can_factor_group(evaluator.structure, group) == bool(factors_of(small)) == evaluator.rankable[group]


def test_few_outputs_of_the_network_itself_stay_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    for outputs in (20, 300):
        model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, outputs)).eval()
        x = torch.randn(40, 8, generator=generator)
        task = Task(model, (x[:20], model(x[:20])), (x[20:], model(x[20:])), metric="mse", loss="mse")
        evaluator = LiveEvaluator(task, Settings("none"))
        small = evaluator.compressed_model(ranked(evaluator.dense, 0.5))
        assert list(factors_of(small)) == ["0", "2"][: 1 + (outputs > 256)]


def test_what_runs_before_the_first_factor_stays_as_it_was() -> None:
    evaluator = evaluator_of("digits-cnn", "reconstruct-sequential")
    cut = evaluator.cut(evaluator.dense, 0, 3)
    before, after = (evaluator.compressed_model(p).state_dict() for p in (cut, cut.replace(2, rank=0.5)))
    for name in ("stem.0.weight", "wide.0.weight"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["hidden.weight"], after["hidden.weight"])


def test_refits_on_the_compressed_prefix_make_up_for_what_is_lost() -> None:
    losses = {}
    for recovery in RECOVERIES:
        evaluator = evaluator_of("digits-cnn", recovery)
        losses[recovery] = evaluator.measure(ranked(evaluator.dense, 0.6)).loss
    assert losses["reconstruct-sequential"] < 0.5 * losses["none"]
    assert losses["none"] == losses["reconstruct"]


def test_statistics_are_recalibrated_after_the_factors() -> None:
    evaluator = evaluator_of("digits-cnn", "recalibrate")
    model: Any = evaluator.compressed_model(ranked(evaluator.dense, 0.6))
    with torch.no_grad():
        x = torch.cat([model.stem[0](batch.inputs) for batch in evaluator._calibration.batches(256)])
    assert isinstance(model.stem[0], Factored)
    torch.testing.assert_close(model.stem[1].running_mean, x.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)


def test_layers_of_a_factored_network_answer_as_the_whole_ones_do() -> None:
    layer = nn.ConvTranspose2d(6, 10, 3, stride=2, padding=1)
    product = factored(layer, torch.randn(6, 2, 3, 3), torch.randn(2, 10, 1, 1))
    assert (product.in_channels, product.out_channels, product.bias.shape) == (6, 10, (10,))
    x = torch.randn(1, 6, 5, 5)
    for size in ([9, 9], [10, 10]):
        assert product(x, output_size=size).shape == layer(x, output_size=size).shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_factors_have_the_type_of_the_layer(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4)).eval().to(dtype)
    x = torch.randn(40, 8, generator=generator).to(dtype)
    data = Split(x, torch.zeros(40, dtype=torch.long))
    evaluator = LiveEvaluator(Task(model, data[:20], data[20:]), Settings("none"))
    small = evaluator.compressed_model(ranked(evaluator.dense, 0.5))
    assert len(factors_of(small)) == 1
    assert {p.dtype for p in small.parameters()} == {dtype}


def test_the_rank_is_the_most_that_holds_the_fraction() -> None:
    for features, outputs, fraction in [(27, 16, 0.5), (64, 10, 0.8), (2, 2, 0.9), (9, 1, 0.5)]:
        rank = int(factor_rank(features, outputs, fraction))
        if rank > 1:
            assert rank * (features + outputs) <= fraction * features * outputs < (rank + 1) * (features + outputs)
        assert rank * (features + outputs) < features * outputs
