"""Layers as products of two thinner ones."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.cost import factor_rank
from reptile_env.compression.low_rank import can_factor_group, decompose, factored
from reptile_env.compression.macs import count_macs
from reptile_env.compression.modules import Factored
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import TRANSPOSED
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split, call, map_inputs
from reptile_env.tasks.task import Task
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


def ranked(plan: Plan, rank: float) -> Plan:
    """`plan` with one rank in every group."""
    return Plan(plan.names, plan.keep, ranks=[rank] * len(plan.keep))


def outputs_of(evaluator: LiveEvaluator, plan: Plan, inputs: Any) -> Tensor:
    with torch.no_grad():
        return first(call(evaluator.compressed_model(plan), inputs))


def factors_of(model: nn.Module) -> dict[str, Factored]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Factored)}


def correlated(features: int, rows: int = 400, seed: int = 0) -> Tensor:
    """Rows whose variances fall by a factor of a hundred along directions that are no axes."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, -1, features, dtype=torch.float64)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64) * scales @ basis


@pytest.mark.parametrize(("features", "outputs"), [(12, 8), (8, 12), (9, 9)])
def test_no_product_of_that_rank_is_nearer(features: int, outputs: int) -> None:
    x = correlated(features)
    weight = torch.randn(features, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rank in (1, 3, 7):
        a, b = decompose(x.T @ x / len(x), weight, rank)
        assert (a.shape, b.shape) == ((features, rank), (rank, outputs))
        # No matrix of that rank is nearer to the outputs, whatever it is a product of (Eckart and Young, 1936).
        nearest = torch.linalg.svdvals(x @ weight)[rank:].square().sum()
        torch.testing.assert_close((x @ (weight - a @ b)).square().sum(), nearest, rtol=1e-4, atol=0)
        # Half of each singular value is in either factor.
        torch.testing.assert_close((x @ a).square().mean(0).sqrt(), b.norm(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("features", "outputs"), [(12, 8), (8, 12)])
def test_a_rank_above_the_matrix_own_adds_nothing_wrong(features: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    thin = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((features, 2), (2, outputs))]
    for weight in (thin[0] @ thin[1], torch.zeros(features, outputs, dtype=torch.float64)):
        x = correlated(features, rows=5)
        a, b = decompose(x.T @ x / 5, weight, 6)
        torch.testing.assert_close(a @ b, weight, atol=1e-9, rtol=0)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 10), (5, 6)),
    "linear without bias": (lambda: nn.Linear(6, 10, bias=False), (5, 3, 6)),
    "1-d": (lambda: nn.Conv1d(6, 10, 5, stride=2, padding=4, dilation=2), (5, 6, 20)),
    "2-d same": (lambda: nn.Conv2d(6, 10, (3, 5), padding="same", padding_mode="reflect"), (5, 6, 9, 9)),
    "3-d": (lambda: nn.Conv3d(6, 10, 3, padding=1, bias=False), (5, 6, 4, 4, 4)),
    "transposed 1-d": (lambda: nn.ConvTranspose1d(6, 10, 3, stride=2, output_padding=1), (5, 6, 7)),
    "transposed 2-d": (lambda: nn.ConvTranspose2d(6, 10, 4, 2, 1, dilation=2), (5, 6, 4, 4)),
    "transposed 3-d": (lambda: nn.ConvTranspose3d(6, 10, 2, 2), (5, 6, 3, 3, 3)),
}


class Between(nn.Module):
    """A layer of any kind between two that make it part of groups."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv = isinstance(layer, nn.modules.conv._ConvNd)
        dims = layer.weight.dim() - 2
        kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1] if conv else nn.Linear
        extra = [1] if conv else []
        self.before, self.layer, self.after = kind(6, 6, *extra), layer, kind(10, 3, *extra)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(torch.relu(self.layer(torch.relu(self.before(x)))))
        return x.flatten(2).mean(2) if self.conv else x.flatten(1, -2).mean(1) if x.dim() > 2 else x


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("recovery", ["none", "reconstruct-sequential"])
def test_at_full_rank_the_factors_are_the_layer(kind: str, recovery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, shape = LAYERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Between(build()).eval().requires_grad_(False), torch.randn(40, *shape[1:])
    y = model(x)
    task = Task(model, (x[:30], y[:30]), (x[30:], y[30:]), metric="mse", loss="mse")

    def full(layer: Any, fraction: float) -> int:
        outputs = layer.weight.shape[int(isinstance(layer, TRANSPOSED))]
        return int(min(outputs, layer.weight.numel() // outputs))

    monkeypatch.setattr("reptile_env.compression.low_rank._rank", full)
    evaluator = LiveEvaluator(task, Settings(recovery, calibration_examples=30))
    built = evaluator.compressed_model(ranked(evaluator.dense, 0.9))
    assert isinstance(built.get_submodule("layer"), Factored)
    torch.testing.assert_close(built(x), y, atol=1e-4, rtol=1e-4)


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


def one_layer(features: int = 24, outputs: int = 20) -> tuple[Task, nn.Sequential]:
    """A linear layer of correlated inputs with a mean, between two that cost nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(features, features), nn.Linear(features, outputs), nn.Linear(outputs, 2)).eval()
        model.requires_grad_(False)
        x = (correlated(features) + torch.randn(features)).float()
    y = model(x)
    return Task(model, (x[:300], y[:300]), (x[300:], y[300:]), metric="mse", loss="mse"), model


def test_inputs_that_are_alike_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = one_layer()
    aware = LiveEvaluator(task, Settings("none"))
    plan = ranked(aware.dense, 0.5)
    error = aware.measure(plan).loss
    plain = lambda gram, weight, rank: decompose(torch.eye(len(gram), dtype=gram.dtype), weight, rank)  # noqa: E731
    monkeypatch.setattr("reptile_env.compression.low_rank.decompose", plain)
    assert error < 0.5 * LiveEvaluator(task, Settings("none")).measure(plan).loss


def normed(norm: bool) -> tuple[LiveEvaluator, nn.Sequential, Tensor]:
    """A wide convolution, with or without batch norm, whose outputs are of very unequal worth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, bias=not norm), *([nn.BatchNorm2d(12)] if norm else [])]
        model = nn.Sequential(*layers, nn.Conv2d(12, 4, 1)).eval()
        x = torch.randn(64, 2, 6, 6) + 1
        if norm:
            nn.init.uniform_(model[3].running_mean, -1, 1)
            nn.init.uniform_(model[3].running_var, 0.1, 3)
            nn.init.uniform_(model[3].weight, 0.1, 3)
    model.requires_grad_(False)
    task = Task(model, (x, x), (x + 1, x + 1), metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    return LiveEvaluator(task, Settings("none", calibration_examples=64)), model, x


def upto(model: nn.Module, layer: int, x: Tensor) -> Tensor:
    return nn.Sequential(*list(model.children())[: layer + 1])(x)


@pytest.mark.parametrize("norm", [False, True])
def test_the_mean_of_every_output_is_kept(norm: bool) -> None:
    evaluator, model, x = normed(norm)
    small = evaluator.compressed_model(evaluator.dense.replace(evaluator.group_names.index("2"), rank=0.3))
    assert list(factors_of(small)) == ["2"]
    got, expected = upto(small, 2 + norm, x), upto(model, 2 + norm, x)
    torch.testing.assert_close(got.mean((0, 2, 3)), expected.mean((0, 2, 3)), atol=1e-5, rtol=0)
    assert (got - expected).abs().max() > 0.1


def test_a_batch_norm_decides_what_outputs_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, model, x = normed(True)
    plan = evaluator.dense.replace(evaluator.group_names.index("2"), rank=0.3)
    expected, stretched = upto(model, 3, x), upto(evaluator.compressed_model(plan), 3, x)
    monkeypatch.setattr("reptile_env.compression.low_rank.MOST_STRETCH", 1.0)
    nearest = upto(evaluator.compressed_model(plan), 3, x)
    monkeypatch.setattr("reptile_env.compression.low_rank._worth", lambda model, consumer: None)
    alike = upto(evaluator.compressed_model(plan), 3, x)
    assert (nearest - expected).square().mean() < 0.97 * (alike - expected).square().mean()
    # Outputs keep their variance, unless hardly anything of them is left.
    lost = expected.var((0, 2, 3)) / nearest.var((0, 2, 3))
    assert lost.max() > 1.5
    kept = stretched.var((0, 2, 3)) / expected.var((0, 2, 3))
    torch.testing.assert_close(kept, (4 / lost).clamp_max(1), atol=1e-3, rtol=0)


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
