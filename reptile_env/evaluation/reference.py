"""What returns are measured against: the dense network and the best uniform setting."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reptile_env.compression.plan import FLOAT_BITS, Plan, Request, removal_count
from reptile_env.errors import number
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.rewards import quality, utility

# Where a task brings no w: the largest of these at which the best uniform rate gains at least MARGIN of utility.
W_CHOICES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
MARGIN = 0.02


@dataclass(frozen=True)
class Reference:
    """The scale of a task's utility under one cost.

    Attributes:
        cost: ``params``, ``macs``, ``bytes`` or ``latency``.
        w: weight of the metric in the utility.
        dense: measurement of the dense network.
        uniform: the best of what was asked of every group alike.
        uniform_plan: its plan.
        scale: its utility minus the dense network's, positive.
        higher_is_better: direction of the metric.
    """

    cost: str
    w: float
    dense: Measurement
    uniform: Request
    uniform_plan: Plan
    scale: float
    higher_is_better: bool

    @functools.cached_property
    def dense_cost(self) -> float:
        """The cost of the dense network."""
        return self.dense.cost(self.cost)

    @property
    def uniform_rate(self) -> float:
        """The rate of the best uniform setting."""
        return self.uniform.rate

    def quality(self, measurement: Measurement) -> float:
        """The metric relative to the dense network's, higher is better."""
        return quality(measurement.metric, self.dense.metric, self.higher_is_better)

    def utility(self, measurement: Measurement) -> float:
        """Utility of a measurement; ``w`` for the dense network."""
        return utility(self.w, self.quality(measurement), measurement.cost(self.cost) / self.dense_cost)

    def return_of(self, measurement: Measurement) -> float:
        """Utility above dense, scaled: 0 for the dense network, 1 for the best uniform setting."""
        return (self.utility(measurement) - self.utility(self.dense)) / self.scale


def uniform_plan(evaluator: Evaluator, rate: float, bits: int = FLOAT_BITS, rank: float = 1.0) -> Plan:
    """The plan that removes `rate` of every group and gives it `bits` and, where its layers can be factored, `rank`.

    Where the evaluator can't measure it, the plan of the nearest widths.
    """
    plan = evaluator.dense
    widths = tuple(size - removal_count(size, rate) for size in evaluator.sizes)
    if evaluator.grid is not None:
        widths = evaluator.grid.nearest_widths(widths)
    for group, (size, width, rankable) in enumerate(zip(evaluator.sizes, widths, evaluator.rankable, strict=True)):
        plan = evaluator.cut(plan, group, size - width).replace(group, bits=bits, rank=rank if rankable else 1.0)
    return plan


def make_reference(evaluator: Evaluator, cost: str, sweep: Sequence[float | Request], w: float | None) -> Reference:
    """Measure the uniform sweep (kept in the evaluator's memo) and derive the scale from it.

    Args:
        evaluator: measures the plans.
        cost: which cost the utility weighs.
        sweep: what is asked of every group alike, one after the other: requests, or rates above 0.
        w: weight of the metric; None takes the task's own, else chooses one from the sweep.

    Raises:
        ValueError: `w` outside (0, 1), a dense metric that is not positive, or no uniform setting that gains.
    """
    if w is not None and not 0 < number("w", w) < 1:
        raise ValueError(f"w={w} is outside (0, 1); it weighs the metric against the cost")
    dense = evaluator.measure(evaluator.dense)
    if not dense.metric > 0:
        raise ValueError(f"task {evaluator.name!r}: the dense network's metric is {dense.metric}; a positive one is needed")
    requests = [each if isinstance(each, Request) else Request(each) for each in sweep]
    plans = [uniform_plan(evaluator, *request) for request in requests]
    measured = [evaluator.measure(plan) for plan in plans]
    better = evaluator.higher_is_better
    gains_of_quality = np.array([quality(m.metric, dense.metric, better) - 1 for m in measured])
    savings = np.array([1 - m.cost(cost) / dense.cost(cost) for m in measured])
    given = float(w) if w is not None else evaluator.w
    for chosen in W_CHOICES if given is None else (given,):
        gains = chosen * gains_of_quality + (1 - chosen) * savings
        best = int(np.argmax(gains))
        if gains[best] > (MARGIN if given is None else 0):
            draft = Reference(cost, chosen, dense, requests[best], plans[best], 1.0, better)
            # The same arithmetic as in return_of, so that the best uniform setting returns exactly 1.
            scale = draft.utility(measured[best]) - draft.utility(dense)
            return Reference(cost, chosen, dense, requests[best], plans[best], scale, better)
    raise ValueError(
        f"task {evaluator.name!r}: with w={given} no uniform rate is worth its loss of {evaluator.metric_name}, so returns "
        "have no scale; lower w=, or use a recovery= that wins more back"
    )
