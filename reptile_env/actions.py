"""Actions: how an agent's number becomes a prune rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from reptile_env.errors import number, unknown


class Actions(Protocol):
    """A way to read actions.

    Attributes:
        max_rate: the largest rate that an action can ask for.
        uniform_rates: the rates that the uniform sweep tries: such as actions can ask for.
        space: the Gymnasium space.
    """

    max_rate: float
    uniform_rates: list[float]
    space: spaces.Space[Any]

    def rate(self, action: Any) -> float:
        """The prune rate that `action` asks for; ``ValueError`` for an action outside the space."""

    def action_for(self, rate: float) -> Any:
        """The action that asks for `rate`; ``ValueError`` outside [0, max_rate]."""


UNIFORM_STEP = 0.05


def uniform_rates(max_rate: float) -> list[float]:
    """The rates of the uniform sweep: multiples of 0.05 up to `max_rate`."""
    steps = int(max_rate / UNIFORM_STEP + 1e-9)
    return [round(UNIFORM_STEP * k, 10) for k in range(1, steps + 1)] or [max_rate]


class ContinuousActions:
    """``Box(-1, 1, (1,), float32)``, read as ``max_rate * (a + 1) / 2``."""

    def __init__(self, max_rate: float) -> None:
        self.max_rate = number("max_rate", max_rate)
        if not 0 < self.max_rate < 1:
            raise ValueError(f"max_rate={max_rate} is outside (0, 1)")
        self.uniform_rates = uniform_rates(self.max_rate)
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def rate(self, action: Any) -> float:
        """The prune rate that `action` asks for."""
        try:
            values = np.asarray(action)
        except ValueError as error:
            raise ValueError(f"an action is one number in [-1, 1], shape (1,), got {action!r:.80}") from error
        if values.dtype.kind not in "iuf":
            raise ValueError(f"an action is one number in [-1, 1], shape (1,), got {action!r:.80}")
        if values.shape != (1,):
            raise ValueError(f"an action has shape (1,), got shape {values.shape}")
        # Written so that NaN fails too; the margin is float32 rounding, not leniency.
        if not -1 - 1e-6 <= values[0] <= 1 + 1e-6:
            raise ValueError(f"action {values[0]} is outside [-1, 1]; clip it (gymnasium.wrappers.ClipAction does)")
        return self.max_rate * (min(max(float(values[0]), -1.0), 1.0) + 1) / 2

    def action_for(self, rate: float) -> NDArray[np.float32]:
        """The action that asks for `rate`."""
        _check_rate(rate, self.max_rate)
        return np.array([2 * rate / self.max_rate - 1], dtype=np.float32)


class DiscreteActions:
    """``Discrete(len(rates))``: each action is one of the listed rates."""

    def __init__(self, rates: Sequence[float]) -> None:
        if not isinstance(rates, (Sequence, np.ndarray)) or isinstance(rates, str):
            raise TypeError(f"rates must be a list of numbers, got {type(rates).__name__}")
        self.rates = tuple(number("each of rates", rate) for rate in rates)
        if len(self.rates) < 2 or any(not 0 <= rate < 1 for rate in self.rates) or max(self.rates) == 0:
            raise ValueError(f"rates={list(self.rates)}: list at least two rates in [0, 1), one of them above 0")
        self.max_rate = max(self.rates)
        self.uniform_rates = sorted({rate for rate in self.rates if rate > 0})
        self.space: spaces.Space[Any] = spaces.Discrete(len(self.rates))

    def rate(self, action: Any) -> float:
        """The prune rate that `action` asks for."""
        values = np.asarray(action)
        if values.shape != () or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"an action is one integer in 0..{len(self.rates) - 1}, got {action!r:.80}")
        if not 0 <= int(values) < len(self.rates):
            raise ValueError(f"action {int(values)} is outside 0..{len(self.rates) - 1}")
        return self.rates[int(values)]

    def action_for(self, rate: float) -> int:
        """The action whose rate is nearest to `rate`."""
        _check_rate(rate, self.max_rate)
        return int(np.argmin(np.abs(np.array(self.rates) - rate)))


def _check_rate(rate: float, max_rate: float) -> None:
    if not 0 <= number("rate", rate) <= max_rate:
        raise ValueError(f"rate {rate} is outside [0, {max_rate}]")


ACTIONS = ("continuous", "discrete")
DEFAULT_MAX_RATE = 0.9
DEFAULT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def make_actions(action: str, max_rate: float | None, rates: Sequence[float] | None) -> Actions:
    """The named way to read actions.

    Raises:
        ValueError: unknown name, or an argument that belongs to the other one.
    """
    if action == "continuous":
        if rates is not None:
            raise ValueError("rates= belongs to discrete actions (ReptilePruneDiscrete-v0); use max_rate= here")
        return ContinuousActions(DEFAULT_MAX_RATE if max_rate is None else max_rate)
    if action == "discrete":
        if max_rate is not None:
            raise ValueError("max_rate= belongs to continuous actions (ReptilePrune-v0); list the rates= here")
        return DiscreteActions(DEFAULT_RATES if rates is None else rates)
    raise unknown("action", action, ACTIONS)
