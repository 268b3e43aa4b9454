"""Rewards: functions of what a decision changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from reptile_env.errors import unknown
from reptile_env.evaluation.measurement import Measurement


def quality(metric: float, dense: float, higher_is_better: bool) -> float:
    """The metric relative to the dense network's, turned so that higher is better; 1 for the dense network.

    A metric that is better when lower gives ``dense / metric`` where it is worse than dense, and ``2 - metric / dense`` where
    it is better: the same slope where they meet, in (0, 2] for metrics from 0 up, and no division by a perfect 0.
    """
    if higher_is_better:
        return metric / dense
    return dense / metric if metric > dense else 2 - metric / dense


def utility(w: float, quality: float, relative_cost: float) -> float:
    """``w * quality + (1 - w) * (1 - relative_cost)``; `w` for the dense network."""
    return w * quality + (1 - w) * (1 - relative_cost)


class Transition(NamedTuple):
    """What a reward sees of one decision.

    Attributes:
        dense: measurement of the dense network.
        before: last measurement before the decision.
        after: last measurement after it; the same object as `before` where nothing was measured.
        utility_before: utility of `before`.
        utility_after: utility of `after`.
        scale: utility of the best uniform rate minus that of the dense network, positive.
        terminated: whether this was the last decision of the episode.
        quality: of `after`: its metric relative to the dense network's, see `quality`.
    """

    dense: Measurement
    before: Measurement
    after: Measurement
    utility_before: float
    utility_after: float
    scale: float
    terminated: bool
    quality: float


Reward = Callable[[Transition], float]
GAMMA = 0.5  # what the train loss counts beside the validation loss
BETA = 5.0  # what shortfalls are multiplied by in `purl`
TARGET_ACCURACY, TARGET_SPARSITY = 1.0, 0.5  # of `purl`, by default


def tradeoff(t: Transition) -> float:
    """Change of utility, scaled: the return of an episode is 0 for the dense network, 1 for the best uniform rate."""
    return (t.utility_after - t.utility_before) / t.scale


def loss(t: Transition, gamma: float = GAMMA) -> float:
    """Fall of ``gamma * train_loss + valid_loss``."""
    return _joint_loss(t.before, gamma) - _joint_loss(t.after, gamma)


def _joint_loss(measurement: Measurement, gamma: float) -> float:
    if measurement.train_loss is None:
        raise ValueError("reward 'loss' needs the train loss: make the evaluator with train_loss=True")
    return gamma * measurement.train_loss + measurement.loss


def amc_params(t: Transition) -> float:
    """``-error * log(params)`` at the end (He et al., AMC, ECCV 2018), 0 before; error is 1 - metric."""
    return -(1 - t.after.metric) * math.log(t.after.params) if t.terminated else 0.0


def amc_macs(t: Transition) -> float:
    """``-error * log(MACs)`` at the end (He et al., AMC, ECCV 2018), 0 before; error is 1 - metric."""
    return -(1 - t.after.metric) * math.log(t.after.macs) if t.terminated else 0.0


def accuracy(t: Transition) -> float:
    """The metric at the end, 0 before: AMC's reward for runs under a budget."""
    return t.after.metric if t.terminated else 0.0


def purl(t: Transition, accuracy: float = TARGET_ACCURACY, sparsity: float = TARGET_SPARSITY) -> float:
    """``-5 * (max(1 - A / accuracy, 0) + max(1 - P / sparsity, 0))`` at every decision (Gupta et al., PuRL, 2020).

    A is the last measured metric as a fraction of the dense network's (for one that is better when lower, its `quality`), P the
    fraction of the parameters that is gone. Other targets: ``reward=functools.partial(purl, sparsity=0.8)``.

    Args:
        t: the decision.
        accuracy: target of A, above 0.
        sparsity: target of P, in (0, 1].
    """
    lost = max(1 - t.quality / accuracy, 0.0)
    kept = max(1 - (1 - t.after.params / t.dense.params) / sparsity, 0.0)
    return -BETA * (lost + kept)


REWARDS: dict[str, Reward] = {
    "tradeoff": tradeoff,
    "loss": loss,
    "amc_params": amc_params,
    "amc_macs": amc_macs,
    "accuracy": accuracy,
    "purl": purl,
}
_NEEDS_TRAIN_LOSS = {"loss"}
_NEEDS_ERROR_RATE = {"amc_params", "amc_macs"}


def resolve(reward: str | Reward) -> Reward:
    """A reward by name or as a callable ``Transition -> float``.

    Raises:
        ValueError: unknown name.
        TypeError: neither a name nor a callable.
    """
    if isinstance(reward, str):
        if reward not in REWARDS:
            raise unknown("reward", reward, REWARDS)
        return REWARDS[reward]
    if not callable(reward):
        raise TypeError(f"reward must be a name or a callable(Transition) -> float, got {type(reward).__name__}")
    return reward


def needs_train_loss(reward: str | Reward) -> bool:
    """Whether the loss on the calibration examples is to be measured; a callable says so by ``needs_train_loss = True``."""
    return reward in _NEEDS_TRAIN_LOSS if isinstance(reward, str) else bool(getattr(reward, "needs_train_loss", False))


def needs_error_rate(reward: str | Reward) -> bool:
    """Whether the reward reads the metric as an accuracy, and 1 - metric as an error rate."""
    return isinstance(reward, str) and reward in _NEEDS_ERROR_RATE
