"""Observations: what an agent sees, always float32 in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reptile_env.compression.plan import FLOAT_BITS, Plan
from reptile_env.errors import unknown
from reptile_env.evaluation.base import Evaluator

KINDS = ("conv", "depthwise", "linear", "recurrent", "attention", "other")


class View(NamedTuple):
    """Where an episode stands, as observations see it.

    Attributes:
        evaluator: gives groups and their static description.
        plan: what each group keeps.
        group: index of the group to decide on next.
        quality: last measured metric relative to dense, higher is better.
        relative_cost: cost of the plan relative to dense.
        progress: decisions made, as a fraction of the episode.
        budget_left: how far the cost is above the cap, relative to dense; 0 without a cap.
        previous_rate: rate carried out by the last decision.
        components: what a decision is about: some of ``rate``, ``bits`` and ``rank``.
        w: weight of the metric in the utility.
    """

    evaluator: Evaluator
    plan: Plan
    group: int
    quality: float
    relative_cost: float
    progress: float
    budget_left: float
    previous_rate: float
    components: tuple[str, ...]
    w: float


def network(view: View) -> NDArray[np.float32]:
    """Sparsity of every group, one-hot of the current group, metric, cost, progress, budget left.

    Length ``2 * groups + 4``. Where bits are decided on, bits / 32 of every group follow, and then, where ranks are, the rank
    of every group: ``groups`` more for each.
    """
    sizes, plan = view.evaluator.sizes, view.plan
    values = [1 - width / size for width, size in zip(plan.widths, sizes, strict=True)]
    current = [0.0] * len(sizes)
    current[view.group] = 1.0
    values += current
    values += (view.quality, view.relative_cost, view.progress, view.budget_left)
    if "bits" in view.components:
        values += [bits / FLOAT_BITS for bits in plan.bits]
    if "rank" in view.components:
        values += plan.ranks
    return _observed(values)


# What observation "group" holds after the one-hot of the kind of the current group, in this order.
GROUP_FEATURES = (
    "depth",
    "inputs",
    "outputs",
    "kernel",
    "stride",
    "share of params",
    "share of macs",
    "share removed",
    "share ahead",
    "sensitivity",
    "sparsity",
    "previous rate",
    "metric",
    "cost",
    "progress",
    "budget left",
    "weight of metric",
)
# What follows where decisions are about bits, and about ranks.
BITS_FEATURES = ("bits",)
RANK_FEATURES = ("rank", "can be factored")


def group_features(components: Sequence[str]) -> tuple[str, ...]:
    """Names of what observation "group" holds after the one-hot of the kind."""
    return GROUP_FEATURES + BITS_FEATURES * ("bits" in components) + RANK_FEATURES * ("rank" in components)


def group(view: View) -> NDArray[np.float32]:
    """Kind (one-hot) and `group_features` of the current group; the same length whatever the network.

    Channels enter as log2(n) / 12, kernel and stride as 1 - 1 / n, a rise d of the calibration loss as d / (1 + d), bits as
    bits / 32.
    """
    index, features = view.group, view.evaluator.features
    here = features[index]
    ahead = sum(f["macs"] for f in features[index + 1 :]) / max(sum(f["macs"] for f in features), 1e-12)
    rise = max(view.evaluator.sensitivity()[index], 0.0)
    kind = [float(here["kind"] == known) for known in KINDS]
    values = [
        index / max(len(features) - 1, 1),
        math.log2(here["in"] + 1) / 12,
        math.log2(here["out"] + 1) / 12,
        1 - 1 / here["kernel"],
        1 - 1 / here["stride"],
        here["params"],
        here["macs"],
        1 - view.relative_cost,
        ahead,
        rise / (1 + rise),
        1 - view.plan.widths[index] / view.evaluator.sizes[index],
        view.previous_rate,
        view.quality,
        view.relative_cost,
        view.progress,
        view.budget_left,
        view.w,
    ]
    if "bits" in view.components:
        values.append(view.plan.bits[index] / FLOAT_BITS)
    if "rank" in view.components:
        values += [view.plan.ranks[index], float(view.evaluator.rankable[index])]
    return _observed(kind + values)


def _observed(values: list[float]) -> NDArray[np.float32]:
    # Lists are quicker than numpy where numbers are few.
    return np.array([value if 0 <= value <= 1 else min(max(value, 0.0), 1.0) for value in values], dtype=np.float32)


@dataclass(frozen=True)
class Observation:
    """A named observation: its function and its length for a number of groups and the components of a decision."""

    observe: Callable[[View], NDArray[np.float32]]
    length: Callable[[int, tuple[str, ...]], int]

    @property
    def grows(self) -> bool:
        """Whether networks of more groups have longer observations."""
        return self.length(1, ()) != self.length(2, ())


# Named functions, not lambdas: environments are pickled with them.
def _network_length(groups: int, components: Sequence[str]) -> int:
    return 2 * groups + 4 + groups * (("bits" in components) + ("rank" in components))


def _group_length(groups: int, components: Sequence[str]) -> int:
    return len(KINDS) + len(group_features(components))


OBSERVATIONS: dict[str, Observation] = {
    "network": Observation(network, _network_length),
    "group": Observation(group, _group_length),
}


def resolve(name: str) -> Observation:
    """An observation by name; an unknown one answers with the known ones and the nearest."""
    if not isinstance(name, str) or name not in OBSERVATIONS:
        raise unknown("observation", name, OBSERVATIONS)
    return OBSERVATIONS[name]
