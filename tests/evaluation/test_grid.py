"""Rows of a table and the plans that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env.actions import DEFAULT_RATES
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.grid import Grid, check_settings, grid_rates, make_grid, widths_at
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings
from tests.tables import tiny_task

GRID = Grid(("a", "b"), (4, 6), ((2, 0, 3, 1), (5, 4, 3, 2, 1, 0)), ((4, 2, 1), (6, 3)), frozenset({(3, 5)}))


def test_rows_count_the_last_group_first() -> None:
    assert GRID.rows == 6
    assert [GRID.plan(row).widths for row in range(6)] == [(4, 6), (4, 3), (2, 6), (2, 3), (1, 6), (1, 3)]
    assert GRID.plan(3).keep == ((1, 3), (0, 1, 2))
    assert GRID.plan(0) == Plan.dense(("a", "b"), (4, 6))


@given(st.integers(0, 5))
def test_a_row_and_its_plan_lead_to_each_other(row: int) -> None:
    plan = GRID.plan(row)
    assert GRID.row(plan) == row == sum(s * int(level) for s, level in zip(GRID.strides, GRID.levels_of(row), strict=True))
    assert tuple(GRID.widths_of(row)) == plan.widths
    np.testing.assert_array_equal(GRID.widths_of([row, 0])[0], plan.widths)


@pytest.mark.parametrize(
    ("width", "count", "goes"), [(4, 0, 0), (4, 1, 0), (4, 2, 2), (4, 3, 3), (2, 0, 0), (2, 1, 1), (1, 0, 0), (3, 0, 1), (3, 2, 2)]
)
def test_the_nearest_level_at_or_below_is_carried_out(width: int, count: int, goes: int) -> None:
    """From 4: 3 channels lie as far from 4 as from 2, so all stay."""
    assert GRID.nearest(0, width, count) == goes


def test_further_plans_keep_their_own_widths() -> None:
    assert GRID.nearest_widths((3, 5)) == (3, 5)
    assert GRID.nearest_widths((3, 4)) == (4, 3)
    assert GRID.find(GRID.plan_of((3, 5))) is None
    with pytest.raises(ValueError, match="group 'a' keeps 3 channels; it knows the widths 4, 2, 1"):
        GRID.row(GRID.plan_of((3, 5)))


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (Plan(("a", "c"), [[1], [0]]), "are not those of the table"),
        (Plan(("a", "b"), [[0, 1], range(6)]), "keep the most important channels"),
        (Plan(("a", "b"), [range(4), range(7)]), "keep the most important channels"),
        (Plan(("a", "b"), [3, 6]), "got the count 3"),
        (Plan(("a", "b"), [range(4), range(6)], bits=[8, 32]), "float plans of whole layers"),
        (Plan(("a", "b"), [range(4), range(6)], ranks=[1, 0.5]), "float plans of whole layers"),
        (Plan(("a", "b"), [range(4), range(6)]).trained(), "float plans of whole layers"),
    ],
)
def test_plans_that_no_table_holds_are_refused(plan: Plan, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        GRID.row(plan)


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a reptile_env\.Plan is needed, got dict"):
        GRID.row({})  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="row 6 is outside 0 to 5"):
        GRID.plan(6)


@pytest.mark.parametrize("importance", ["l1", "obs", "auto"])
def test_the_order_is_the_one_in_which_the_running_network_loses_channels(importance: str) -> None:
    evaluator = live_evaluator(tiny_task(), Settings(importance=importance))
    grid = make_grid(evaluator, [0.0, 0.5])
    for group, size in enumerate(grid.sizes):
        for count in range(size):
            assert evaluator.cut(evaluator.dense, group, count).keep[group] == grid.kept(group, size - count)
            assert grid.kept(group, size - count) is grid.kept(group, size - count)


def test_uniform_plans_are_further_only_where_they_are_no_rows() -> None:
    grid = make_grid(live_evaluator(tiny_task(), Settings()), [0.0, 0.5], exact=[0.25, 0.5])
    assert grid.exact == {(18, 9, 12)}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"granularity": "unstructured"}, "granularity='unstructured'"),
        ({"recovery": "reconstruct+finetune"}, "without 'finetune'"),
        ({"latency": True}, "measured on one machine"),
    ],
)
def test_settings_under_which_a_plan_is_more_than_its_widths_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_settings(Settings(**settings))  # type: ignore[arg-type]


def test_levels_lie_closer_together_where_cuts_are_mild() -> None:
    for levels in range(2, 11):
        rates = grid_rates(levels)
        assert (rates[0], rates[-1], len(set(rates))) == (0.0, 0.9, levels)
    assert grid_rates(5) == [0.0, 0.2, 0.4, 0.6, 0.9]
    assert grid_rates(10) == list(DEFAULT_RATES)
    with pytest.raises(ValueError, match="2 to 10 levels"):
        grid_rates(1)
    assert widths_at(4, [0.0, 0.1, 0.5, 0.99]) == (4, 2, 1)


@pytest.mark.parametrize("levels", [(3, 2), (4, 4), (4, 5), (4, 0), ()])
def test_levels_descend_from_dense(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must descend from 4"):
        Grid(("a",), (4,), ((0, 1, 2, 3),), (levels,))
    with pytest.raises(ValueError, match="each of its channels"):
        Grid(("a",), (4,), ((0, 1, 2, 2),), ((4,),))
