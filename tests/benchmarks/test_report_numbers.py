"""The report's numbers: how runs are scored and compared, and which plans a page holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.cases import Suite, by_suite, judged
from benchmarks.report.estimates import ALL, anytime, lines, results, scopes, winner
from benchmarks.report.packing import pack, unpack
from benchmarks.report.thinning import rows_on_page
from benchmarks.statistics.pareto import front
from reptile_env.tasks.registry import references
from tests.reports import suite_of
from tests.results import failed_run, made_run, many_runs, with_returns

NAN = math.nan


def line_of(suite: Suite, agent: str, scope: str = ALL, track: str = "search") -> Any:
    """What is said about an agent."""
    chosen = next(each for each in scopes(suite, track) if each.name == scope)
    return next(line for line in lines(chosen) if line.agent == agent)


def test_a_run_is_scored_by_its_best_plan_within_the_budget() -> None:
    within = np.array([True, True, False])
    run = with_returns([0.4, 1.3, 1.5], columns={"within_budget": within})
    (case,) = suite_of(run).cases
    assert case.best(run) == 1
    assert judged(case, run, "search", "score") == pytest.approx((1.3 - 1) / (1.6 - 1))
    nothing = with_returns([0.4], columns={"within_budget": np.array([False])})
    assert math.isnan(judged(suite_of(nothing).cases[0], nothing, "search", "score"))


def test_a_policy_is_scored_by_its_own_return_and_searches_without_one_are_not() -> None:
    runs = [with_returns([1.5], agent="sac", policy_return=1.15), with_returns([1.6], agent="random")]
    suite = suite_of(*runs)
    assert suite.tracks == ["search", "policy"]
    (scope,) = scopes(suite, "policy")
    assert scope.agents == ("sac",)
    assert line_of(suite, "sac", "task-a", "policy").main.value == pytest.approx(0.25)


def test_failed_runs_of_an_agent_with_a_policy_are_missing_in_that_track_too() -> None:
    done = [with_returns([1.5 + 0.01 * seed], agent="sac", seed=seed, policy_return=1.1) for seed in range(5)]
    searched = [with_returns([1.2], seed=seed) for seed in range(6)]
    failed = [failed_run("sac", seed=5), failed_run("random", seed=6)]
    suite = suite_of(*done, *searched, *failed)
    assert suite.failed_in("search") == failed
    assert suite.failed_in("policy") == failed[:1]
    line = line_of(suite, "sac", "task-a", "policy")
    assert (line.main.n, line.planned, line.complete) == (5, 6, False)


def test_returns_on_different_scales_are_compared_on_one() -> None:
    # The listed rates of a discrete environment miss the best uniform rate: the same gain is a larger return there.
    fine = with_returns([1.2], agent="sac", scale=made_run().scale | {"scale": 0.05})
    coarse = with_returns([1.5], agent="dqn", scale=made_run().scale | {"scale": 0.04}, best_known_return=NAN, uniform_return=NAN)
    (case,) = suite_of(fine, coarse).cases
    assert judged(case, coarse, "search", "return") == pytest.approx(1.2)
    assert judged(case, coarse, "search", "score") == pytest.approx(judged(case, fine, "search", "score"))


def test_scores_are_of_the_best_plan_that_is_known_today() -> None:
    known = references()["digits-mlp"]
    scale = made_run().scale | {"cost": known["settings"]["cost"], "w": known["w"], "scale": known["scale"]}
    then = {"task": "digits-mlp", "scale": scale, "best_known_return": 1.1}
    (case,) = suite_of(with_returns([1.1], **then)).cases
    assert case.anchors.best == known["best_known"]["return"]
    # Fewer rates to choose from, and so another scale: the same plans.
    (case,) = suite_of(with_returns([1.1], **then | {"scale": scale | {"scale": known["scale"] / 2}})).cases
    assert (case.anchors.uniform, case.anchors.best) == (2, 2 * known["best_known"]["return"])
    # Not where plans return something else: with another weight, with other settings, on a table, which has an optimum.
    for other in ({"scale": scale | {"w": 0.5}}, {"settings": {"task": "digits-mlp", "recovery": "none"}}):
        (case,) = suite_of(with_returns([1.1], **then | other)).cases
        assert case.anchors.best == 1.1
    (case,) = suite_of(with_returns([1.1], **then, settings={"task": "digits-mlp", "evaluator": "table"})).cases
    assert case.anchors.best == 1.1
    capped = suite_of(with_returns([0.1], **then | {"best_known_return": 0.2}, settings={"task": "digits-mlp", "budget": 0.5}))
    assert capped.cases[0].anchors.best == known["budgets"]["0.5"]["best_known"]["return"]


def test_regret_is_known_on_tables_alone() -> None:
    settings = {"task": "task-a", "evaluator": "table"}
    runs = [with_returns([best], seed=seed, settings=settings) for seed, best in enumerate([1.6, 1.6, 1.4, 1.5])]
    found = line_of(suite_of(*runs), "random", "task-a")
    assert found.regret.value == pytest.approx(0.05)
    assert found.optimal == 0.5
    live = line_of(suite_of(with_returns([1.6])), "random", "task-a")
    assert live.regret is None
    assert live.optimal is None


def test_tasks_without_a_best_known_plan_are_told_by_return_and_pooled_with_none() -> None:
    unknown = {"uniform_return": NAN, "best_known_return": NAN}
    suite = suite_of(with_returns([1.3]), with_returns([9.0], task="mine", **unknown))
    whole, *_ = scopes(suite, "search")
    assert whole.left_out == ("mine",)
    assert line_of(suite, "random").main.value == pytest.approx(0.5)
    assert line_of(suite, "random", "mine").main.value == 9.0
    alone = suite_of(*(with_returns([2.0], task=task, **unknown) for task in ("mine", "yours")))
    whole, *_ = scopes(alone, "search")
    assert (whole.number, whole.left_out) == ("return", ())


def test_runs_that_were_not_made_failed_or_found_nothing_are_missing_and_no_winner_is_marked() -> None:
    better = [with_returns([1.5 + 0.001 * seed], agent="sac", seed=seed) for seed in range(5)]
    worse = [with_returns([1.0 + 0.001 * seed], seed=seed) for seed in range(5)]
    suite = suite_of(*better, *worse)
    (scope,) = scopes(suite, "search")
    assert winner(lines(scope)) == "sac"
    for missing in ([], [failed_run(seed=4)], [with_returns([2.0], seed=4, columns={"within_budget": np.array([False])})]):
        (scope,) = scopes(suite_of(*better, *worse[:4], *missing), "search")
        found = {line.agent: (line.main.n, line.planned) for line in lines(scope)}
        assert found == {"sac": (5, 5), "random": (4, 5)}
        assert winner(lines(scope)) is None
    assert line_of(suite_of(*better, failed_run()), "random", "task-a").main.n == 0


def test_overlapping_intervals_have_no_winner() -> None:
    runs = [
        with_returns([1.2 + 0.1 * seed + skill], agent=agent, seed=seed)
        for agent, skill in (("a", 0), ("b", 0.1))
        for seed in range(5)
    ]
    (each,) = results(suite_of(*runs), "search")
    assert each.winner is None
    assert each.improvement["a", "b"].value < 0.5


def test_agents_that_learnt_on_test_networks_are_scored_nowhere() -> None:
    cheated = with_returns([1.6], agent="cheat", on_test=True)
    suite = suite_of(with_returns([1.1]), cheated)
    assert [run.agent for case in suite.cases for run in case.runs] == ["random"]
    assert suite.on_test == [cheated]


def test_anytime_curves_end_where_the_first_run_does() -> None:
    runs = [with_returns([1.0, 1.2, 1.1, 1.4]), with_returns([1.1, 1.0], seed=1)]
    (scope,) = scopes(suite_of(*runs), "search")
    curve = anytime(scope, "evaluations", "return")
    band = curve.lines["random"]
    assert curve.points.tolist() == [1, 2, 3, 4]
    assert band.value.tolist() == pytest.approx([1.05, 1.15, NAN, NAN], nan_ok=True)
    seconds = anytime(scope, "seconds", "return")
    assert seconds.points[-1] == runs[0].columns["simulated_seconds"][-1]


def test_profiles_begin_where_runs_are() -> None:
    good = [with_returns([1.3 + 0.01 * seed], seed=seed) for seed in range(30)]
    (each,) = results(suite_of(*good, with_returns([-9.0], seed=30)), "search")
    assert each.profiles.points[0] == pytest.approx((1.3 - 1) / 0.6, abs=0.1)  # one disaster empties no half of the figure
    (each,) = results(suite_of(*good, *(with_returns([-9.0], seed=seed) for seed in range(30, 60))), "search")
    assert -1.2 < each.profiles.points[0] < -1


def test_suites_are_never_mixed() -> None:
    found = by_suite([made_run(), made_run(suite="other-v2")])
    assert [(suite.name, len(suite.runs)) for suite in found] == [("made-v1", 1), ("other-v2", 1)]


columns = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.lists(st.integers(0, 2**53), max_size=9).map(lambda each: np.array(each, np.int64)),
        st.lists(st.booleans(), max_size=9).map(lambda each: np.array(each, bool)),
        st.lists(st.floats(width=32), max_size=9).map(lambda each: np.array(each, np.float64)),
    ),
)


@given(columns)
def test_packed_columns_come_back_as_they_were(given_columns: dict[str, Any]) -> None:
    listed, text = pack(given_columns)
    assert all(each["offset"] % 8 == 0 for each in listed)
    for name, column in unpack(listed, text).items():
        np.testing.assert_array_equal(column.astype(np.float64), given_columns[name].astype(np.float64))


def test_a_thinned_page_holds_whole_episodes_the_best_plans_and_every_agents_front() -> None:
    (case,) = suite_of(*many_runs(plans=2000, seeds=3, tasks=["task-a"])).cases
    total, held = 12 * 2000, rows_on_page(case, 4000)
    assert sum(map(len, held)) == pytest.approx(4000, rel=0.03)
    for run, rows in zip(case.runs, held, strict=True):
        assert (np.diff(rows) > 0).all()
        assert case.best(run) in rows
        episodes = np.unique(run.columns["episode"][rows])
        assert rows.tolist() == np.flatnonzero(np.isin(run.columns["episode"], episodes)).tolist()
        assert np.diff(episodes).max() < 20  # from the beginning of the run to its end
    for agent in ("cma-es", "sac"):
        own = [(run, rows) for run, rows in zip(case.runs, held, strict=True) if run.agent == agent]
        metric, macs = (np.concatenate([run.columns[name] for run, _ in own]) for name in ("metric", "macs"))
        kept = np.concatenate([np.isin(np.arange(run.evaluated), rows) for run, rows in own])
        assert kept[front(macs, metric)].all()
    assert sum(map(len, rows_on_page(case, total))) == total
    assert min(map(len, rows_on_page(case, 1))) > 0  # what matters is never left out
