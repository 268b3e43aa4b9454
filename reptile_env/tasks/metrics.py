"""Metrics and losses by name: functions of a whole split's outputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reptile_env.errors import first_line, unknown
from reptile_env.tasks.generative import negative_elbo, negative_elbo_with_logits

Score = Callable[[Any, Tensor], Any]
IGNORED = -100


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of examples whose largest logit (dimension 1) is the target class, in [0, 1]; labels of -100 are left out.

    Raises:
        ValueError: a single logit, of which none is the largest.
    """
    classes = outputs.argmax(1)
    _check_alike(classes, targets)
    if outputs.shape[1] == 1:
        raise ValueError("one logit tells no classes apart; let the network have one for each, or give a metric of your own")
    return (classes == targets)[counted(targets)].double().mean()


def counted(labels: Tensor) -> Tensor:
    """Which labels count: cross-entropy leaves those of -100 out."""
    # Bytes hold no -100; torch would take 156 for it.
    return torch.ones_like(labels, dtype=torch.bool) if labels.dtype == torch.uint8 else labels != IGNORED


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error; outputs and targets have the same shape."""
    _check_alike(outputs, targets)
    return functional.mse_loss(outputs, targets)


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error; outputs and targets have the same shape."""
    _check_alike(outputs, targets)
    return functional.l1_loss(outputs, targets)


def spearman(outputs: Tensor, targets: Tensor) -> float:
    """Spearman's rank correlation of outputs and targets ``(n,)``, in [-1, 1]; ties share their mean rank.

    Raises:
        ValueError: fewer than two examples, or constant values, which have no ranks.
    """
    from scipy.stats import spearmanr

    _check_alike(outputs, targets)
    if outputs.numel() < 2 or any(bool((values == values.flatten()[0]).all()) for values in (outputs, targets)):
        raise ValueError("a rank correlation needs at least two examples that differ")
    return float(spearmanr(outputs.double().flatten().numpy(), targets.double().flatten().numpy()).statistic)


def _check_alike(outputs: Tensor, targets: Tensor) -> None:
    # torch would broadcast (n, 1) against (n,) to all n * n pairs, with no more than a warning.
    if outputs.shape != targets.shape:
        raise ValueError(f"shapes {tuple(outputs.shape)} and {tuple(targets.shape)} differ; reshape the targets")


# name -> (function, whether higher is better)
METRICS: dict[str, tuple[Score, bool]] = {
    "accuracy": (accuracy, True),
    "mse": (mse, False),
    "mae": (mae, False),
    "spearman": (spearman, True),
    "negative_elbo": (negative_elbo, False),
    "negative_elbo_with_logits": (negative_elbo_with_logits, False),
}
LOSSES: dict[str, Score] = {
    "cross_entropy": functional.cross_entropy,
    "mse": mse,
    "mae": mae,
    "bce_with_logits": functional.binary_cross_entropy_with_logits,
    "negative_elbo": negative_elbo,
    "negative_elbo_with_logits": negative_elbo_with_logits,
}


def resolve_metric(metric: str | Score, higher_is_better: bool | None) -> tuple[str, Score, bool]:
    """Name, function and direction of a metric given by name or as a callable, which may know its own `higher_is_better`."""
    if isinstance(metric, str):
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        function, direction = METRICS[metric]
        return metric, function, direction if higher_is_better is None else higher_is_better
    if not callable(metric):
        raise TypeError(f"metric must be a name or a callable(outputs, targets), got {type(metric).__name__}")
    if higher_is_better is None:
        higher_is_better = getattr(metric, "higher_is_better", None) is not False
    return getattr(metric, "__name__", "metric"), metric, higher_is_better


def resolve_loss(loss: str | Score) -> Score:
    """Function of a loss given by name or as a callable."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return LOSSES[loss]
    if not callable(loss):
        raise TypeError(f"loss must be a name or a callable(outputs, targets), got {type(loss).__name__}")
    return loss


def score(function: Score, what: str, outputs: Any, targets: Tensor) -> float:
    """What a metric or loss, called `what` in messages, returns for a whole split, as a finite float.

    Raises:
        ValueError: it fails on these outputs, or returns anything but one finite number.
    """
    try:
        value = function(outputs, targets)
    except Exception as error:  # whatever a callable of the user's raises
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"{what} can't score outputs {shape} against targets {tuple(targets.shape)}: {first_line(error)}"
        ) from error
    return _as_number(value, what)


def _as_number(value: Any, what: str) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"{what} must return one number for the whole split, got a tensor of shape {tuple(value.shape)}")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must return one number, got {type(value).__name__} {value!r:.80}") from error
    if not torch.isfinite(torch.tensor(number)):
        raise ValueError(f"{what} returned {number}; it must be finite")
    return number
