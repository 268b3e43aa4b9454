"""Costs of a plan from its widths alone: exact, numpy only, no network is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

COSTS = ("params", "macs", "bytes")


@dataclass(frozen=True)
class CostModel:
    """Sizes of all tensors as products of affine functions of the groups' widths.

    Size of tensor t along dimension d is ``fixed[t, d] + per_channel[t, d] @ widths``.

    Attributes:
        fixed: int64 ``(tensors, dims)``, positions no group owns (1 where a tensor has fewer dimensions).
        per_channel: int64 ``(tensors, dims, groups)``, positions owned by each channel of a group.
        weights: for each cost an int64 ``(tensors,)``: 1 for `params` (0 for buffers), bytes an element for
            `bytes`, uses an example for `macs` (output positions of a convolution, say).
        uncounted: multiply-accumulates outside any weight tensor, which no cut changes.
    """

    fixed: NDArray[np.int64]
    per_channel: NDArray[np.int64]
    weights: dict[str, NDArray[np.int64]]
    uncounted: int = 0

    def numel(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Elements of each tensor; ``(..., groups)`` widths give ``(..., tensors)``."""
        sizes = self.fixed + np.tensordot(np.asarray(widths, dtype=np.int64), self.per_channel, axes=(-1, -1))
        return np.asarray(sizes.prod(axis=-1))

    def all(self, widths: Sequence[int]) -> dict[str, int]:
        """Every cost of one plan, by name."""
        numel = self.numel(widths)
        costs = {name: int(numel @ weight) for name, weight in self.weights.items()}
        costs["macs"] += self.uncounted
        return costs

    def cost(self, name: str, widths: ArrayLike) -> NDArray[np.int64]:
        """One cost for each row of widths, ``(..., groups)`` to ``(...)``."""
        return np.asarray(self.numel(widths) @ self.weights[name] + (self.uncounted if name == "macs" else 0))
