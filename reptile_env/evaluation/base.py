"""What an environment asks of an evaluator, and where evaluators are looked up. Imports no torch."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reptile_env.compression.cost import Costs
from reptile_env.compression.plan import Plan
from reptile_env.errors import unknown
from reptile_env.evaluation.grid import Grid
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.resources import NO_LIMITS, Resources
from reptile_env.evaluation.settings import Settings


class Evaluator(Protocol):
    """Plans go in, measurements come out. One evaluator serves every environment of a process with the same settings.

    Attributes:
        name: the task's name.
        settings: what its measurements depend on beside task and plan.
        group_names: groups in network order.
        sizes: dense channels of each group.
        rankable: for each group whether a rank below 1 changes any of its layers.
        features: for each group its static description (see `observations.GROUP_FEATURES`).
        costs: the cost model.
        dense: the plan that keeps everything.
        higher_is_better: direction of the metric.
        metric_name: name of the metric.
        w: the task's weight of the metric in the utility, or None.
        grid: the widths that can be measured; None where all can.
    """

    name: str
    settings: Settings
    group_names: tuple[str, ...]
    sizes: tuple[int, ...]
    rankable: tuple[bool, ...]
    features: tuple[dict[str, Any], ...]
    dense: Plan
    higher_is_better: bool
    metric_name: str
    w: float | None

    # Properties, so that evaluators may promise more.
    @property
    def costs(self) -> Costs: ...  # noqa: D102

    @property
    def grid(self) -> Grid | None: ...  # noqa: D102

    @property
    def has_test(self) -> bool: ...  # noqa: D102

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""

    def next_round(self, plan: Plan) -> Plan:
        """The plan from which a round after `plan` goes on: on the network trained after it, where the recovery trains."""

    def measure(self, plan: Plan) -> Measurement:
        """What the network compressed to `plan` measures on the validation split."""

    def test(self, plan: Plan) -> Measurement:
        """As `measure`, on the test split: for reports alone."""

    def remember(self, plan: Plan, measurement: Measurement) -> None:
        """Take for known what a plan measured earlier under the same conditions: it is not measured again."""

    def conditions(self) -> str:
        """A hash of all that a measurement depends on beside the plan."""

    def scores(self, importance: str) -> tuple[NDArray[np.float64], ...]:
        """For each group how much each of its dense channels matters, ``(size,)`` float64; the least important has the lowest."""

    def sensitivity(self) -> tuple[float, ...]:
        """For each group the rise of the calibration loss when the group alone is halved."""


# name -> "module:function" of (task, settings, resources) -> Evaluator
EVALUATORS: dict[str, str] = {
    "live": "reptile_env.evaluation.live:live_evaluator",
    "table": "reptile_env.evaluation.table:table_evaluator",
}


def make_evaluator(evaluator: str, task: Any, settings: Settings, resources: Resources = NO_LIMITS) -> Evaluator:
    """The evaluator `evaluator` of a task given by name or as a `Task`, which may use `resources`.

    Raises:
        ValueError: unknown evaluator or task.
    """
    if not isinstance(evaluator, str) or evaluator not in EVALUATORS:
        raise unknown("evaluator", evaluator, EVALUATORS)
    module, function = EVALUATORS[evaluator].split(":")
    made: Evaluator = getattr(importlib.import_module(module), function)(task, settings, resources)
    return made
