"""The decision process: what returns mean, rounds, chance, several tasks, snapshots."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reptile_env
from reptile_env.actions import uniform_rates
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.tasks.task import Task
from tests.helpers import episode, make, play, random_actions, small_task

COSTS = ["macs", "params", "bytes"]
rates = st.lists(st.floats(0, 0.9), min_size=16, max_size=16)


def utility(env: ReptilePruneEnv, metric: float, cost: int, name: str) -> float:
    """The design's formula, written out."""
    dense = env.measure(env.evaluator.dense)
    w = env.reference.w
    return w * metric / dense.metric + (1 - w) * (1 - cost / getattr(dense, name))


@pytest.mark.parametrize("cost", COSTS)
@given(rates=rates)
def test_rewards_telescope(cost: str, rates: list[float]) -> None:
    env = make(cost=cost)
    total, info = episode(env, rates)
    best = env.measure(uniform_plan(env.evaluator, env.reference.uniform_rate))
    scale = utility(env, best.metric, getattr(best, cost), cost) - env.reference.w
    assert info["utility"] == pytest.approx(utility(env, info["metric"], info[cost], cost), abs=1e-12)
    assert total == pytest.approx((info["utility"] - env.reference.w) / scale, abs=1e-9)
    assert info["return"] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
def test_doing_nothing_returns_zero(builtin: str, id: str) -> None:
    env = make(builtin, id)
    total, info = episode(env, 0.0)
    assert total == 0.0
    assert info["return"] == 0.0
    assert env.plan.widths == env.evaluator.sizes


@pytest.mark.parametrize("cost", COSTS)
def test_the_best_uniform_rate_returns_one(builtin: str, cost: str) -> None:
    env = make(builtin, cost=cost)
    total, info = episode(env, env.reference.uniform_rate)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert info["return"] == pytest.approx(1.0, abs=1e-12)


def test_the_best_uniform_rate_returns_one_with_listed_rates(builtin: str) -> None:
    rate = make(builtin).reference.uniform_rate
    env = make(builtin, "ReptilePruneDiscrete-v0", rates=[0.0, rate])
    assert episode(env, rate)[0] == pytest.approx(1.0, abs=1e-12)


def test_no_uniform_rate_returns_more_than_one(builtin: str) -> None:
    env = make(builtin)
    returns = {rate: episode(env, rate)[0] for rate in uniform_rates(0.9)}
    assert len(returns) == 18
    assert max(returns, key=returns.__getitem__) == env.reference.uniform_rate
    assert max(returns.values()) <= 1 + 1e-12


def test_uniform_actions_cut_the_uniform_plan(builtin: str) -> None:
    env = make(builtin, measure="round")
    for rate in uniform_rates(0.9):
        episode(env, rate)
        assert env.plan == uniform_plan(env.evaluator, rate)


def test_pruning_everything_returns_far_below_zero(builtin: str) -> None:
    assert episode(make(builtin), 0.9)[0] < -2


def test_a_step_removes_the_rate_it_reports(builtin: str) -> None:
    env = make(builtin)
    env.reset(seed=0)
    for index, size in enumerate(env.evaluator.sizes):
        _, _, _, _, info = env.step(env.action_for(0.37))
        kept = len(env.plan.keep[index])
        assert info["group"] == env.groups[index]
        assert info["rate_requested"] == pytest.approx(0.37, abs=1e-6)
        assert info["rate"] == (size - kept) / size
        assert abs(kept - 0.63 * size) <= 0.5 + 1e-3
        assert info["plan"] == env.plan.to_dict()
        assert env.evaluator.measure(env.plan) == env.measurement


def test_rounds_nest(user_task: Task) -> None:
    env = make(rounds=3)
    env.reset(seed=0)
    steps = play(env, random_actions(env, 3 * len(env.groups), seed=4))
    plans = [reptile_env.Plan.from_dict(info["plan"]) for *_, info in steps]
    for before, after in itertools.pairwise(plans):
        assert all(set(b) <= set(a) for a, b in zip(before.keep, after.keep, strict=True))
    assert steps[-1][2]
    # A rate is of what remains, not of the dense network: 24 -> 12 -> 6 -> 3 and 12 -> 6 -> 3 -> 1.
    small = make(user_task, rounds=3)
    episode(small, 0.5)
    assert small.evaluator.sizes == (24, 12)
    assert small.plan.widths == (3, 1)


def test_measuring_by_round_pays_the_same_return() -> None:
    by_step, by_round = make(rounds=2), make(rounds=2, measure="round")
    count = len(by_step.groups)
    actions = random_actions(by_step, 2 * count, seed=6)
    by_step.reset(seed=0)
    by_round.reset(seed=0)
    seen, rare = play(by_step, actions), play(by_round, actions)
    assert [info["measured"] for *_, info in rare] == ([False] * (count - 1) + [True]) * 2
    between = [reward for _, reward, _, _, info in rare if not info["measured"]]
    assert between == [0.0] * len(between)
    assert rare[-1][-1]["return"] == pytest.approx(seen[-1][-1]["return"], abs=1e-12)
    assert rare[-1][-1]["metric"] == seen[-1][-1]["metric"]
    # The cost needs no measurement and is always that of the plan at hand.
    assert [info["macs"] for *_, info in rare] == [info["macs"] for *_, info in seen]


class TestChance:
    def test_zero_never_cuts(self) -> None:
        total, info = episode(make(prune_probability=0.0), 0.9)
        assert total == 0.0
        assert info["rate_requested"] == pytest.approx(0.9, abs=1e-6)
        assert info["rate"] == 0.0

    def test_one_never_draws(self) -> None:
        env = make(prune_probability=1.0)
        env.reset(seed=0)
        before = env.np_random.bit_generator.state
        play(env, random_actions(env, len(env.groups)))
        assert env.np_random.bit_generator.state == before

    def test_half_cuts_about_half_of_the_time_as_the_seed_says(self) -> None:
        env = make(prune_probability=0.5, measure="round", rounds=2)

        def carried_out(seed: int) -> list[bool]:
            env.reset(seed=seed)
            actions = [env.action_for(0.3)] * (2 * len(env.groups))
            return [info["rate"] > 0 for *_, info in play(env, actions)]

        runs = [carried_out(seed) for seed in range(60)]
        assert runs == [carried_out(seed) for seed in range(60)]
        assert 0.4 < np.mean(runs) < 0.6


class TestSeveralTasks:
    def test_one_is_drawn_at_each_reset(self) -> None:
        env = make(["digits-cnn", "digits-mlp"], observation="group")
        drawn = [env.reset(seed=seed)[1]["task"] for seed in range(20)]
        assert drawn == [env.reset(seed=seed)[1]["task"] for seed in range(20)]
        assert set(drawn) == {"digits-cnn", "digits-mlp"}
        assert 4 <= drawn.count("digits-cnn") <= 16

    def test_options_name_one(self) -> None:
        env = make(["digits-cnn", "digits-mlp"], observation="group")
        for name in ("digits-mlp", "digits-cnn", "digits-cnn"):
            _, info = env.reset(options={"task": name})
            assert info["task"] == name
            assert env.groups == make(name).groups

    def test_each_is_measured_against_its_own_reference(self) -> None:
        env = make(["digits-cnn", "digits-mlp"], observation="group")
        for name in ("digits-cnn", "digits-mlp"):
            alone = make(name)
            env.reset(options={"task": name})
            alone.reset(seed=0)
            rewards = [
                [reward for _, reward, *_ in play(e, [e.action_for(alone.reference.uniform_rate)] * len(e.groups))]
                for e in (env, alone)
            ]
            assert rewards[0] == rewards[1]
            assert sum(rewards[0]) == pytest.approx(1.0, abs=1e-12)

    def test_the_network_observation_needs_networks_of_one_length(self) -> None:
        with pytest.raises(ValueError, match="observation='group'"):
            make(["digits-cnn", "digits-mlp"], observation="network")


class TestSnapshots:
    @given(before=st.integers(0, 3), wander=st.lists(st.floats(0, 0.9), min_size=1, max_size=4), after=rates)
    def test_restore_goes_back(self, before: int, wander: list[float], after: list[float]) -> None:
        env, undisturbed = make(prune_probability=0.5), make(prune_probability=0.5)
        for each in (env, undisturbed):
            expected, _ = each.reset(seed=1)
            for _ in range(before):
                expected, *_ = each.step(each.action_for(0.3))
        snapshot = env.snapshot()
        for rate in wander:
            if env.step(env.action_for(rate))[2]:
                env.reset()
        np.testing.assert_array_equal(env.restore(snapshot), expected)
        rest = [env.action_for(rate) for rate in after[: len(env.groups) - before]]
        assert play(env, rest) == play(undisturbed, rest)

    def test_a_snapshot_serves_more_than_once_and_elsewhere(self) -> None:
        env, other = make(), make()
        env.reset(seed=0)
        env.step(env.action_for(0.4))
        snapshot = env.snapshot()
        actions = random_actions(env, len(env.groups) - 1)
        first = play(env, actions)
        env.restore(snapshot)
        assert play(env, actions) == first
        other.restore(snapshot)
        assert play(other, actions) == first

    def test_the_picture_goes_back_too(self) -> None:
        env = make(render_mode="rgb_array")
        env.reset(seed=0)
        env.step(env.action_for(0.4))
        snapshot, picture = env.snapshot(), env.render()
        env.step(env.action_for(0.8))
        assert (env.render() != picture).any()
        env.restore(snapshot)
        np.testing.assert_array_equal(env.render(), picture)

    def test_a_snapshot_of_another_task_is_refused(self) -> None:
        env, other = make("digits-mlp"), make("digits-cnn")
        env.reset(seed=0)
        other.reset(seed=0)
        with pytest.raises(ValueError, match="another task"):
            env.restore(other.snapshot())
        with pytest.raises(TypeError, match="snapshot"):
            env.restore(None)  # type: ignore[arg-type]


def test_best_is_the_best_measured_plan(env: ReptilePruneEnv) -> None:
    seen: list[tuple[float, Any]] = []
    for seed in range(5):
        env.reset(seed=seed)
        for *_, info in play(env, random_actions(env, len(env.groups), seed)):
            seen.append((info["utility"], info["plan"]))
    plan, measurement = env.best
    top = max(utility for utility, _ in seen)
    assert env.reference.utility(measurement) == top
    assert plan.to_dict() in [p for u, p in seen if u == top]


def test_best_keeps_to_the_budget() -> None:
    env = make(budget=0.3)
    env.reset(seed=0)
    env.step(env.action_for(0.0))
    with pytest.raises(ValueError, match="within the budget"):
        _ = env.best
    episode(env, 0.0)
    assert env.best[0] == env.plan


def test_scores_are_for_the_calibrated_setting_alone(user_task: Task) -> None:
    known = make("digits-cnn")
    _, info = episode(known, known.reference.uniform_rate)
    assert info["score"] == pytest.approx(0.0, abs=1e-9)
    for other in (make("digits-cnn", w=0.6), make("digits-cnn", rounds=2), make("digits-cnn", recovery="none"), make(user_task)):
        assert np.isnan(episode(other, 0.1)[1]["score"])


def test_w_moves_the_best_uniform_rate() -> None:
    cautious, thrifty = make(w=0.95), make(w=0.5)
    assert cautious.reference.uniform_rate < thrifty.reference.uniform_rate
    for env in (cautious, thrifty):
        assert episode(env, env.reference.uniform_rate)[0] == pytest.approx(1.0, abs=1e-12)


RULES = [{"rounds": 3}, {"budget": 0.12}, {"cost": "params"}, {"max_rate": 0.5}, {"recovery": "none"}, {"w": 0.7}]


@pytest.mark.parametrize("rules", RULES)
def test_a_snapshot_taken_under_other_rules_is_refused(rules: dict[str, Any]) -> None:
    plain, other = make(), make(**rules)
    for taken_in, restored_in in ((plain, other), (other, plain)):
        taken_in.reset(seed=0)
        taken_in.step(taken_in.action_for(0.0))
        restored_in.reset(seed=0)
        before = restored_in.snapshot()
        with pytest.raises(ValueError, match="under other rules"):
            restored_in.restore(taken_in.snapshot())
        assert restored_in.snapshot() == before


def test_different_tasks_of_one_name_are_refused() -> None:
    first, second = small_task("same"), small_task("same", w=0.6)
    with pytest.raises(ValueError, match="have the same name"):
        make([first, second])
    make([first, first])


@pytest.mark.parametrize("rates", [[0, 0.33, 0.5], [0.0, 0.17], list(np.linspace(0, 0.9, 4))])
def test_the_best_uniform_rate_is_one_that_actions_can_ask_for(rates: list[float]) -> None:
    env = make(id="ReptilePruneDiscrete-v0", rates=rates)
    assert env.reference.uniform_rate in rates
    assert episode(env, env.reference.uniform_rate)[0] == pytest.approx(1, abs=1e-12)


def test_odd_options_seeds_and_actions_are_refused() -> None:
    env = make()
    with pytest.raises(ValueError, match="unknown reset option"):
        env.reset(options={1: 2, "a": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="seed must be a whole number"):
        env.reset(seed=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"an action is one number in \[-1, 1\]"):
        env.step([[1, 2], [3]])
