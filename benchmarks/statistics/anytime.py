"""How good the best plan is that a run has found by now."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.statistics.intervals import Floats


def best_so_far(values: ArrayLike, allowed: ArrayLike) -> Floats:
    """The largest value up to each plan; NaN before the first that is allowed.

    Args:
        values: one for each evaluated plan, in order.
        allowed: whether the plan counts: those beyond the budget do not.
    """
    counted = np.where(np.asarray(allowed, bool), np.asarray(values, np.float64), np.nan)
    return np.asarray(np.fmax.accumulate(counted)) if counted.size else counted


def sampled(values: Floats, at: ArrayLike, points: ArrayLike) -> Floats:
    """A curve that keeps its value from each point to the next, read elsewhere.

    Args:
        values: of the curve.
        at: where it takes each of them, ascending.
        points: where it is read.

    Returns:
        NaN before the first value, and after the last: nobody knows how the run would have gone on.
    """
    places, wanted = np.asarray(at, np.float64), np.asarray(points, np.float64)
    if not len(values):
        return np.full(wanted.shape, np.nan)
    index = np.searchsorted(places, wanted, side="right") - 1
    inside = (index >= 0) & (wanted <= places[-1])
    return np.where(inside, values[np.maximum(index, 0)], np.nan)
