"""What, beside the task and the plan, a measurement depends on. Hashable; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from reptile_env.compression.cost import COSTS
from reptile_env.errors import number, unknown

GRANULARITIES = ("structured", "unstructured", "2:4")
IMPORTANCE_NAMES = ("l1", "l2", "random", "taylor", "fpgm", "lamp", "wanda", "obs", "auto")
RECOVERY_NAMES = ("none", "recalibrate", "reconstruct", "reconstruct-sequential", "finetune")
ROUNDINGS = ("nearest", "data-aware")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine", "onecycle")


@dataclass(frozen=True)
class Finetune:
    """How the recovery ``finetune`` trains.

    Args:
        steps: optimizer steps, at least 1.
        optimizer: ``sgd`` (momentum 0.9, Nesterov) or ``adam``.
        learning_rate: peak learning rate, above 0.
        schedule: ``constant``, ``cosine`` (down to 0) or ``onecycle``.
        batch_size: examples a step, at least 1.
        weight_decay: at least 0.
        distillation: weight in [0, 1] of the distance to the dense network's outputs (Hinton et al., 2015); the rest is the
            task's loss.
        temperature: of distilled class probabilities, above 0.
        seed: of batches and dropout, at least 0 and below 2 ** 63.

    Raises:
        ValueError: an unknown name or a number outside its range.
    """

    steps: int = 200
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    schedule: str = "cosine"
    batch_size: int = 64
    weight_decay: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"finetune: {name} must be a whole number, got {type(value).__name__} {value!r}")
        for name, low in (("steps", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"finetune: {name}={getattr(self, name)}; at least {low} is needed")
        if self.seed >= 2**63:
            raise ValueError(f"finetune: seed={self.seed}; it must be below 2 ** 63")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "temperature"):
            if not number(name, getattr(self, name)) > 0:
                raise ValueError(f"finetune: {name}={getattr(self, name)}; it must be above 0")
        if not number("weight_decay", self.weight_decay) >= 0:
            raise ValueError(f"finetune: weight_decay={self.weight_decay}; it must be at least 0")
        if not 0 <= number("distillation", self.distillation) <= 1:
            raise ValueError(f"finetune: distillation={self.distillation} is outside [0, 1]")


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluator.

    Args:
        recovery: ``none``, ``recalibrate``, ``reconstruct``, ``reconstruct-sequential``, ``finetune``, or names joined by ``+``.
        importance: ``l1``, ``l2``, ``random``, ``taylor``, ``fpgm``, ``lamp``, ``wanda``, ``obs`` or ``auto``: which channels or
            weights of a group go first.
        granularity: ``structured``: whole channels; ``unstructured``: single weights; ``2:4``: two of every four.
        calibration_examples: training examples that recovery and sensitivity see, evenly spaced over the split.
        train_loss: measure the loss on the calibration examples too.
        rounding: of quantized weights: ``nearest`` or ``data-aware``.
        finetune: how ``finetune`` trains: a `Finetune` or a dict of its arguments.
        latency: measure a latency table too, so that latency is a cost.
        residual_width: make the width of a Transformer's residual stream and embeddings a group as well.

    Raises:
        TypeError: a number or switch of another type.
        ValueError: an unknown name (the message lists the known ones), or no calibration example.
    """

    recovery: str = "reconstruct"
    importance: str = "l1"
    granularity: str = "structured"
    calibration_examples: int = 512
    train_loss: bool = False
    rounding: str = "data-aware"
    finetune: Finetune = field(default_factory=Finetune)
    latency: bool = False
    residual_width: bool = False

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
        if self.rounding not in ROUNDINGS:
            raise unknown("rounding", self.rounding, ROUNDINGS)
        for name in ("train_loss", "latency", "residual_width"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"{name} must be True or False, got {type(getattr(self, name)).__name__} {getattr(self, name)!r:.80}"
                )
        if isinstance(self.calibration_examples, bool) or not isinstance(self.calibration_examples, int):
            kind = type(self.calibration_examples).__name__
            raise TypeError(f"calibration_examples must be a whole number, got {kind} {self.calibration_examples!r:.80}")
        if self.calibration_examples < 1:
            raise ValueError(f"calibration_examples={self.calibration_examples}; at least 1 is needed")
        object.__setattr__(self, "finetune", make_finetune(self.finetune))
        if self.residual_width and self.granularity != "structured":
            raise ValueError(f"residual_width=True does not go with granularity={self.granularity!r}: single weights have no width")
        if self.latency and self.granularity != "structured":
            raise ValueError(f"cost='latency' does not go with granularity={self.granularity!r}: masked weights don't run faster")


def make_finetune(value: Any) -> Finetune:
    """A `Finetune` from one, from a dict of its arguments, or from None; an unknown argument answers with the nearest."""
    if isinstance(value, Finetune):
        return value
    if value is None:
        return Finetune()
    if not isinstance(value, dict):
        raise TypeError(f"finetune must be a dict such as {{'steps': 200}}, got {type(value).__name__}")
    known = [f.name for f in fields(Finetune)]
    for name in value:
        if name not in known:
            raise unknown("finetune argument", name, known)
    return Finetune(**value)


def check_cost(name: str) -> str:
    """`name` if it is a known cost; else a ``ValueError`` that lists them."""
    if name not in COSTS:
        raise unknown("cost", name, COSTS)
    return name


def make_settings(**settings: Any) -> Settings:
    """`Settings` from keywords; an unknown one answers with the known ones and the nearest."""
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    return Settings(**settings)
