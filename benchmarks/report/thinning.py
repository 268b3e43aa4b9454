"""Which plans a page holds where there are more than a browser is quick with: whole episodes, and all that matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.cases import COSTS, Case
from benchmarks.results import Run
from benchmarks.statistics.pareto import front

Rows = NDArray[np.int64]


def rows_on_page(case: Case, most: int) -> list[Rows]:
    """For each run of a task the indices of the plans that its page holds, in order.

    Of a task with more than `most` plans these are the episodes of each run's best plan, those of the plans on each agent's front
    (of accuracy against each cost), and of the others as many as fit, evenly spread over each run.

    Args:
        case: the task.
        most: plans; what matters may be more.
    """
    total = sum(run.evaluated for run in case.runs)
    if total <= most:
        return [np.arange(run.evaluated) for run in case.runs]
    needed = [_marked(run, matters) for run, matters in zip(case.runs, _mattering(case), strict=True)]
    room = max(0, most - sum(int(each.sum()) for each in needed))
    share = room / max(1, total - sum(int(each.sum()) for each in needed))
    return [np.flatnonzero(each | _spread(run, share)) for run, each in zip(case.runs, needed, strict=True)]


def _mattering(case: Case) -> list[Rows]:
    """For each run its best plan, and its plans on the fronts of its agent."""
    upward = 1 if case.higher_is_better else -1
    found: list[list[int]] = [[] for _ in case.runs]
    for number, run in enumerate(case.runs):
        best = case.best(run)
        found[number] += [] if best is None else [best]
    for agent in dict.fromkeys(run.agent for run in case.runs):
        own = [number for number, run in enumerate(case.runs) if run.agent == agent]
        owner = np.repeat(own, [case.runs[number].evaluated for number in own])
        row = np.concatenate([np.arange(case.runs[number].evaluated) for number in own])
        metric = upward * np.concatenate([case.runs[number].columns["metric"] for number in own])
        for cost in COSTS:
            for at in front(np.concatenate([case.runs[number].columns[cost] for number in own]), metric).tolist():
                found[owner[at]].append(int(row[at]))
    return [np.array(rows, np.int64) for rows in found]


def _marked(run: Run, rows: Rows) -> NDArray[np.bool_]:
    """The plans of the episodes that some plans are of."""
    episode = run.columns["episode"]
    return np.isin(episode, episode[rows])


def _spread(run: Run, share: float) -> NDArray[np.bool_]:
    """The plans of a share of the episodes, evenly spread."""
    place = run.columns["episode"]
    return np.asarray(np.floor(place * share) > np.floor((place - 1) * share))
