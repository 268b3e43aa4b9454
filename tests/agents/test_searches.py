"""Searches: what each evaluates, how it ends, and that it works wherever an environment does."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from torch import nn

from agents.base import Recorder
from agents.costs import PlanCosts
from agents.registry import AGENTS, make_agent
from agents.trace import Row, Trace
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks.task import Task
from tests.helpers import generator_states, small_task

SEARCHES = ("random", "greedy", "coordinate-ascent", "cma-es", "simulated-annealing", "tpe", "evolution", "beam-search", "mcts")
LEAST = {"random": 0.85, "tpe": 0.92}  # of the optimum, after 300 plans; 0.95 for the others
ONE_SHOT = ("global-magnitude", "lamp")


def make(name: str, task: Any = "digits-mlp", id: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    spec = AGENTS[name]
    return gym.make(id or spec.env_id, task=task, **{**spec.env_settings, **kwargs})


def inner(env: gym.Env[Any, Any]) -> ReptilePruneEnv:
    assert isinstance(env.unwrapped, ReptilePruneEnv)
    return env.unwrapped


def search(name: str, evaluations: int, seed: int = 0, **kwargs: Any) -> Trace:
    return make_agent(name).run(make(name, **kwargs), evaluations, seed)


def dense(cost: str) -> float:
    """Cost of the whole network."""
    return inner(make("random")).reference.dense.cost(cost)


@pytest.fixture(scope="module")
def one_group() -> Task:
    with_one = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
    return small_task("one-group", model=with_one, w=0.5)


@pytest.mark.parametrize("name", SEARCHES)
def test_comes_near_the_optimum_of_a_table(name: str) -> None:
    env = make(name, evaluator="table")
    trace = make_agent(name).run(env, 300, seed=1)
    env.reset()
    _, optimum = inner(env).optimum()
    assert trace.best is not None
    assert len(trace.rows) == 300
    assert trace.best.plan_return >= LEAST.get(name, 0.95) * optimum


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_keeps_a_budget(name: str, cost: str) -> None:
    trace = search(name, 60, budget=0.3, cost=cost)
    assert len(trace.rows) == 60
    assert trace.best is not None
    assert getattr(trace.best, cost) <= 0.3 * dense(cost)
    if AGENTS[name].measure == "round":
        assert all(row.within_budget for row in trace.rows)


@pytest.mark.parametrize("name", SEARCHES)
def test_one_group_is_enough(name: str, one_group: Task) -> None:
    trace = search(name, 40, task=one_group, recovery="none")
    assert trace.best is not None
    assert len(trace.rows) == (10 if name in ("beam-search", "mcts") else 40)  # there are no more than ten listed plans


@pytest.mark.parametrize("name", SEARCHES)
def test_decides_on_bits_and_ranks_under_a_budget(name: str) -> None:
    # A beam tries 31 settings of each of five groups before it has a complete plan.
    evaluations = 170 if name == "beam-search" else 60
    trace = search(name, evaluations, id="ReptileCompress-v0", budget=0.2, recovery="none", rounding="nearest")
    assert len(trace.rows) == evaluations
    assert trace.best is not None
    assert trace.best.bytes <= 0.2 * dense("bytes")
    assert {bits for row in trace.rows for bits in row.plan.bits} != {32}


@pytest.mark.parametrize("name", SEARCHES)
def test_takes_any_number_of_rounds_and_either_way_of_measuring(name: str) -> None:
    measures = ("step",) if name == "beam-search" else ("step", "round")
    for measure in measures:
        assert len(search(name, 33, measure=measure, rounds=2, evaluator="table").rows) == 33


@pytest.mark.parametrize("name", [*SEARCHES, *ONE_SHOT])
def test_leaves_global_generators_alone(name: str) -> None:
    search(name, 3)  # whatever is built once is built
    before = generator_states()
    search(name, 25)
    assert generator_states() == before


@pytest.mark.parametrize("budget", [0.2, 0.5, 0.8])
def test_random_plans_fill_the_budget(budget: float) -> None:
    for settings, least in (
        ({}, 0.96),
        ({"id": "ReptileCompress-v0"}, 0.94),
        ({"rounds": 3}, 0.96),
        ({"evaluator": "table"}, 0.85),
    ):
        trace = search("random", 42, budget=budget, recovery="none" if "id" in settings else "reconstruct", **settings)
        cost = "bytes" if "id" in settings else "macs"
        complete = {row.episode: row for row in trace.rows}.values()  # of several rounds the last
        used = [getattr(row, cost) / dense(cost) for row in complete]
        assert max(used) <= budget
        assert np.mean(used) >= least * budget, settings
        assert len({row.plan for row in complete}) > 0.75 * len(complete)


def test_random_plans_without_a_budget_are_anywhere() -> None:
    removed = [np.array(row.plan.widths) for row in search("random", 200, evaluator="table").rows]
    assert np.mean(removed, axis=0) / inner(make("random")).evaluator.sizes == pytest.approx([0.55] * 5, abs=0.06)


@pytest.mark.parametrize(
    ("id", "kwargs"),
    [
        ("ReptilePrune-v0", {}),
        ("ReptilePrune-v0", {"rounds": 2, "max_rate": 0.5}),
        ("ReptilePrune-v0", {"evaluator": "table", "cost": "params"}),
        ("ReptilePruneDiscrete-v0", {"rates": [0.0, 0.3, 0.6]}),
        ("ReptileCompress-v0", {"recovery": "none"}),
        ("ReptileCompress-v0", {"recovery": "none", "components": ["bits", "rate"]}),
    ],
    ids=str,
)
def test_costs_are_foreseen_to_the_last_bit(id: str, kwargs: dict[str, Any]) -> None:
    env = make("random", id=id, **kwargs)
    recorder = Recorder(env, Trace("costs", id, "digits-mlp", 0, 100))
    costs, rng = PlanCosts(recorder), np.random.default_rng(0)
    for _ in range(5):
        amounts = rng.uniform(0, recorder.tops).tolist()
        recorder.reset(seed=0)
        each = len(inner(env).components)
        for start in range(0, len(amounts), each):
            recorder.step(recorder.action_of(amounts[start : start + each]))
        reference = inner(env).reference
        assert costs.cost(amounts) == inner(env).measurement.cost(reference.cost) / reference.dense_cost


def test_rates_are_raised_alike_until_they_meet_the_cap() -> None:
    recorder = Recorder(make("random", budget=0.3), Trace("costs", "ReptilePrune-v0", "digits-mlp", 0, 100))
    costs, top = PlanCosts(recorder), recorder.max_rate
    rates = np.array([0.1, 0.2, 0.0, 0.6, 0.3])
    assert costs.cost(rates.tolist()) > 0.3
    raised = costs.raised(rates)
    assert 0.27 < costs.cost(raised.tolist()) <= 0.3
    added = raised - rates
    np.testing.assert_allclose(added, np.minimum(added.max(), top - rates))
    np.testing.assert_array_equal(costs.raised(raised), raised)


def test_greedy_cuts_the_group_that_gains_most() -> None:
    trace = search("greedy", 10, evaluator="table")
    sizes = inner(make("greedy")).evaluator.sizes
    first, second = trace.rows[:5], trace.rows[5:10]
    assert sorted(_cut(row, sizes) for row in first) == [(group,) for group in range(5)]
    chosen = _cut(max(first, key=lambda row: row.utility), sizes)[0]
    assert all(chosen in _cut(row, sizes) for row in second)
    assert {row.plan for row in second}.isdisjoint(row.plan for row in first)


def test_greedy_goes_from_one_listed_rate_to_the_next() -> None:
    trace = search("greedy", 10, id="ReptilePruneDiscrete-v0", rates=[0.0, 0.3, 0.6], evaluator="table")
    sizes = inner(make("greedy")).evaluator.sizes
    assert sorted(_cut(row, sizes) for row in trace.rows[:5]) == [(group,) for group in range(5)]
    assert len({row.plan for row in trace.rows}) == 10


def _cut(row: Row, sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(group for group, (width, size) in enumerate(zip(row.plan.widths, sizes, strict=True)) if width < size)


def test_a_beam_of_one_is_greedy_in_network_order_and_nothing_is_measured_twice() -> None:
    trace = search("beam-search", 400, evaluator="table")
    sweep = trace.rows[:50]  # five groups of ten rates
    for start in range(0, 40, 10):
        best = max(sweep[start : start + 10], key=lambda row: row.utility)
        following = {row.plan.widths[: start // 10 + 1] for row in sweep[start + 10 : start + 20]}
        assert following == {best.plan.widths[: start // 10 + 1]}
    whole = inner(make("beam-search")).evaluator.dense
    half_finished = [(row.group, row.plan) for row in trace.rows if row.plan != whole]
    assert len(set(half_finished)) == len(half_finished)


def test_beam_search_needs_half_finished_plans() -> None:
    with pytest.raises(ValueError, match="make the environment with measure='step'"):
        search("beam-search", 10, measure="round")


def test_tree_searches_end_with_every_plan_evaluated() -> None:
    for name in ("beam-search", "mcts"):
        trace = search(name, 2000, evaluator="table", rates=[0.0, 0.3, 0.6])
        plans = {row.plan for row in trace.rows}
        assert len(trace.rows) < 2000
        assert len({plan.widths for plan in plans}) >= 3**5


def test_mcts_evaluates_a_complete_plan_a_simulation() -> None:
    trace = search("mcts", 50, evaluator="table")
    assert [row.episode_return for row in trace.rows] == pytest.approx([row.plan_return for row in trace.rows])
    assert {row.group for row in trace.rows} == {inner(make("mcts")).groups[-1]}


@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_rules_take_the_lowest_scores_of_the_whole_network(name: str) -> None:
    importance = make_agent(name).settings["importance"]
    env = make(name, importance=importance)
    trace = make_agent(name).run(env, 100, seed=0)
    assert len(trace.rows) == 18
    scores = inner(env).evaluator.scores(importance)
    for row in trace.rows[:9]:  # later ones meet the largest rate of a group
        keep = [list(kept) for kept in row.plan.keep if not isinstance(kept, int)]
        kept = np.concatenate([score[k] for score, k in zip(scores, keep, strict=True)])
        gone = np.concatenate([np.delete(score, k) for score, k in zip(scores, keep, strict=True)])
        assert gone.max() <= kept.min()
    macs = [row.macs for row in trace.rows]
    assert all(after < before for before, after in itertools.pairwise(macs))


@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_rules_first_just_meet_the_budget(name: str) -> None:
    trace = search(name, 100, budget=0.5)
    assert 0.47 <= trace.rows[0].macs / dense("macs") <= 0.5
    assert 1 < len(trace.rows) < 18
    assert all(row.macs < trace.rows[0].macs for row in trace.rows[1:])


def test_one_shot_rules_score_single_weights_too() -> None:
    trace = search("global-magnitude", 3, granularity="unstructured")
    kept = trace.rows[0].plan.widths
    assert sum(kept) == pytest.approx(0.95 * 27968, abs=5)


def test_one_shot_rules_say_what_they_need() -> None:
    with pytest.raises(ValueError, match="no weights to score; use evaluator='live'"):
        search("lamp", 5, evaluator="table")
    with pytest.raises(ValueError, match=r"decides on rates.*add 'rate'"):
        search("lamp", 5, id="ReptileCompress-v0", components=["bits"], recovery="none")
    with pytest.raises(ValueError, match="use another granularity"):
        search("lamp", 5, granularity="2:4")


def test_hyperparameters_are_read_from_files_and_replaced_by_name() -> None:
    assert make_agent("evolution").settings["population"] == 25
    assert make_agent("evolution", {"population": 9}).settings["population"] == 9
    with pytest.raises(ValueError, match=r"unknown hyperparameter of evolution 'populaton'.*did you mean 'population'"):
        make_agent("evolution", {"populaton": 9})
