"""The best plan that an environment on a table can end with: exact, so that regret is. Numpy only."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reptile_env.budget import deepest_count
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.episode import Rules, Scene
from reptile_env.evaluation.grid import Grid
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.rewards import utility

Rows = NDArray[np.int64]


def optimum(scene: Scene, rules: Rules, rates: Sequence[float] | None) -> tuple[Plan, float]:
    """The plan of the highest return among all that episodes can end with, and that return.

    Args:
        scene: a task on a table.
        rules: of the environment: the budget, how often and how deep it cuts.
        rates: those that actions can ask for; None where they ask for any up to the largest.

    Raises:
        ValueError: the evaluator is no table.
    """
    evaluator = scene.evaluator
    if not isinstance(evaluator, TableEvaluator):
        raise ValueError("only a table knows every plan; make the environment with evaluator='table'")
    rows = reachable(scene, rules, rates)
    row = int(rows[np.argmax(utilities(scene, evaluator, rows))])
    return evaluator.grid.plan(row), scene.reference.return_of(evaluator.measurement(row))


def utilities(scene: Scene, evaluator: TableEvaluator, rows: Rows) -> NDArray[np.float64]:
    """Utility of each row, by the arithmetic of `reptile_env.rewards`."""
    relative = evaluator.columns[scene.reference.cost][rows] / scene.reference.dense.cost(scene.reference.cost)
    return np.asarray(utility(scene.reference.w, qualities(scene, evaluator, rows), relative))  # type: ignore[arg-type]


def qualities(scene: Scene, evaluator: TableEvaluator, rows: Rows) -> NDArray[np.float64]:
    """Metric of each row relative to dense, higher is better, by the arithmetic of `reptile_env.rewards`."""
    metric, dense = evaluator.columns["metric"][rows].astype(np.float64), scene.reference.dense.metric
    if scene.reference.higher_is_better:
        return np.asarray(metric / dense)
    worse = metric > dense
    return np.where(worse, dense / np.where(worse, metric, 1.0), 2 - metric / dense)


def reachable(scene: Scene, rules: Rules, rates: Sequence[float] | None) -> Rows:
    """Rows of all plans that episodes can end with, ascending, where every decision is carried out."""
    evaluator = scene.evaluator
    assert isinstance(evaluator, TableEvaluator)
    grid, groups = evaluator.grid, len(evaluator.sizes)
    deepest = functools.partial(deepest_levels, grid, rules.max_rate)
    rows = np.zeros(1, np.int64)
    for round_ in range(rules.rounds):
        for group in range(groups):
            passes = [rules.rounds - round_ - 1 + (i > group) for i in range(groups)]
            ends = [deepest(i, passes[i]) for i in range(groups)]
            rows = _decided(scene, evaluator, rows, group, ends, _choices(grid, group, rates, rules.max_rate))
    return rows


def _decided(
    scene: Scene, evaluator: TableEvaluator, rows: Rows, group: int, ends: Sequence[Rows], choices: NDArray[np.bool_]
) -> Rows:
    """Rows after all decisions on `group`: those asked for that leave the budget in reach, else the least more that does."""
    grid = evaluator.grid
    levels = grid.levels_of(rows)
    count, stride = len(grid.levels[group]), grid.strides[group]
    after = rows[:, None] + (np.arange(count) - levels[:, group, None]) * stride  # (rows, levels of the group)
    asked = choices[levels[:, group]]
    if scene.wall is None:
        return np.unique(after[asked])
    # What each decision costs at the least: the row in which everything still to come is as deep as can be.
    lowest = sum(ends[i][levels[:, i]] * grid.strides[i] for i in range(len(ends)) if i != group)
    lowest = np.asarray(lowest)[..., None] + ends[group] * stride
    deeper = np.arange(count) >= levels[:, group, None]
    fits = (evaluator.columns[scene.reference.cost][lowest] <= scene.wall.cap) & deeper
    raised = np.argmax(fits[:, None, :] & (np.arange(count)[None, :] > np.arange(count)[:, None]), axis=-1)  # (rows, asked)
    taken = np.where(fits, np.arange(count), raised)
    return np.unique(np.take_along_axis(after, taken, axis=1)[asked])


def _choices(grid: Grid, group: int, rates: Sequence[float] | None, max_rate: float) -> NDArray[np.bool_]:
    """``(level before, level after)``: whether an action asks for this."""
    widths = grid.levels[group]
    asked = np.zeros((len(widths), len(widths)), bool)
    for level, width in enumerate(widths):
        if rates is None:
            last = widths.index(width - deepest_count(grid, group, width, max_rate))
            asked[level, level : last + 1] = True
        else:
            for rate in rates:
                asked[level, widths.index(width - grid.nearest(group, width, removal_count(width, rate)))] = True
    return asked


def deepest_levels(grid: Grid, max_rate: float, group: int, passes: int) -> Rows:
    """For each level of a group the level that the deepest decisions lead to."""
    widths = grid.levels[group]
    ends = []
    for width in widths:
        for _ in range(passes):
            width -= deepest_count(grid, group, width, max_rate)
        ends.append(widths.index(width))
    return np.array(ends)
