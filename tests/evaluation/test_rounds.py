"""Rounds: cut a little, train a little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reptile_env
from reptile_env.compression import finetune, rounds
from reptile_env.compression.engine import Engine
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Finetune, Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, first, made
from tests.compression.networks import CASES, task_of
from tests.helpers import make, random_plan

QUICK = Finetune(steps=20, learning_rate=0.03)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training changes nothing, so that rounds must come to what one cut comes to."""
    monkeypatch.setattr(finetune, "finetune", lambda *_: None)


def evaluator_of(task: Task, training: Finetune = QUICK, recovery: str = "finetune", **settings: Any) -> LiveEvaluator:
    return LiveEvaluator(task, Settings(recovery, finetune=training, **settings))


def cut_all(evaluator: LiveEvaluator, plan: Plan, rate: float) -> Plan:
    for group, width in enumerate(plan.widths):
        plan = evaluator.cut(plan, group, removal_count(width, rate))
    return plan


def two_rounds(evaluator: LiveEvaluator, rate: float) -> tuple[Plan, Plan]:
    """Plans after the first and the second round."""
    one = cut_all(evaluator, evaluator.dense, rate)
    return one, cut_all(evaluator, evaluator.next_round(one), rate)


def subset(generator: np.random.Generator, plan: Plan) -> Plan:
    """A plan on the network trained after `plan` that keeps some of its channels."""
    smaller = random_plan(plan.names, plan.widths, generator)
    return Plan(plan.names, [[whole[i] for i in kept] for kept, whole in zip(smaller.keep, plan.keep, strict=True)], parent=plan)


def kind_task(name: str) -> Task:
    model, data, _ = made(name)
    return Task(model, data[:6], data[6:], metric=lambda o, t: 1.0, loss=lambda o, t: first(o).square().mean())


NETWORKS = {f"case-{n}": lambda n=n: task_of(n) for n in CASES} | {f"kind-{n}": lambda n=n: kind_task(n) for n in KINDS}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.filterwarnings("ignore:.*layers are not cut")
@pytest.mark.usefixtures("untrained")
def test_a_later_round_cuts_as_the_first_does(network: str) -> None:
    task = NETWORKS[network]()
    evaluator = evaluator_of(task)
    generator = np.random.default_rng(0)
    for _ in range(3):
        one = random_plan(evaluator.group_names, evaluator.sizes, generator)
        two = subset(generator, one)
        at_once = Plan(two.names, two.keep)
        model = evaluator.compressed_model(two)
        got, expected = (task.outputs(m, task.valid) for m in (model, evaluator.compressed_model(at_once)))
        torch.testing.assert_close(first(got), first(expected), atol=1e-5, rtol=0)
        costs = evaluator.costs.all(two.widths)
        assert costs["params"] == sum(p.numel() for p in model.parameters())
        assert evaluator.measure(two).params == costs["params"]


def test_the_next_round_starts_from_what_training_left() -> None:
    evaluator = evaluator_of(make_task("digits-mlp"))
    one = cut_all(evaluator, evaluator.dense, 0.3)
    before, after = evaluator.compressed_model(one), evaluator.compressed_model(evaluator.next_round(one))
    assert evaluator.next_round(one) == one.trained()
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name])
    assert evaluator.measure(one.trained()) == evaluator.measure(one)


def test_what_goes_next_is_chosen_by_trained_weights() -> None:
    evaluator = evaluator_of(make_task("digits-mlp"), Finetune(steps=100, learning_rate=0.1))
    one = cut_all(evaluator, evaluator.dense, 0.5)
    layer = dict(evaluator.compressed_model(one).named_modules())[one.names[0]]
    assert isinstance(layer, nn.Linear)
    sums = layer.weight.abs().sum(1)
    count = len(sums) // 2
    chosen = [one.keep[0][i] for i in sorted(sums.argsort()[count:].tolist())]
    assert list(evaluator.cut(one.trained(), 0, count).keep[0]) == chosen
    assert list(evaluator.cut(one, 0, count).keep[0]) != chosen


def test_little_by_little_is_no_worse_than_at_once() -> None:
    evaluator = evaluator_of(make_task("digits-mlp"), Finetune(steps=60, learning_rate=0.05))
    _, two = two_rounds(evaluator, 0.6)
    at_once = evaluator.measure(Plan(two.names, two.keep))
    assert evaluator.measure(two).loss < at_once.loss
    assert evaluator.measure(two).params == at_once.params


@pytest.mark.parametrize("recovery", ["finetune", "reconstruct+finetune", "reconstruct-sequential+finetune"])
def test_a_plan_of_two_rounds_says_all_there_is_to_know(user_task: Task, recovery: str) -> None:
    evaluator = evaluator_of(user_task, recovery=recovery)
    _, two = two_rounds(evaluator, 0.3)
    found = evaluator.measure(two)
    read = Plan.from_dict(json.loads(json.dumps(two.to_dict())))
    assert read == two
    assert evaluator_of(user_task, recovery=recovery).measure(read) == found
    assert found != evaluator.measure(Plan(two.names, two.keep))


def test_networks_that_were_forgotten_are_trained_again(user_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    evaluator = evaluator_of(user_task)
    for rate in (0.2, 0.3, 0.4):
        plan = evaluator.dense
        for _ in range(3):
            plan = cut_all(evaluator, plan, rate).trained()
        plans.append(plan)
    found = [evaluator.measure(plan) for plan in plans]
    monkeypatch.setattr(rounds, "KEPT", 1)
    forgetful = evaluator_of(user_task)
    assert [forgetful.measure(plan) for plan in reversed(plans)] == list(reversed(found))
    assert [forgetful.cut(plan, 0, 2) for plan in plans] == [evaluator.cut(plan, 0, 2) for plan in plans]


@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
def test_what_was_removed_stays_removed(user_task: Task, granularity: str) -> None:
    evaluator = evaluator_of(user_task, recovery="reconstruct+finetune", granularity=granularity)
    group = 0
    one = evaluator.cut(evaluator.dense, group, evaluator.sizes[group] // 2)
    if granularity == "unstructured":
        two = evaluator.cut(one.trained(), group, one.widths[group] // 2)
    else:
        two = evaluator.cut(one.trained(), 1, 1)
    before, after = evaluator.compressed_model(one), evaluator.compressed_model(two)
    for name, count in evaluator.kept_weights(two).items():
        weight, earlier = after.get_parameter(name), before.get_parameter(name)
        assert int((weight != 0).sum()) == count
        assert not ((weight != 0) & (earlier == 0)).any()
    assert evaluator.measure(one.trained()) == evaluator.measure(one)
    assert evaluator_of(user_task, recovery="reconstruct+finetune", granularity=granularity).measure(two) == evaluator.measure(two)


@pytest.mark.filterwarnings("ignore:.*layers are not cut")
@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
def test_holes_stay_where_they_are_whatever_the_scores(granularity: str) -> None:
    task = task_of("concatenated")
    engine = evaluator_of(task, granularity=granularity)._engine
    smallest = engine.pruner.masks(Plan(engine.names, [size // 2 for size in engine.sizes]))
    # The weights that were removed are the large ones here.
    structure = engine.structure.restricted(engine.dense, engine.structure.model, {n: ~mask for n, mask in smallest.items()})
    pruner = Engine(task, structure, engine.calibration, engine.settings).pruner
    for share in (2, 3):
        masks = pruner.masks(Plan(engine.names, [max(size // share, 1) for size in engine.sizes]))
        assert masks
        assert not any((mask & smallest[name]).any() for name, mask in masks.items())


@pytest.mark.usefixtures("untrained")
def test_factors_of_the_first_round_become_whole_layers_and_are_factored_again() -> None:
    task = task_of("depthwise")
    evaluator = evaluator_of(task)
    one = Plan(evaluator.group_names, evaluator.dense.keep, ranks=[0.5] * len(evaluator.sizes))
    whole = Plan(one.names, one.keep, parent=one)
    factored, merged = evaluator.compressed_model(one), evaluator.compressed_model(whole)
    assert merged.state_dict().keys() == evaluator.compressed_model(evaluator.dense).state_dict().keys()
    got, expected = (task.outputs(m, task.valid) for m in (merged, factored))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    again = evaluator.compressed_model(one.trained())
    assert sum(p.numel() for p in again.parameters()) == evaluator.costs.all(*one.levels)["params"]
    torch.testing.assert_close(task.outputs(again, task.valid), expected, atol=1e-4, rtol=0)


def test_distillation_learns_from_the_dense_network_in_every_round(user_task: Task) -> None:
    evaluator = evaluator_of(user_task, Finetune(steps=40, learning_rate=0.03, distillation=1.0))
    one, two = two_rounds(evaluator, 0.3)
    seen: list[Tensor] = []
    handle = evaluator.structure.model.register_forward_hook(lambda *_: seen.append(torch.tensor(0)))
    evaluator.measure(one)
    first_round = len(seen)
    evaluator.measure(two)
    handle.remove()
    assert len(seen) - first_round >= 40


def test_plans_that_bring_channels_back_are_refused(user_task: Task) -> None:
    evaluator = evaluator_of(user_task)
    one = evaluator.cut(evaluator.dense, 0, 3)
    with pytest.raises(ValueError, match=f"parent.*removed from group '{one.names[0]}'; later rounds only remove more"):
        evaluator.measure(Plan(one.names, evaluator.dense.keep, parent=one))
    for granularity in ("unstructured", "2:4"):
        weights = evaluator_of(user_task, granularity=granularity)
        fewer = weights.cut(weights.dense, 0, 1)
        with pytest.raises(ValueError, match="later rounds only remove more"):
            weights.measure(Plan(fewer.names, weights.dense.keep, parent=fewer))
    beyond = Plan(one.names, [range(25), range(12)])
    with pytest.raises(ValueError, match="keeps channel 24 of group"):
        evaluator.measure(Plan(one.names, one.keep, parent=beyond))
    with pytest.raises(ValueError, match="'reconstruct' trains none; give the settings that the plan was found with"):
        LiveEvaluator(user_task, Settings("reconstruct")).measure(one.trained())
    assert LiveEvaluator(user_task, Settings("reconstruct")).next_round(one) == one


def test_an_episode_of_two_rounds_is_saved_and_loaded(user_task: Task, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"recovery": "finetune", "finetune": {"steps": 10, "learning_rate": 0.03}}
    env = make(user_task, rounds=2, w=0.5, **settings)
    env.reset(seed=0)
    for _ in range(4):
        *_, terminated, _, info = env.step(env.action_for(0.25))
    assert terminated
    plan = Plan.from_dict(info["plan"])
    assert plan.parent is not None
    assert plan.parent.widths == (18, 9)
    assert plan.widths == (13, 7)
    compressed = reptile_env.compress(user_task, info["plan"], **settings)
    assert compressed.measurement.metric == info["metric"]
    compressed.save(tmp_path / "net")
    for loaded in (reptile_env.load(tmp_path / "net"), reptile_env.load(tmp_path / "net", into=user_task.model)):
        assert loaded.plan == plan
        x = user_task.valid.inputs[:8]
        torch.testing.assert_close(loaded.model(x), compressed.model(x), atol=1e-6, rtol=0)


def test_weights_are_rounded_after_the_last_round_alone(user_task: Task) -> None:
    evaluator = evaluator_of(user_task)
    one = cut_all(evaluator, evaluator.dense, 0.3)
    rounded = Plan(one.names, one.keep, bits=[3] * len(one.names))
    onward = Plan(one.names, one.keep, parent=rounded)
    trained, expected = evaluator.compressed_model(onward), evaluator.compressed_model(one)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor)
    last = cut_all(evaluator, rounded.trained(), 0.2)
    assert last.bits == rounded.bits
    assert evaluator.measure(last).bytes < evaluator.measure(Plan(last.names, last.keep, parent=rounded)).bytes
    assert evaluator_of(user_task).measure(last) == evaluator.measure(last)
