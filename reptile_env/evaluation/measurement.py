"""What a plan yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the compressed network measures on one split.

    Attributes:
        metric: the task's metric.
        loss: the task's loss.
        params: parameters, shared ones once.
        macs: multiply-accumulates an example.
        bytes: tensor bytes of the saved network, parameters and buffers.
        sparsity: for each group the removed fraction, in [0, 1).
        latency: seconds a forward pass, from a table measured on this machine; None unless the settings ask for it.
        train_loss: loss on the calibration examples; None unless the settings ask for it.
        seconds: what the live measurement took; left out of comparisons.
    """

    metric: float
    loss: float
    params: int
    macs: int
    bytes: int
    sparsity: tuple[float, ...]
    train_loss: float | None = None
    latency: float | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def costs(self) -> dict[str, Any]:
        """Every cost by name, as a cost model's ``all`` gives them."""
        costs: dict[str, Any] = {"params": self.params, "macs": self.macs, "bytes": self.bytes}
        return costs if self.latency is None else costs | {"latency": self.latency}

    def cost(self, name: str) -> float:
        """One cost by name: ``params``, ``macs``, ``bytes`` or ``latency``."""
        value: float = getattr(self, name)
        return value
