"""The budget wall: no agent can end above it, and a lazy one ends right below it."""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reptile_env.actions import BITS
from reptile_env.budget import BudgetWall, Decision
from reptile_env.compression.cost import Costs, Levels
from reptile_env.compression.plan import removal_count
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks.task import Task
from tests.helpers import episode, make

COSTS = ["macs", "params", "bytes"]
every_cost = pytest.mark.parametrize("cost", COSTS)
every_number_of_rounds = pytest.mark.parametrize("rounds", [1, 2])


@functools.cache
def capped(task: str, cost: str, budget: float, rounds: int = 1, **kwargs: Any) -> ReptilePruneEnv:
    return make(task, cost=cost, budget=budget, rounds=rounds, measure="round", **kwargs)


def cost_of(env: ReptilePruneEnv, cost: str, widths: tuple[int, ...]) -> int:
    return int(env.evaluator.costs.all(widths)[cost])


@every_cost
@every_number_of_rounds
@given(
    budget=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]),
    rates=st.lists(st.one_of(st.floats(0, 0.9), st.sampled_from([0.0, 0.9])), min_size=14, max_size=14),
)
def test_it_is_never_exceeded(builtin: str, cost: str, rounds: int, budget: float, rates: list[float]) -> None:
    env = capped(builtin, cost, budget, rounds)
    _, info = episode(env, rates)
    dense = cost_of(env, cost, env.evaluator.sizes)
    assert info[cost] <= budget * dense
    assert info[cost] == env.measurement.cost(cost) == cost_of(env, cost, env.plan.widths)


@every_cost
@every_number_of_rounds
@pytest.mark.parametrize("budget", [0.13, 0.3, 0.5, 0.77, 0.95])
def test_an_agent_that_asks_for_nothing_lands_within_one_channel(builtin: str, cost: str, rounds: int, budget: float) -> None:
    env = capped(builtin, cost, budget, rounds)
    episode(env, 0.0)
    cap = budget * cost_of(env, cost, env.evaluator.sizes)
    widths, sizes = env.plan.widths, env.evaluator.sizes
    assert cost_of(env, cost, widths) <= cap
    wider = [(*widths[:i], widths[i] + 1, *widths[i + 1 :]) for i, size in enumerate(sizes) if widths[i] < size]
    assert wider
    assert any(cost_of(env, cost, each) > cap for each in wider)


@every_number_of_rounds
@pytest.mark.parametrize(("rate", "bites"), [(0.0, True), (0.1, True), (0.9, False)])
def test_it_bites_only_where_it_must(builtin: str, rounds: int, rate: float, bites: bool) -> None:
    env = capped(builtin, "macs", 0.4, rounds)
    env.reset(seed=0)
    bit = []
    for group in [*range(len(env.groups))] * rounds:
        before = len(env.plan.keep[group])
        *_, info = env.step(env.action_for(rate))
        removed, asked = before - len(env.plan.keep[group]), removal_count(before, info["rate_requested"])
        bit.append(info["budget_bit"])
        assert removed > asked if bit[-1] else removed == asked
    assert any(bit) == bites


def test_a_budget_of_everything_never_bites() -> None:
    env = capped("digits-mlp", "macs", 1.0)
    env.reset(seed=0)
    assert not any(env.step(env.action_for(0.0))[4]["budget_bit"] for _ in env.groups)


@every_cost
@every_number_of_rounds
def test_an_unreachable_budget_is_refused_with_the_smallest_that_is_reachable(builtin: str, cost: str, rounds: int) -> None:
    with pytest.raises(ValueError, match="can't be reached") as refused:
        make(builtin, cost=cost, budget=1e-4, rounds=rounds, max_rate=0.5)
    smallest = float(re.search(r"smallest that can is ([\d.]+)", str(refused.value))[1])  # type: ignore[index]
    env = make(builtin, cost=cost, budget=smallest, rounds=rounds, max_rate=0.5, measure="round")
    _, info = episode(env, 0.0)
    assert info[cost] <= smallest * cost_of(env, cost, env.evaluator.sizes)
    with pytest.raises(ValueError, match="can't be reached"):
        make(builtin, cost=cost, budget=smallest - 2e-4, rounds=rounds, max_rate=0.5)


@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
def test_it_is_met_even_when_no_decision_is_carried_out(builtin: str, id: str) -> None:
    env = make(builtin, id, budget=0.5, prune_probability=0.0)
    _, info = episode(env, 0.5)
    dense = env.measure(env.evaluator.dense)
    assert info["macs"] <= 0.5 * dense.macs
    assert info["budget_bit"]


def test_it_counts_what_the_listed_rates_can_reach() -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        make("digits-mlp", "ReptilePruneDiscrete-v0", rates=[0.0, 0.2], budget=0.3)
    env = make("digits-mlp", "ReptilePruneDiscrete-v0", rates=[0.0, 0.2], budget=0.8)
    assert episode(env, 0.0)[1]["macs"] <= 0.8 * env.measure(env.evaluator.dense).macs


def test_the_last_observation_tells_how_much_is_left_to_go(user_task: Task) -> None:
    env = make(user_task, budget=0.5)
    observed, _ = env.reset(seed=0)
    assert observed[-1] == pytest.approx(0.5)
    env.step(env.action_for(0.9))
    observed, *_ = env.step(env.action_for(0.9))
    assert observed[-1] == 0


@given(widths=st.tuples(st.integers(1, 24), st.integers(1, 12)), rounds=st.integers(1, 3), max_rate=st.floats(0.05, 0.95))
def test_the_wall_finds_the_fewest_channels(widths: tuple[int, int], rounds: int, max_rate: float, user_task: Task) -> None:
    costs = make(user_task).evaluator.costs
    cost_now, dense = costs.all(widths)["macs"], costs.all((24, 12))["macs"]

    def lowest(width: int, passes: int) -> int:
        for _ in range(passes):
            width -= removal_count(width, max_rate)
        return width

    reachable = costs.all((lowest(widths[0], rounds), lowest(widths[1], rounds)))["macs"]
    cap = (reachable + cost_now) / 2
    try:
        wall = BudgetWall(costs, "macs", cap / dense, (24, 12), max_rate, rounds)
    except ValueError:
        return  # the dense network itself can't reach it
    fewest = wall.decide((widths, (32, 32), (1.0, 1.0)), 0, 0, Decision(0)).count
    ends = [
        costs.all((lowest(widths[0] - k, rounds - 1), lowest(widths[1], rounds)))["macs"]
        for k in range(removal_count(widths[0], max_rate) + 1)
    ]
    assert fewest == int(np.argmax(np.array(ends) <= wall.cap))
    assert ends[fewest] <= wall.cap


class TestBitsAndRanks:
    """The wall where decisions are about bits and ranks too, on costs alone: nothing is measured."""

    @staticmethod
    def least(costs: Costs, cost: str, levels: Levels, limits: dict[str, Any], passes: tuple[int, int]) -> float:
        """The least that two groups can end with, each in as many decisions as `passes` says, by trying everything."""
        ends = []
        for i, (width, bits, rank) in enumerate(zip(*levels, strict=True)):
            smallest = width
            for _ in range(passes[i]):
                smallest -= removal_count(smallest, limits["max_rate"])
            depths = [b for b in BITS if b <= bits] if limits["bits"] and passes[i] else [bits]
            ranks = [r for r in (0.1, 0.2, 0.35, 0.5, 0.75) if r < rank] if limits["ranks"][i] and passes[i] else []
            ends.append([*itertools.product({smallest, width} if passes[i] else {width}, depths, [*ranks, rank])])
        rows = list(itertools.product(*ends))
        widths, depths, fractions = ([[end[k] for end in row] for row in rows] for k in range(3))
        return float(costs.cost(cost, widths, depths, fractions).min())

    @given(
        cost=st.sampled_from(["bytes", "params", "macs"]),
        rounds=st.integers(1, 2),
        max_rate=st.sampled_from([0.0, 0.5, 0.9]),
        bits=st.booleans(),
        ranks=st.tuples(st.booleans(), st.booleans()),
        part=st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 1)),
        asked=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(BITS), st.floats(0.1, 1)), min_size=4, max_size=4),
    )
    @settings(max_examples=60)
    def test_the_cap_is_met_and_nothing_changed_without_need(
        self,
        cost: str,
        rounds: int,
        max_rate: float,
        bits: bool,
        ranks: tuple[bool, bool],
        part: float,
        asked: list[tuple[float, int, float]],
        user_task: Task,
    ) -> None:
        costs, limits = make(user_task).evaluator.costs, {"max_rate": max_rate, "bits": bits, "ranks": ranks}
        levels: Levels = ([24, 12], [32, 32], [1.0, 1.0])
        dense = float(costs.cost(cost, *levels))
        smallest = self.least(costs, cost, levels, limits, (rounds, rounds))
        cap = smallest + part * (dense - smallest)
        wall = BudgetWall(costs, cost, min(cap / dense * (1 + 1e-12), 1.0), (24, 12), max_rate, rounds, bits, ranks)
        for step in range(2 * rounds):
            round_, group = divmod(step, 2)
            rate, depth, rank = asked[step]
            wanted = Decision(
                removal_count(levels[0][group], rate * max_rate),
                min(levels[1][group], depth) if bits else levels[1][group],
                min(levels[2][group], round(rank, 3)) if ranks[group] else levels[2][group],
            )
            done = wall.decide(levels, group, round_, wanted)
            later = (rounds - round_ - 1, rounds - round_ - 1 + (group == 0))
            if self.least(costs, cost, _after(levels, group, wanted), limits, later) <= wall.cap:
                assert done == wanted
            else:
                assert done.count >= wanted.count
                assert done.count == removal_count(levels[0][group], max_rate) or done.bits == wanted.bits
            assert done.bits <= levels[1][group]
            assert done.rank <= levels[2][group]
            levels = _after(levels, group, done)
            assert self.least(costs, cost, levels, limits, later) <= wall.cap
        assert float(costs.cost(cost, *levels)) <= wall.cap

    def test_first_the_rate_then_bits_then_the_rank(self, user_task: Task) -> None:
        costs, sizes = make(user_task).evaluator.costs, (24, 12)
        dense = float(costs.cost("bytes", sizes))

        def last(budget: float) -> Decision:
            wall = BudgetWall(costs, "bytes", budget, sizes, 0.5, 1, bits=True, ranks=(True, True))
            return wall.decide(([24, 12], [32, 32], [1.0, 1.0]), 1, 0, Decision(2))

        found = [last(k / 100) for k in range(99, 0, -1) if k / 100 * dense >= self.reach(costs)]
        assert found[0] == Decision(2)
        assert [d.count for d in found] == sorted(d.count for d in found)
        assert all(d.count == 6 for d in found if d.bits < 32)
        assert all(d.bits == 2 for d in found if d.rank < 1)
        assert {32, 8} <= {d.bits for d in found}

    @staticmethod
    def reach(costs: Costs) -> float:
        """Bytes with the second group at its lowest and the first one left alone."""
        return min(float(costs.cost("bytes", (24, 6), (32, b), (1.0, r))) for b in (32, 2) for r in (1.0, 0.1))

    def test_a_budget_out_of_reach_of_rates_is_met_by_bits(self, user_task: Task) -> None:
        costs = make(user_task).evaluator.costs
        dense, reachable = float(costs.cost("bytes", (24, 12))), []
        for limits in ({}, {"bits": True}, {"bits": True, "ranks": (True, True)}):
            with pytest.raises(ValueError, match="can't be reached") as refused:
                BudgetWall(costs, "bytes", 0.01, (24, 12), 0.5, 1, **limits)  # type: ignore[arg-type]
            found = re.search(r"smallest that can is ([\d.]+)", str(refused.value))
            assert found is not None
            reachable.append(float(found[1]))
            BudgetWall(costs, "bytes", reachable[-1], (24, 12), 0.5, 1, **limits)  # type: ignore[arg-type]
            whole = {"max_rate": 0.5, "bits": False, "ranks": (False, False), **limits}
            least = self.least(costs, "bytes", ([24, 12], [32, 32], [1.0, 1.0]), whole, (1, 1))
            assert reachable[-1] == np.ceil(least / dense * 1e4) / 1e4
        assert reachable[0] > 2 * reachable[1]
        assert reachable[1] >= reachable[2]
        assert "max_rate=0.5, rounds=1, 2 bits and rank 0.1" in str(refused.value)

    def test_what_costs_less_in_float_than_with_its_scales_ends_in_float(self, user_task: Task) -> None:
        costs, limits = make(user_task).evaluator.costs, {"max_rate": 0.9, "bits": True, "ranks": (True, True)}
        levels: Levels = ([24, 12], [32, 32], [1.0, 1.0])
        cap = self.least(costs, "bytes", levels, limits, (1, 1))
        budget = cap / float(costs.cost("bytes", *levels)) * (1 + 1e-12)
        wall = BudgetWall(costs, "bytes", budget, (24, 12), 0.9, 1, True, (True, True))
        for group in (0, 1):
            levels = _after(levels, group, wall.decide(levels, group, 0, Decision(0, 8, 1.0) if group else Decision(0)))
        assert 32 in levels[1]
        assert float(costs.cost("bytes", *levels)) == cap


def _after(levels: Levels, group: int, done: Decision) -> Levels:
    widths, bits, ranks = (list(values) for values in levels)
    widths[group] -= done.count
    bits[group], ranks[group] = done.bits, done.rank
    return widths, bits, ranks
