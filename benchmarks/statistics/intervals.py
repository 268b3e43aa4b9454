"""Interquartile means with stratified bootstrap intervals (Agarwal et al., Deep RL at the Edge of the Statistical Precipice, 2021).

Scores come as strata: one array a task, which holds one number a run. The runs of a task are resampled among themselves, so that
every resample has as many runs of each task as there were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Strata = Sequence[Floats]
# Strata of shape (..., runs of the task) to one number for each of (...).
Statistic = Callable[[Strata], Floats]

CONFIDENCE = 0.95
RESAMPLES = 2000
TRIMMED = 0.25  # at either end: what is left is the interquartile range
_NUMBERS_AT_ONCE = 4_000_000


class Estimate(NamedTuple):
    """A statistic and how far it can be trusted.

    Attributes:
        value: the statistic; NaN without a run.
        low: lower end of its 95 % interval; NaN where there is none.
        high: upper end.
        n: runs that it stands on.
        alike: whether the runs of each task are several and all the same: their agent draws nothing (or none of what it draws
            matters), they are one run written down several times, and an interval would claim more than is known.
    """

    value: float
    low: float
    high: float
    n: int
    alike: bool = False

    @property
    def has_interval(self) -> bool:
        """Whether there were runs enough for one, two of every task, and not all alike."""
        return not math.isnan(self.low)

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; where all runs are alike, the value at either end; NaN where there is neither."""
        return (self.value, self.value) if self.alike else (self.low, self.high)


class Band(NamedTuple):
    """As `Estimate`, for a row of numbers: arrays of one shape."""

    value: Floats
    low: Floats
    high: Floats
    n: int


def pooled_iqm(strata: Strata) -> Floats:
    """Interquartile mean of all runs of all tasks: the mean of the middle half."""
    return np.asarray(stats.trim_mean(np.concatenate(list(strata), axis=-1), TRIMMED, axis=-1))


def pooled_mean(strata: Strata) -> Floats:
    """Mean of all runs of all tasks."""
    return np.asarray(np.concatenate(list(strata), axis=-1).mean(axis=-1))


def estimate(strata: Strata, statistic: Statistic = pooled_iqm, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """A statistic of runs, with its interval.

    Args:
        strata: for each task its runs, each ``(runs,)``; NaN stands for a run without a number, which is left out.
        statistic: of the strata.
        resamples: of the bootstrap.
        seed: of what the bootstrap draws.
    """
    found = band([runs[None] for runs in strata], statistic, resamples, seed)
    alike = all_alike([runs[None] for runs in strata])
    return Estimate(float(found.value[0]), float(found.low[0]), float(found.high[0]), found.n, alike)


def band(strata: Strata, statistic: Statistic = pooled_iqm, resamples: int = RESAMPLES, seed: int = 0) -> Band:
    """A statistic along a curve, with its interval at each point.

    Args:
        strata: for each task the curves of its runs, each ``(points, runs)``; a curve that is all NaN is left out.
        statistic: of the strata.
        resamples: of the bootstrap; whole curves are drawn.
        seed: of what it draws.

    Returns:
        Arrays ``(points,)``; a point at which any run that is left has no number is NaN. Curves that are all alike have no band.

    Raises:
        ValueError: strata of different numbers of points, or none.
    """
    if not strata or len({len(runs) for runs in strata}) > 1:
        raise ValueError(f"strata of {[runs.shape for runs in strata]}; at least one is needed, all of as many points")
    known = _known(strata)
    count = sum(runs.shape[1] for runs in known)
    value, low, high = (np.full(len(strata[0]), math.nan) for _ in range(3))
    if not count:
        return Band(value, low, high, 0)
    complete = ~np.isnan(np.concatenate(known, axis=1)).any(axis=1)
    known = [runs[complete] for runs in known]
    value[complete] = statistic(known)
    if complete.any() and min(runs.shape[1] for runs in known) > 1 and not all_alike(strata):
        low[complete], high[complete] = interval(known, statistic, resamples, seed)
    return Band(value, low, high, count)


def all_alike(strata: Strata) -> bool:
    """Whether each task has at least two runs and all of them are the same to the last bit.

    Args:
        strata: as `band` takes them; tasks without a run are left out.
    """
    known = _known(strata)
    return bool(known) and all(
        runs.shape[1] > 1 and np.array_equal(runs, np.broadcast_to(runs[:, :1], runs.shape), equal_nan=True) for runs in known
    )


def _known(strata: Strata) -> list[Floats]:
    """Curves without those that are all NaN, and without tasks that have no other."""
    found = [runs[:, ~np.isnan(runs).all(axis=0)] for runs in map(np.asarray, strata)]
    return [runs.astype(np.float64) for runs in found if runs.shape[1]]


def interval(strata: Strata, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Floats, Floats]:
    """Ends of the 95 % percentile interval of a statistic.

    Args:
        strata: each ``(..., runs of the task)``, at least two runs each, all of them numbers.
        statistic: of the strata.
        resamples: of the bootstrap.
        seed: of what it draws.
    """

    def of(*drawn: Any, axis: int = -1) -> Floats:
        return statistic(drawn)

    numbers = sum(runs.size for runs in strata)
    found = stats.bootstrap(
        strata,
        of,
        axis=-1,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        batch=max(1, _NUMBERS_AT_ONCE // numbers),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)
