"""Where an episode stands, and what it is played on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reptile_env.budget import BudgetWall
from reptile_env.compression.plan import Plan
from reptile_env.errors import unknown
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import Reference
from reptile_env.evaluation.settings import check_cost
from reptile_env.tasks.registry import Anchors

MEASURES = ("step", "round")


@dataclass(frozen=True)
class Rules:
    """What all episodes of an environment have in common, whatever the task.

    Attributes:
        budget: cap on the final cost as a fraction of dense, or None.
        cost: what the utility weighs and the budget caps.
        rounds: passes over all groups.
        measure: ``step`` or ``round``.
        max_rate: the largest rate that a decision can carry out.
        components: what a decision is about: some of ``rate``, ``bits`` and ``rank``.

    Raises:
        TypeError: `rounds` is not a whole number.
        ValueError: an unknown cost or measure, or no round.
    """

    budget: float | None
    cost: str
    rounds: int
    measure: str
    max_rate: float
    components: tuple[str, ...]

    def __post_init__(self) -> None:
        check_cost(self.cost)
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, (int, np.integer)):
            raise TypeError(f"rounds must be a whole number, got {type(self.rounds).__name__} {self.rounds!r}")
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}; an episode has at least 1 round")


@dataclass(frozen=True)
class Scene:
    """A task as the environment meets it.

    Attributes:
        evaluator: measures its plans.
        reference: what its returns are measured against.
        wall: keeps the budget; None without one.
        anchors: returns that scores lie between under these settings; NaN where none are known.
    """

    evaluator: Evaluator
    reference: Reference
    wall: BudgetWall | None
    anchors: Anchors


class Position(NamedTuple):
    """Everything of an episode that changes with a step.

    Attributes:
        scene: number of the task.
        plan: the current plan.
        measurement: the last measurement.
        quality: its metric relative to dense, higher is better.
        utility: its utility.
        costs: of the plan, by name; not to be written to.
        relative_cost: of the plan, relative to dense.
        group: index of the group to decide on next.
        round: number of the round, from 0.
        previous_rate: rate carried out by the last decision.
        total: sum of rewards.
        ended: whether the episode has ended.
    """

    scene: int
    plan: Plan
    measurement: Measurement
    quality: float
    utility: float
    costs: dict[str, Any]
    relative_cost: float
    group: int = 0
    round: int = 0
    previous_rate: float = 0.0
    total: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class Snapshot:
    """A point of an episode to return to; made by `snapshot`, taken by `restore`.

    Attributes:
        position: where the episode stood.
        generator: state of the environment's generator.
        history: (quality, relative cost) of every measurement of the episode.
        rules: what an environment must have in common with the one it was taken from.
    """

    position: Position
    generator: dict[str, Any]
    history: tuple[tuple[float, float], ...]
    rules: tuple[Any, ...]
