"""Each reward against numbers worked out by hand."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reptile_env.evaluation.measurement import Measurement
from reptile_env.rewards import REWARDS, Transition, purl, quality, utility
from tests.helpers import episode, make, play, random_actions, small_task


def measurement(**values: Any) -> Measurement:
    given = {"metric": 0.8, "loss": 0.5, "params": 100, "macs": 1000, "bytes": 400, "sparsity": (0.0,), "train_loss": 0.4}
    return Measurement(**{**given, **values})


def transition(terminated: bool = True, **after: Any) -> Transition:
    before, then = measurement(), measurement(**after)
    return Transition(before, before, then, 0.9, 0.95, 0.2, terminated, then.metric / before.metric)


@pytest.mark.parametrize(
    ("name", "after", "expected"),
    [
        ("tradeoff", {}, 0.05 / 0.2),
        ("loss", {"loss": 0.6, "train_loss": 0.7}, (0.5 * 0.4 + 0.5) - (0.5 * 0.7 + 0.6)),
        ("amc_params", {"metric": 0.75, "params": 50}, -0.25 * math.log(50)),
        ("amc_macs", {"metric": 0.75, "macs": 300}, -0.25 * math.log(300)),
        ("accuracy", {"metric": 0.75}, 0.75),
        ("purl", {"metric": 0.72, "params": 70}, -5 * ((1 - 0.9) + (1 - 0.3 / 0.5))),
        ("purl", {"metric": 0.9, "params": 40}, 0.0),
    ],
)
def test_the_formula(name: str, after: dict[str, Any], expected: float) -> None:
    assert REWARDS[name](transition(**after)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["amc_params", "amc_macs", "accuracy"])
def test_the_end_alone_pays(name: str) -> None:
    assert REWARDS[name](transition(terminated=False, metric=0.5)) == 0.0
    env = make(reward=name)
    env.reset(seed=0)
    steps = play(env, random_actions(env, len(env.groups)))
    assert [reward for _, reward, *_ in steps[:-1]] == [0.0] * (len(steps) - 1)
    info = steps[-1][-1]
    error = 1 - info["metric"]
    by_hand = {"amc_params": -error * math.log(info["params"]), "amc_macs": -error * math.log(info["macs"])}
    assert steps[-1][1] == by_hand.get(name, info["metric"])
    assert info["return"] == steps[-1][1]


def test_purl_pays_at_every_decision() -> None:
    env = make(reward="purl")
    dense = env.evaluator.measure(env.evaluator.dense)
    env.reset(seed=0)
    for _, reward, *_, info in play(env, random_actions(env, len(env.groups))):
        lost, gone = max(1 - info["metric"] / dense.metric, 0), 1 - info["params"] / dense.params
        assert reward == pytest.approx(-5 * (lost + max(1 - gone / 0.5, 0)), rel=1e-12)
        assert reward <= 0


def test_purl_reads_a_metric_that_is_better_when_lower_as_its_quality() -> None:
    env = make("digits-vae", reward="purl")
    dense = env.evaluator.measure(env.evaluator.dense)
    env.reset(seed=0)
    worse = []
    for _, reward, *_, info in play(env, random_actions(env, len(env.groups))):
        lost, gone = max(1 - dense.metric / info["metric"], 0), 1 - info["params"] / dense.params
        assert reward == pytest.approx(-5 * (lost + max(1 - gone / 0.5, 0)), rel=1e-12)
        worse.append(lost)
    assert max(worse) > 0


def test_purl_takes_other_targets() -> None:
    half = transition(metric=0.4, params=60)
    assert purl(half, accuracy=0.5) == pytest.approx(-5 * (1 - 0.4 / 0.5))
    assert purl(half, accuracy=0.5, sparsity=0.4) == 0
    env = make(reward=functools.partial(purl, sparsity=0.9))
    assert episode(env, 0.5)[0] < episode(make(reward="purl"), 0.5)[0]


def test_loss_pays_the_fall_of_both_losses() -> None:
    env = make(reward="loss")
    env.reset(seed=0)
    task = env.evaluator.task
    rows = torch.from_numpy(np.linspace(0, len(task.train) - 1, 512).round().astype(np.int64))

    def joint() -> float:
        model = env.evaluator.compressed_model(env.plan)
        with torch.no_grad():
            train, valid = (nn.functional.cross_entropy(model(s.inputs), s.targets) for s in (task.train[rows], task.valid))
        return 0.5 * float(train) + float(valid)

    for rate in (0.3, 0.8):
        before = joint()
        _, reward, *_ = env.step(env.action_for(rate))
        assert reward == pytest.approx(before - joint(), abs=1e-5)
        assert reward != 0


def test_a_callable_sees_the_decision() -> None:
    seen: list[Transition] = []

    def reward(transition: Transition) -> float:
        seen.append(transition)
        return transition.before.macs - transition.after.macs

    env = make(reward=reward)
    total, info = episode(env, 0.4)
    assert total == seen[0].dense.macs - info["macs"]
    assert seen[0].before == seen[0].dense
    assert all(a.after is b.before for a, b in itertools.pairwise(seen))
    assert [t.terminated for t in seen] == [False] * (len(seen) - 1) + [True]
    assert all(t.after.train_loss is None for t in seen)


def test_a_callable_can_ask_for_the_train_loss() -> None:
    def reward(transition: Transition) -> float:
        assert transition.after.train_loss is not None
        return transition.after.train_loss

    reward.needs_train_loss = True  # type: ignore[attr-defined]
    assert episode(make(reward=reward), 0.4)[0] > 0


def test_an_error_rate_is_needed_for_amc() -> None:
    task = small_task("no-error-rate", metric=lambda outputs, targets: outputs.abs().mean() + 1, w=0.5)
    with pytest.raises(ValueError, match="error rate"):
        make(task, reward="amc_macs")


@pytest.mark.parametrize(
    ("metric", "dense", "higher", "expected"),
    [(0.4, 0.8, True, 0.5), (1.6, 0.8, False, 0.5), (0.4, 0.8, False, 1.5), (0, 0.8, False, 2), (3, 3, False, 1)],
)
def test_quality_is_higher_when_better(metric: float, dense: float, higher: bool, expected: float) -> None:
    assert quality(metric, dense, higher) == pytest.approx(expected)


def test_utility_weighs_quality_against_cost() -> None:
    assert utility(0.8, 1.0, 1.0) == pytest.approx(0.8)
    assert utility(0.8, 0.5, 0.25) == pytest.approx(0.8 * 0.5 + 0.2 * 0.75)
