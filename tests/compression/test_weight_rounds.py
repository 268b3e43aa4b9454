"""Single weights and two of every four: whole rounds run on every kind of network, within budgets, and can be repeated."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import reptile_env
from reptile_env.compression.plan import removal_count
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.compression.holes import BOTH, network, uniform
from tests.compression.kinds import first
from tests.helpers import make, small_task


@BOTH
@pytest.mark.parametrize("name", ["lstm", "transformer", "grouped", "generator"])
@pytest.mark.parametrize("observation", ["network", "group"])
def test_a_round_of_the_environment_runs(name: str, granularity: str, observation: str) -> None:
    model, data = network(name)
    metric = lambda o, t: 1 / (1 + (first(o) - 1).abs().mean())  # noqa: E731
    task = Task(model, data[:6], data[6:], metric=metric, loss=lambda o, t: first(o).mean(), w=0.2)
    env = gym.make("ReptilePrune-v0", task=task, granularity=granularity, observation=observation).unwrapped
    observed, _ = env.reset(seed=0)
    for step in range(len(env.groups)):  # type: ignore[attr-defined]
        assert env.observation_space.contains(observed)
        observed, reward, terminated, _, info = env.step(env.action_for(0.6))  # type: ignore[attr-defined]
        assert np.isfinite(reward)
        assert terminated == (step == len(env.groups) - 1)  # type: ignore[attr-defined]
    sizes = env.evaluator.sizes  # type: ignore[attr-defined]
    assert [entry["keep"] for entry in info["plan"].values()] == [size - removal_count(size, 0.6) for size in sizes]
    assert info["params"] < env.reference.dense.params  # type: ignore[attr-defined]


@BOTH
@pytest.mark.parametrize("cost", ["params", "macs", "bytes"])
def test_budgets_hold(cost: str, granularity: str) -> None:
    env = make("digits-mlp", granularity=granularity, cost=cost, budget=0.7, recovery="none", w=0.2)
    generator = np.random.default_rng(0)
    for rates in ([0.0] * 6, generator.uniform(0, 0.9, 6), [0.3, 0, 0, 0, 0, 0]):
        env.reset(seed=0)
        for rate in rates:
            _, _, _, _, info = env.step(env.action_for(float(rate)))
        assert info[cost] <= 0.7 * env.reference.dense.cost(cost)
    assert info[cost] > 0.5 * env.reference.dense.cost(cost)


@BOTH
def test_a_round_on_the_built_in_network(granularity: str) -> None:
    env = make("digits-cnn", granularity=granularity, cost="params", w=0.5)
    assert env.reference.uniform_plan != env.evaluator.dense
    assert env.reference.scale > 0.1
    env.reset(seed=0)
    total = 0.0
    for _ in env.groups:
        _, reward, _, _, info = env.step(env.action_for(0.5))
        total += reward
    assert info["metric"] > 0.95
    assert info["params"] < 0.52 * env.reference.dense.params
    assert total > 0.5


@BOTH
def test_plans_are_explained(granularity: str) -> None:
    task = small_task(f"explained-{granularity}", w=0.5)
    evaluator = LiveEvaluator(task, Settings(granularity=granularity))
    plan = uniform(evaluator, 0.5)
    explained = reptile_env.explain(task, plan, cost="params", granularity=granularity)
    assert [(e.group, e.kept, e.size) for e in explained] == list(zip(plan.names, plan.widths, evaluator.sizes, strict=True))
    assert all(e.undo_cost > 0 for e in explained)
    unit = {"unstructured": "weights", "2:4": "pairs of every four weights"}[granularity]
    assert explained[0].reason.startswith(f"0 keeps {plan.widths[0]} of {evaluator.sizes[0]} {unit}. Giving back all would be")
    assert all(e.deeper_cost < 0 for e in explained) == (granularity == "unstructured")


@BOTH
def test_the_compressed_network_is_the_one_that_was_measured(granularity: str) -> None:
    task = make_task("digits-cnn")
    evaluator = LiveEvaluator(task, Settings(granularity=granularity))
    plan = uniform(evaluator, 0.5)
    small = reptile_env.compress(task, plan, granularity=granularity)
    assert small.measurement.metric > 0.95
    measured = small.measurement.metric, small.measurement.loss
    assert task.score(task.outputs(small.model, task.valid), task.valid) == pytest.approx(measured, rel=1e-6)
    # Biases and scales that are exactly zero aside, what is counted is what is not zero.
    zeros = sum(int((p == 0).sum()) for p in small.model.parameters())
    assert small.measurement.params == sum(p.numel() for p in small.model.parameters()) - zeros
    assert reptile_env.compress(task, plan.to_dict(), granularity=granularity).measurement == small.measurement


def test_the_sequence_of_plans_leaves_no_trace() -> None:
    task = make_task("digits-mlp")
    before = {name: p.clone() for name, p in task.model.state_dict().items()}
    measured = []
    for order in ([0.8, 0.3, 0.0], [0.0, 0.3, 0.8]):
        evaluator = LiveEvaluator(task, Settings(granularity="unstructured"))
        plans = {rate: uniform(evaluator, rate) for rate in order}
        results = {rate: evaluator.measure(plan) for rate, plan in plans.items()}
        evaluator._memo.clear()
        assert {rate: evaluator.measure(plan) for rate, plan in plans.items()} == results
        measured.append(results)
    assert measured[0] == measured[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())
