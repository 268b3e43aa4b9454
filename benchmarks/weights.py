"""Which weight of the metric makes a task a benchmark: random plans are measured once, and every weight is tried on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.budgets import best_of
from benchmarks.plans import random_plans
from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.rewards import quality

WEIGHTS = (0.95, 0.93, 0.9, 0.87, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What a weight makes of the measured plans.

    Attributes:
        w: weight of the metric in the utility.
        uniform_rate: the best uniform rate.
        scale: its utility minus the dense network's.
        mean: mean return of random plans.
        best_of_200: mean of the best returns of 200 random plans.
        best: best return of all of them.
    """

    w: float
    uniform_rate: float
    scale: float
    mean: float
    best_of_200: float
    best: float

    @property
    def separates(self) -> bool:
        """Whether random plans are worse than dense in the mean, and the best of 200 better than uniform."""
        return self.mean < 0 and self.best_of_200 > 1


def survey(
    evaluator: Evaluator,
    plans: int,
    *,
    seed: int = 0,
    cost: str = "macs",
    weights: Sequence[float] = WEIGHTS,
    progress: Callable[[float], None] = lambda done: None,
) -> list[Choice]:
    """Try weights on random plans and the uniform sweep.

    Args:
        evaluator: measures the plans.
        plans: random ones, at least 1: every group's rate is drawn from 0 to the largest.
        seed: of the draws.
        cost: what the utility weighs.
        weights: those to try.
        progress: told the fraction that is done.

    Returns:
        One choice for each weight at which some uniform rate gains.
    """
    if plans < 1:
        raise ValueError(f"plans={plans}; give at least 1")
    rates = uniform_rates(DEFAULT_MAX_RATE)
    uniform = [evaluator.measure(uniform_plan(evaluator, rate)) for rate in rates]
    measured = []
    for index, plan in enumerate(random_plans(evaluator, plans, seed)):
        measured.append(evaluator.measure(plan))
        progress((index + 1) / plans)
    swept, random = _parts(evaluator, uniform, cost), _parts(evaluator, measured, cost)
    choices = []
    for w in weights:
        gains = _gains(w, *swept)
        best = int(np.argmax(gains))
        if gains[best] > 0:
            returns = _gains(w, *random) / gains[best]
            told = float(gains[best]), float(returns.mean()), best_of(returns.tolist()), float(returns.max())
            choices.append(Choice(w, rates[best], *told))
    return choices


def choose(choices: Sequence[Choice]) -> Choice:
    """The choice at which random plans are in the mean about as far below the dense network as uniform is above it.

    Raises:
        ValueError: none separates; the network has to be another one.
    """
    fitting = [choice for choice in choices if choice.separates]
    if not fitting:
        raise ValueError(
            "no weight makes this a benchmark: random plans are not worse than dense, or uniform is nearly the best; give its "
            "groups unequal widths, kernels or importance"
        )
    return min(fitting, key=lambda c: abs(c.mean + 1))


def _parts(evaluator: Evaluator, measured: Sequence[Measurement], cost: str) -> tuple[Floats, Floats]:
    """Quality and relative cost of each."""
    dense = evaluator.measure(evaluator.dense)
    qualities = [quality(m.metric, dense.metric, evaluator.higher_is_better) for m in measured]
    return np.array(qualities), np.array([m.cost(cost) / dense.cost(cost) for m in measured])


def _gains(w: float, qualities: Floats, costs: Floats) -> Floats:
    return np.asarray(w * (qualities - 1) + (1 - w) * (1 - costs))
