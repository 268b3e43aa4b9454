"""Statistics of runs: against rliable's values, against what follows from the definitions, and on too little data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.statistics.anytime import best_so_far, sampled
from benchmarks.statistics.comparing import performance_profile, probability_of_improvement, stands_out
from benchmarks.statistics.intervals import Estimate, band, estimate, pooled_iqm, pooled_mean
from benchmarks.statistics.pareto import LEAST_QUALITY, front, hypervolume
from tests.helpers import generator_states

# rliable 1.2.0 asks for a version of arch that the pinned pandas breaks, so its values were written down instead of computed here.
RLIABLE: dict[str, Any] = json.loads(Path(__file__).with_name("rliable.json").read_text(encoding="utf-8"))
# Ends of intervals are drawn: two programs that are right differ by this much.
DRAWN = 0.025

AGENTS = ("first", "second")
Scores = list[NDArray[np.float64]]


def scores(agent: str) -> Scores:
    """Runs of each task."""
    return list(np.array(RLIABLE["scores"][agent]).T)


@pytest.mark.parametrize("agent", AGENTS)
def test_interquartile_mean_and_interval_are_rliables(agent: str) -> None:
    found, (value, low, high) = estimate(scores(agent), resamples=10_000), RLIABLE["iqm"][agent]
    assert found.value == pytest.approx(value, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=DRAWN)
    assert found.n == 40


@pytest.mark.parametrize("agent", AGENTS)
def test_performance_profile_is_rliables(agent: str) -> None:
    found, known = performance_profile(scores(agent), np.array(RLIABLE["thresholds"])), RLIABLE["profiles"][agent]
    assert found.value.tolist() == pytest.approx(known["value"])
    # Shares of 40 runs: ends of intervals lie on multiples of 1/40.
    assert found.low == pytest.approx(known["low"], abs=1 / 40 + 1e-9)
    assert found.high == pytest.approx(known["high"], abs=1 / 40 + 1e-9)


def test_probability_of_improvement_is_rliables() -> None:
    found, (value, low, high) = probability_of_improvement(scores("second"), scores("first")), RLIABLE["improvement"]
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=DRAWN)
    back = probability_of_improvement(scores("first"), scores("second"))
    assert back.value == pytest.approx(1 - value)


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert estimate([np.array([0.0, 1, 2, 1000]), np.array([3.0, 4, -1000, 5])]).value == np.mean([1, 2, 3, 4])


def test_runs_are_resampled_within_their_task() -> None:
    # Each task's runs are nearly alike: stratified resamples can't differ much, those of all runs together would.
    near = np.array([-1e-3, 0.0, 0.0, 0.0, 1e-3])
    found = estimate([near, 1 + near, 2 + near], pooled_mean)
    assert found.low < found.value < found.high
    assert (found.low, found.high) == pytest.approx((1, 1), abs=1e-3)


def test_runs_that_are_all_the_same_are_one_and_give_no_interval() -> None:
    fixed, other, drawn = [np.full(5, 0.3), np.full(5, 0.5)], [np.full(5, 0.2), np.full(5, 0.5)], scores("first")[:2]
    found = estimate(fixed)
    assert (found.value, found.n, found.alike, found.has_interval) == (pytest.approx(0.4), 10, True, False)
    assert not estimate([np.full(5, 0.3), np.array([0.5, 0.5, 0.5, 0.5, np.nextafter(0.5, 1)])]).alike
    assert not estimate([np.full(5, 0.3), np.array([0.5])]).alike  # of one run nobody knows
    # Neither of two such agents draws anything: there is no chance to be sure of. One that draws has its own.
    pair = probability_of_improvement(fixed, other)
    assert (pair.value, pair.n, pair.alike, pair.has_interval) == (0.75, 20, True, False)
    assert probability_of_improvement(fixed, drawn).has_interval
    # Who stands out does not hang on it.
    assert stands_out({"fixed": found, "worse": estimate([np.array([0.1, 0.2, 0.1, 0.2, 0.1])] * 2)}, 5) == "fixed"
    assert stands_out({"fixed": found, "same": found}, 5) is None
    curves = band([np.tile([[1.0], [2.0]], 5)])
    assert curves.value.tolist() == [1, 2]
    assert np.isnan(curves.low).all()


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(3)
    held = [
        found.low <= 0 <= found.high
        for found in (estimate(list(generator.normal(size=(4, 15))), pooled_mean, resamples=300, seed=i) for i in range(200))
    ]
    # Percentile intervals of 60 runs are a little too narrow; 4 standard errors around 93 %.
    assert 0.86 < np.mean(held) <= 1


def test_one_run_of_a_task_gives_no_interval() -> None:
    alone = estimate([np.array([0.3]), np.array([0.5, 0.7])])
    assert alone.value == pytest.approx(0.5)
    assert not alone.has_interval
    assert alone.n == 3


def test_runs_without_a_number_are_left_out_and_counted_so() -> None:
    found = estimate([np.array([1.0, math.nan, 3.0]), np.array([math.nan])])
    assert (found.value, found.n) == (2.0, 2)
    assert found.has_interval
    nothing = estimate([np.array([math.nan]), np.array([])])
    assert math.isnan(nothing.value)
    assert nothing.n == 0
    assert math.isnan(probability_of_improvement([np.array([math.nan])], [np.array([1.0])]).value)
    assert np.isnan(performance_profile([np.array([math.nan])], np.array([0.0])).value).all()


def test_band_is_missing_where_a_run_has_no_number_yet() -> None:
    runs = np.array([[math.nan, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, math.nan]]).T
    found = band([runs], pooled_mean)
    assert found.value.tolist() == pytest.approx([math.nan, 1.0, 2.0, math.nan], nan_ok=True)
    assert np.isnan(found.low).tolist() == [True, False, False, True]


def test_strata_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="all of as many points"):
        band([np.zeros((3, 2)), np.zeros((4, 2))])


def test_the_same_seed_gives_the_same_interval_and_nothing_global_changes() -> None:
    before = generator_states()
    first, again, other = (estimate(scores("first"), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.value == other.value
    assert generator_states() == before


def test_improvement_over_oneself_is_a_half_and_ties_count_half() -> None:
    assert probability_of_improvement(scores("first"), scores("first")).value == 0.5
    assert probability_of_improvement([np.array([1.0, 1.0])], [np.array([1.0, 2.0])]).value == 0.25
    # A task that one of them has no run of says nothing.
    assert probability_of_improvement([np.array([1.0]), np.array([9.0])], [np.array([0.0]), np.array([])]).value == 1


def test_a_winner_needs_an_interval_above_all_others() -> None:
    best, next_, near = Estimate(0.9, 0.8, 1.0, 5), Estimate(0.5, 0.4, 0.79, 5), Estimate(0.7, 0.6, 0.81, 5)
    assert stands_out({"a": best, "b": next_}, 5) == "a"
    assert stands_out({"a": best, "b": next_}, 4) is None
    assert stands_out({"a": best, "b": next_, "c": near}, 10) is None
    assert stands_out({"a": best}, 10) is None
    assert stands_out({"a": best, "b": Estimate(0.1, math.nan, math.nan, 1)}, 10) is None


def test_best_so_far_counts_allowed_plans_alone() -> None:
    curve = best_so_far([5.0, 1.0, 0.5, 2.0], [False, True, True, True])
    assert curve.tolist() == pytest.approx([math.nan, 1.0, 1.0, 2.0], nan_ok=True)
    assert best_so_far([], []).size == 0


def test_curves_are_read_as_steps_and_not_beyond_their_ends() -> None:
    read = sampled(np.array([1.0, 2.0, 4.0]), [0.5, 1.0, 2.0], [0.4, 0.5, 0.9, 1.0, 1.9, 2.0, 2.1])
    assert read.tolist() == pytest.approx([math.nan, 1, 1, 2, 2, 4, math.nan], nan_ok=True)
    assert np.isnan(sampled(np.array([]), [], [1.0])).all()


points = st.lists(st.tuples(st.floats(0.01, 1.2), st.floats(0, 1.3)), max_size=30)


@given(points)
def test_front_holds_exactly_the_plans_that_none_dominates(plans: list[tuple[float, float]]) -> None:
    costs, qualities = np.array(plans).reshape(-1, 2).T
    chosen = set(front(costs, qualities).tolist())
    for i, (cost, quality) in enumerate(plans):
        others = [p for j, p in enumerate(plans) if j != i]
        dominated = any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in others)
        if i in chosen:
            assert not dominated
        else:
            assert dominated or any(plans[j] == (cost, quality) for j in chosen)


@given(points)
def test_hypervolume_is_the_area_that_a_grid_counts(plans: list[tuple[float, float]]) -> None:
    costs, qualities = np.array(plans).reshape(-1, 2).T
    cells, top = 200, 1.3
    x, y = (np.arange(cells) + 0.5) / cells, LEAST_QUALITY + (top - LEAST_QUALITY) * (np.arange(cells) + 0.5) / cells
    height = np.max([np.where(x >= c, q, 0.0) for c, q in plans], axis=0) if plans else np.zeros(cells)
    counted = (y[None, :] < height[:, None]).mean() * (top - LEAST_QUALITY) / (1 - LEAST_QUALITY)
    assert hypervolume(costs, qualities) == pytest.approx(counted, abs=0.02)


def test_hypervolume_of_known_plans() -> None:
    assert hypervolume([0.5], [1.0]) == pytest.approx(0.5)
    assert hypervolume([0.5, 0.25], [1.0, 0.75]) == pytest.approx(0.5 + 0.25 * 0.5)
    assert hypervolume([0.5, 0.6], [1.0, 0.9]) == pytest.approx(0.5)
    assert hypervolume([], []) == hypervolume([1.0], [1.0]) == hypervolume([0.1], [0.5]) == 0


def test_pooled_iqm_keeps_leading_axes() -> None:
    runs = np.random.default_rng(0).normal(size=(3, 7, 4))
    assert pooled_iqm([runs, runs]).shape == (3, 7)
