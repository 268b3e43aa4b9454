"""Actions: how an agent's numbers become what is asked of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from reptile_env.compression.plan import FLOAT_BITS, Request
from reptile_env.errors import number, unknown

COMPONENTS = ("rate", "bits", "rank")
RATE_ALONE: tuple[str, ...] = ("rate",)
BITS = (FLOAT_BITS, 8, 7, 6, 5, 4, 3, 2)  # one for each of as many equal bins of an action
MAX_RANK_CUT = 0.9
LOWEST_RANK = round(1 - MAX_RANK_CUT, 3)


class Actions(Protocol):
    """A way to read actions.

    Attributes:
        max_rate: the largest rate that an action can ask for.
        components: what an action decides on.
        sweep: what the uniform sweep asks of every group: such as actions can ask for.
        space: the Gymnasium space.
    """

    max_rate: float
    components: tuple[str, ...]
    sweep: list[Request]
    space: spaces.Space[Any]

    @property
    def rates(self) -> tuple[float, ...] | None:
        """The rates that actions can ask for; None: any up to `max_rate`."""

    def read(self, action: Any) -> Request:
        """What `action` asks for; ``ValueError`` for an action outside the space."""

    def read_rates(self, actions: Any, count: int, which: NDArray[np.int64]) -> NDArray[np.float64]:
        """What those `which` of `count` actions ask for, where actions ask for rates alone; as `read` does."""

    def action_for(self, request: Request) -> Any:
        """The action that asks for `request`; ``ValueError`` where there is none."""


UNIFORM_STEP = 0.05
# With bits or ranks to choose the sweep is a small grid: at most 4 * 4 * 2 - 1 plans.
SWEPT_RATES, SWEPT_BITS, SWEPT_RANKS = (0.2, 0.4, 0.6), (FLOAT_BITS, 8, 6, 4), (1.0, 0.5)


def uniform_rates(max_rate: float) -> list[float]:
    """The rates of the uniform sweep: multiples of 0.05 up to `max_rate`."""
    steps = int(max_rate / UNIFORM_STEP + 1e-9)
    return [round(UNIFORM_STEP * k, 10) for k in range(1, steps + 1)] or [max_rate]


def uniform_sweep(components: Sequence[str], max_rate: float) -> list[Request]:
    """What the uniform sweep asks of every group: rates of `uniform_rates`, or a small grid of all components."""
    if tuple(components) == RATE_ALONE:
        return [Request(rate) for rate in uniform_rates(max_rate)]
    rates = [0.0]
    if "rate" in components:
        rates += [rate for rate in SWEPT_RATES if rate <= max_rate] or [max_rate]
    bits = SWEPT_BITS if "bits" in components else SWEPT_BITS[:1]
    ranks = SWEPT_RANKS if "rank" in components else SWEPT_RANKS[:1]
    grid = [Request(rate, depth, rank) for rate in rates for depth in bits for rank in ranks]
    return [request for request in grid if request != Request()]


class ContinuousActions:
    """``Box(-1, 1, (n,), float32)``, one number for each component; -1 leaves it alone.

    ``rate``: ``max_rate * (a + 1) / 2``. ``bits``: eight equal bins, 32 (float), 8, 7, 6, 5, 4, 3, 2. ``rank``:
    ``1 - 0.9 * (a + 1) / 2``, rounded to three decimals so that plans repeat.

    Args:
        max_rate: largest rate, in (0, 1); 0.9 when left out.
        components: some of ``rate``, ``bits`` and ``rank``, in the order of the action's numbers.
    """

    def __init__(self, max_rate: float | None = None, components: Sequence[str] = RATE_ALONE) -> None:
        self.components = check_components(components)
        if "rate" in self.components:
            self.max_rate = number("max_rate", DEFAULT_MAX_RATE if max_rate is None else max_rate)
            if not 0 < self.max_rate < 1:
                raise ValueError(f"max_rate={max_rate} is outside (0, 1)")
        elif max_rate is not None:
            raise ValueError(f"max_rate= belongs to the component 'rate', which components={list(self.components)} leave out")
        else:
            self.max_rate = 0.0
        self.sweep = uniform_sweep(self.components, self.max_rate)
        self.rates = None
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (len(self.components),), np.float32)

    def read(self, action: Any) -> Request:
        """What `action` asks for."""
        rate, bits, rank = Request()
        for name, value in zip(self.components, self._values(action), strict=True):
            # Written so that NaN fails too; the margin is float32 rounding, not leniency.
            if not -1 - 1e-6 <= value <= 1 + 1e-6:
                raise ValueError(f"action {value} is outside [-1, 1]; clip it (gymnasium.wrappers.ClipAction does)")
            twice = min(max(float(value), -1.0), 1.0) + 1
            if name == "rate":
                rate = self.max_rate * twice / 2
            elif name == "bits":
                bits = BITS[min(int(twice / 2 * len(BITS)), len(BITS) - 1)]
            else:
                rank = round(1 - MAX_RANK_CUT * twice / 2, 3)
        return Request(rate, bits, rank)

    def _values(self, action: Any) -> list[float]:
        shape = (len(self.components),)
        try:
            values = np.asarray(action)
        except ValueError:
            values = np.empty(0, object)
        if values.shape == shape and values.dtype.kind in "iuf":
            listed: list[float] = values.tolist()
            return listed
        wanted = "one number" if len(self.components) == 1 else f"{len(self.components)} numbers"
        if values.dtype.kind in "iuf":
            raise ValueError(f"an action has shape {shape}, got shape {values.shape}")
        raise ValueError(f"an action is {wanted} in [-1, 1], shape {shape}, got {action!r:.80}")

    def read_rates(self, actions: Any, count: int, which: NDArray[np.int64]) -> NDArray[np.float64]:
        """What those `which` of `count` actions ask for, where actions ask for rates alone."""
        values = np.asarray(actions)
        if values.dtype.kind not in "iuf" or values.shape != (count, 1):
            raise ValueError(f"actions are numbers in [-1, 1], shape ({count}, 1), got {values.dtype} of shape {values.shape}")
        values = values[:, 0] if len(which) == count else values[which, 0]
        low, high = (values.min(), values.max()) if len(values) else (-1, 1)
        if not (low >= -1 - 1e-6 and high <= 1 + 1e-6):  # NaN fails too
            raise ValueError(f"actions reach from {low} to {high}, outside [-1, 1]; clip them (gymnasium's ClipAction does)")
        return np.asarray(self.max_rate * (np.clip(values.astype(np.float64), -1.0, 1.0) + 1) / 2)

    def action_for(self, request: Request) -> NDArray[np.float32]:
        """The action that asks for `request`: the way back of `read`."""
        rate, bits, rank = request
        for name, default in Request()._asdict().items():
            if name not in self.components and getattr(request, name) != default:
                raise ValueError(
                    f"{name}={getattr(request, name)!r}: actions of components={list(self.components)} can't ask for it"
                )
        number("rank", rank)
        if bits not in BITS or isinstance(bits, bool):
            raise ValueError(f"bits={bits!r}; an action can ask for {', '.join(map(str, BITS))}")
        if not LOWEST_RANK <= rank <= 1:
            raise ValueError(f"rank {rank} is outside [{LOWEST_RANK}, 1]")
        values = {"bits": 2 * BITS.index(bits) / (len(BITS) - 1) - 1, "rank": 2 * (1 - rank) / MAX_RANK_CUT - 1}
        if "rate" in self.components:
            _check_rate(rate, self.max_rate)
            values["rate"] = 2 * rate / self.max_rate - 1
        return np.clip(np.array([values[name] for name in self.components], dtype=np.float32), -1, 1)


class DiscreteActions:
    """``Discrete(len(rates))``: each action is one of the listed rates."""

    def __init__(self, rates: Sequence[float]) -> None:
        if not isinstance(rates, (Sequence, np.ndarray)) or isinstance(rates, str):
            raise TypeError(f"rates must be a list of numbers, got {type(rates).__name__}")
        self.rates = tuple(number("each of rates", rate) for rate in rates)
        if len(self.rates) < 2 or any(not 0 <= rate < 1 for rate in self.rates) or max(self.rates) == 0:
            raise ValueError(f"rates={list(self.rates)}: list at least two rates in [0, 1), one of them above 0")
        self.max_rate, self.components = max(self.rates), RATE_ALONE
        self.sweep = [Request(rate) for rate in sorted({rate for rate in self.rates if rate > 0})]
        self.space: spaces.Space[Any] = spaces.Discrete(len(self.rates))

    def read(self, action: Any) -> Request:
        """What `action` asks for."""
        values = np.asarray(action)
        if values.shape != () or values.dtype.kind not in "iu":
            raise ValueError(f"an action is one integer in 0..{len(self.rates) - 1}, got {action!r:.80}")
        index = int(values)
        if not 0 <= index < len(self.rates):
            raise ValueError(f"action {index} is outside 0..{len(self.rates) - 1}")
        return Request(self.rates[index])

    def read_rates(self, actions: Any, count: int, which: NDArray[np.int64]) -> NDArray[np.float64]:
        """What those `which` of `count` actions ask for."""
        values = np.asarray(actions)
        if values.dtype.kind not in "iu" or values.shape != (count,):
            raise ValueError(f"actions are integers, shape ({count},), got {values.dtype} of shape {values.shape}")
        values = values if len(which) == count else values[which]
        if len(values) and not (values.min() >= 0 and values.max() < len(self.rates)):
            raise ValueError(f"actions reach from {values.min()} to {values.max()}, outside 0..{len(self.rates) - 1}")
        return np.asarray(np.array(self.rates)[values])

    def action_for(self, request: Request) -> int:
        """The action whose rate is nearest to the one of `request`."""
        _check_rate(request.rate, self.max_rate)
        if request != Request(request.rate):
            raise ValueError("discrete actions ask for rates alone; bits and ranks are those of ReptileCompress-v0")
        return int(np.argmin(np.abs(np.array(self.rates) - request.rate)))


def _check_rate(rate: float, max_rate: float) -> None:
    if not 0 <= number("rate", rate) <= max_rate:
        raise ValueError(f"rate {rate} is outside [0, {max_rate}]")


def check_components(components: Any) -> tuple[str, ...]:
    """`components` as a tuple, where they are some of ``rate``, ``bits`` and ``rank``, each at most once."""
    if not isinstance(components, (list, tuple)):
        raise TypeError(f"components must be a list such as ['rate', 'bits'], got {type(components).__name__} {components!r:.80}")
    for name in components:
        if name not in COMPONENTS:
            raise unknown("component", name, COMPONENTS)
    if not components:
        raise ValueError(f"components={components!r} is empty; an action decides on at least one of {', '.join(COMPONENTS)}")
    if len(set(components)) < len(components):
        raise ValueError(f"components={list(components)}: list each component once")
    return tuple(components)


ACTIONS = ("continuous", "discrete", "joint")
DEFAULT_MAX_RATE = 0.9
DEFAULT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def make_actions(
    action: str, max_rate: float | None, rates: Sequence[float] | None, components: Sequence[str] | None = None
) -> Actions:
    """The named way to read actions.

    Raises:
        ValueError: unknown name, or an argument that belongs to another one.
    """
    if action not in ACTIONS:
        raise unknown("action", action, ACTIONS)
    if action != "joint" and components is not None and check_components(components) != RATE_ALONE:
        raise ValueError(f"components={list(components)} belong to ReptileCompress-v0; {action} actions ask for rates alone")
    if action == "discrete":
        if max_rate is not None:
            raise ValueError("max_rate= belongs to continuous actions (ReptilePrune-v0); list the rates= here")
        return DiscreteActions(DEFAULT_RATES if rates is None else rates)
    if rates is not None:
        raise ValueError("rates= belongs to discrete actions (ReptilePruneDiscrete-v0); use max_rate= here")
    if action == "continuous":
        return ContinuousActions(max_rate)
    return ContinuousActions(max_rate, COMPONENTS if components is None else components)
