"""What, beside the task and the plan, a measurement depends on. Hashable; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from reptile_env.compression.cost import COSTS
from reptile_env.errors import unknown

GRANULARITIES = ("structured",)
IMPORTANCE_NAMES = ("l1", "l2")
RECOVERY_NAMES = ("none", "recalibrate", "reconstruct", "reconstruct-sequential")


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluator.

    Args:
        recovery: ``none``, ``recalibrate``, ``reconstruct``, ``reconstruct-sequential``, or names joined by ``+``.
        importance: ``l1`` or ``l2``.
        granularity: ``structured``: whole channels are removed.
        calibration_examples: training examples that recovery and sensitivity see, evenly spaced over the split.
        train_loss: measure the loss on the calibration examples too.

    Raises:
        ValueError: an unknown name (the message lists the known ones), or no calibration example.
    """

    recovery: str = "reconstruct"
    importance: str = "l1"
    granularity: str = "structured"
    calibration_examples: int = 512
    train_loss: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.recovery, str):
            raise unknown("recovery", self.recovery, RECOVERY_NAMES)
        for name in self.recovery.split("+"):
            if name not in RECOVERY_NAMES or (name == "none" and self.recovery != "none"):
                raise unknown("recovery", self.recovery, RECOVERY_NAMES)
        if self.importance not in IMPORTANCE_NAMES:
            raise unknown("importance", self.importance, IMPORTANCE_NAMES)
        if self.granularity not in GRANULARITIES:
            raise unknown("granularity", self.granularity, GRANULARITIES)
        if self.calibration_examples < 1:
            raise ValueError(f"calibration_examples={self.calibration_examples}; at least 1 is needed")


def check_cost(name: str) -> str:
    """`name` if it is a known cost; else a ``ValueError`` that lists them."""
    if name not in COSTS:
        raise unknown("cost", name, COSTS)
    return name


def make_settings(**settings: Any) -> Settings:
    """`Settings` from keywords; an unknown one answers with the known ones and the nearest."""
    known = [field.name for field in fields(Settings)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    return Settings(**settings)
