"""Where an episode stands, and what it is played on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reptile_env.budget import BudgetWall
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import Reference


@dataclass(frozen=True)
class Scene:
    """A task as the environment meets it.

    Attributes:
        evaluator: measures its plans.
        reference: what its returns are measured against.
        wall: keeps the budget; None without one.
        best_known: return of the best plan known under these settings; NaN where none is.
    """

    evaluator: Evaluator
    reference: Reference
    wall: BudgetWall | None
    best_known: float


@dataclass(frozen=True)
class Position:
    """Everything of an episode that changes with a step.

    Attributes:
        scene: number of the task.
        plan: the current plan.
        measurement: the last measurement.
        group: index of the group to decide on next.
        round: number of the round, from 0.
        previous_rate: rate carried out by the last decision.
        total: sum of rewards.
        ended: whether the episode has ended.
    """

    scene: int
    plan: Plan
    measurement: Measurement
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
