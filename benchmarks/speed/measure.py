"""Timing: sides take turns in one process, so that what slows the machine slows them all; medians, quartiles, intervals."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

DRAWS = 2000  # of a bootstrap
COVERAGE = (2.5, 97.5)  # percentiles between which 95 % of the draws lie
BUSY = 0.5  # load above which something else is running


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of timings, in seconds."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of at least one timing."""
        lower, median, upper = np.percentile(seconds, [25, 50, 75])
        return cls(float(median), float(lower), float(upper))

    def __str__(self) -> str:
        # Three digits of the median, and quartiles in its unit.
        factor, unit = next(((f, u) for f, u in ((1.0, "s"), (1e3, "ms")) if self.median * f >= 1), (1e6, "µs"))
        return f"{self.median * factor:.3g} {unit} ({self.lower * factor:.3g}-{self.upper * factor:.3g})"


@dataclass(frozen=True)
class Interval:
    """A number and the bootstrap's 95 % interval around it."""

    value: float
    low: float
    high: float


def interleaved(
    sides: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds that each side took, one number a repeat.

    Args:
        sides: what is timed, by name; each is called once a repeat, in this order and in the reverse order by turns.
        repeats: how often.
        warmup: repeats before, that are not counted.
        clock: gives seconds.
    """
    took: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(warmup + repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            start = clock()
            sides[name]()
            seconds = clock() - start
            if repeat >= warmup:
                took[name].append(seconds)
    return took


def ratio(numerator: Sequence[float], denominator: Sequence[float], seed: int = 0) -> Interval:
    """Ratio of the medians of timings that belong together one by one; pairs are drawn anew for the interval.

    Raises:
        ValueError: not as many of one as of the other, or none.
    """
    if len(numerator) != len(denominator) or not len(numerator):
        raise ValueError(f"{len(numerator)} timings against {len(denominator)}; a ratio needs pairs")
    above, below = np.asarray(numerator), np.asarray(denominator)
    drawn = np.random.default_rng(seed).integers(len(above), size=(DRAWS, len(above)))
    ratios = np.median(above[drawn], 1) / np.median(below[drawn], 1)
    low, high = np.percentile(ratios, COVERAGE)
    return Interval(float(np.median(above) / np.median(below)), float(low), float(high))


def exponent(work: Sequence[float], seconds: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """Slope of log median time over log work: 1 where time grows as the work does; timings of each size are drawn anew.

    Args:
        work: amounts, at least two.
        seconds: timings for each of them.
        seed: of the bootstrap.
    """
    logs = np.log(np.asarray(work, np.float64))
    generator = np.random.default_rng(seed)
    drawn = np.stack([np.median(generator.choice(np.asarray(s), (DRAWS, len(s))), 1) for s in seconds], 1)
    slopes = _slopes(logs, np.log(drawn))
    low, high = np.percentile(slopes, COVERAGE)
    return Interval(float(_slopes(logs, np.log([[np.median(s) for s in seconds]]))[0]), float(low), float(high))


def slope(x: Sequence[float], y: Sequence[float], blocks: int = 20, seed: int = 0) -> Interval:
    """Slope of a least-squares line through a series; blocks of it are drawn anew, since neighbours go together."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    whole = float(_slopes(xs, ys[None])[0])
    parts = np.array_split(np.arange(len(xs)), min(blocks, len(xs)))
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        rows = np.concatenate([parts[i] for i in generator.integers(len(parts), size=len(parts))])
        if len(np.unique(xs[rows])) > 1:
            found.append(float(_slopes(xs[rows], ys[rows][None])[0]))
    low, high = np.percentile(found, COVERAGE)
    return Interval(whole, float(low), float(high))


def _slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean()
    found: NDArray[np.float64] = (y - y.mean(1, keepdims=True)) @ centred / np.square(centred).sum()
    return found


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and what else was running there at the start."""
    load = os.getloadavg()[0]
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load at start": round(load, 2),
        "warning": f"the load was {load:.2f} at the start: something else was running, timings are off" if load > BUSY else "",
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def resident() -> float:
    """Memory that this process holds now, in MB (Linux).

    Raises:
        FileNotFoundError: a system without ``/proc``.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
