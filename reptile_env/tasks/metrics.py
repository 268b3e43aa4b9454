"""Metrics and losses by name: functions of a whole split's outputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reptile_env.errors import unknown

Score = Callable[[Any, Tensor], Any]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of examples whose largest logit (dimension 1) is the target class, in [0, 1]."""
    return (outputs.argmax(1) == targets).double().mean()


# name -> (function, whether higher is better)
METRICS: dict[str, tuple[Score, bool]] = {
    "accuracy": (accuracy, True),
    "mse": (functional.mse_loss, False),
    "mae": (functional.l1_loss, False),
}
LOSSES: dict[str, Score] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "bce_with_logits": functional.binary_cross_entropy_with_logits,
}


def resolve_metric(metric: str | Score, higher_is_better: bool | None) -> tuple[str, Score, bool]:
    """Name, function and direction of a metric given by name or as a callable."""
    if isinstance(metric, str):
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        function, direction = METRICS[metric]
        return metric, function, direction if higher_is_better is None else higher_is_better
    if not callable(metric):
        raise TypeError(f"metric must be a name or a callable(outputs, targets), got {type(metric).__name__}")
    return getattr(metric, "__name__", "metric"), metric, True if higher_is_better is None else higher_is_better


def resolve_loss(loss: str | Score) -> Score:
    """Function of a loss given by name or as a callable."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return LOSSES[loss]
    if not callable(loss):
        raise TypeError(f"loss must be a name or a callable(outputs, targets), got {type(loss).__name__}")
    return loss


def as_number(value: Any, what: str) -> float:
    """A finite float from what a metric or loss returned.

    Raises:
        ValueError: not one number, or NaN or infinite.
    """
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"{what} must return one number for the whole split, got a tensor of shape {tuple(value.shape)}")
    number = float(value)
    if not torch.isfinite(torch.tensor(number)):
        raise ValueError(f"{what} returned {number}; it must be finite")
    return number
