"""Random plans of a task, drawn as random search draws them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reptile_env.actions import DEFAULT_MAX_RATE
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.base import Evaluator


def random_plans(evaluator: Evaluator, plans: int, seed: int = 0) -> Iterator[Plan]:
    """Plans whose rates are drawn from 0 to the largest, for each group its own."""
    for rates in np.random.default_rng(seed).uniform(0, DEFAULT_MAX_RATE, (plans, len(evaluator.sizes))):
        yield cut_to(
            evaluator, [size - removal_count(size, float(rate)) for size, rate in zip(evaluator.sizes, rates, strict=True)]
        )


def cut_to(evaluator: Evaluator, widths: list[int]) -> Plan:
    """The plan of these widths, as the evaluator cuts."""
    plan = evaluator.dense
    for group, (size, width) in enumerate(zip(evaluator.sizes, widths, strict=True)):
        plan = evaluator.cut(plan, group, size - width)
    return plan
