"""Costs of a plan from its widths, bits and ranks alone: exact, numpy only, no network is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reptile_env.compression.plan import FLOAT_BITS

COSTS = ("params", "macs", "bytes", "latency")
# A quantized layer keeps a float32 scale for each output, and scale and zero point of its input (float32, int32).
SCALE_BYTES, INPUT_BYTES = 4, 8

Levels = tuple[Sequence[int], Sequence[int], Sequence[float]]


class LatencyTable(Protocol):
    """Seconds of a network of given widths, ``(..., groups)`` to ``(...)``."""

    def seconds(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Interpolated from what was measured."""


class Costs(Protocol):
    """What every cost model offers; ``bits`` and ``ranks`` default to float and whole."""

    def all(self, widths: Sequence[int], bits: Sequence[int] | None = None, ranks: Sequence[float] | None = None) -> dict[str, Any]:
        """Every cost of one plan, by name; latency where there is a table."""

    def cost(
        self, name: str, widths: ArrayLike, bits: ArrayLike | None = None, ranks: ArrayLike | None = None
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """One cost for each row of widths, ``(..., groups)`` to ``(...)``."""


def factor_rank(features: ArrayLike, outputs: ArrayLike, fraction: ArrayLike) -> NDArray[np.int64]:
    """Rank of the two factors of a ``features x outputs`` matrix that hold `fraction` of its elements; 0: left whole.

    A matrix is left whole where `fraction` is 1 and where factors, of rank 1 at the least, would not be smaller.
    """
    f, o, share = np.asarray(features, np.int64), np.asarray(outputs, np.int64), np.asarray(fraction, np.float64)
    rank = np.maximum((share * f * o / (f + o) + 1e-9).astype(np.int64), 1)
    return np.where((share < 1) & (rank * (f + o) < f * o), rank, 0)


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
        owner: int64 ``(tensors,)``, the group whose bits and rank hold for the tensor; -1: it stays as it is.
        outputs: int64 ``(tensors,)``, the dimension that counts outputs.
        output_uses: int64 ``(tensors,)``, uses an example of the second factor; 0 where a tensor can't be factored.
        leads: bool ``(tensors,)``, whether this is the first quantized tensor of its layer.
        latency: seconds by widths, where they were measured.
    """

    fixed: NDArray[np.int64]
    per_channel: NDArray[np.int64]
    weights: dict[str, NDArray[np.int64]]
    uncounted: int = 0
    owner: NDArray[np.int64] | None = None
    outputs: NDArray[np.int64] | None = None
    output_uses: NDArray[np.int64] | None = None
    leads: NDArray[np.bool_] | None = None
    latency: LatencyTable | None = None

    def numel(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Elements of each tensor; ``(..., groups)`` widths give ``(..., tensors)``."""
        return np.asarray(self._sizes(widths).prod(axis=-1))

    def all(self, widths: Sequence[int], bits: Sequence[int] | None = None, ranks: Sequence[float] | None = None) -> dict[str, Any]:
        """Every cost of one plan, by name."""
        if self.owner is None or (_plain(bits, FLOAT_BITS) and _plain(ranks, 1)):
            numel = self.numel(widths)
            counted = {name: int(numel @ weights) for name, weights in self.weights.items()}
            costs: dict[str, Any] = {name: count + (self.uncounted if name == "macs" else 0) for name, count in counted.items()}
        else:
            costs = {name: int(self.cost(name, widths, bits, ranks)) for name in self.weights}
        if self.latency is not None:
            costs["latency"] = float(self.cost("latency", widths, bits, ranks))
        return costs

    def cost(
        self, name: str, widths: ArrayLike, bits: ArrayLike | None = None, ranks: ArrayLike | None = None
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """One cost for each row of widths, ``(..., groups)`` to ``(...)``."""
        if name == "latency":
            if self.latency is None:
                raise ValueError("no latency was measured; make the environment or Settings with cost='latency' (latency=True)")
            return self.latency.seconds(np.asarray(widths, dtype=np.int64))
        numel = self.numel(widths)
        uncounted = self.uncounted if name == "macs" else 0
        if self.owner is None or (_plain(bits, FLOAT_BITS) and _plain(ranks, 1)):
            return np.asarray(numel @ self.weights[name] + uncounted)
        return np.asarray(self._by_tensor(name, widths, numel, bits, ranks).sum(axis=-1) + uncounted)

    def _sizes(self, widths: ArrayLike) -> NDArray[np.int64]:
        counts = np.asarray(widths, dtype=np.int64)
        if counts.ndim == 1:  # as nearly always
            return np.asarray(self.fixed + self.per_channel @ counts)
        return np.asarray(self.fixed + np.tensordot(counts, self.per_channel, axes=(-1, -1)))

    def _by_tensor(
        self, name: str, widths: ArrayLike, numel: NDArray[np.int64], bits: ArrayLike | None, ranks: ArrayLike | None
    ) -> NDArray[np.int64]:
        assert self.owner is not None and self.outputs is not None and self.output_uses is not None and self.leads is not None
        owned = self.owner >= 0
        made = np.take_along_axis(self._sizes(widths), self.outputs[:, None] + np.zeros_like(numel)[..., None], axis=-1)[..., 0]
        read = numel // np.maximum(made, 1)
        shape = numel.shape
        depth = np.broadcast_to(_of_tensors(bits, self.owner, owned, FLOAT_BITS), shape)
        share = np.broadcast_to(_of_tensors(ranks, self.owner, owned & (self.output_uses > 0), 1.0), shape)
        rank = factor_rank(read, made, share)
        factored, weight = rank > 0, self.weights[name]
        first, second = rank * read, rank * made
        if name == "params":
            return np.where(factored, (first + second) * weight, numel * weight)
        if name == "macs":
            return np.where(factored, first * weight + second * self.output_uses, numel * weight)
        coded = depth < FLOAT_BITS
        held = np.where(factored, first + second, numel) * weight
        inputs = INPUT_BYTES * self.leads
        whole = packed_bytes(numel, depth) + SCALE_BYTES * made + inputs
        parts = packed_bytes(first, depth) + packed_bytes(second, depth) + SCALE_BYTES * (rank + made) + 2 * inputs
        return np.where(coded, np.where(factored, parts, whole), held)


@dataclass(frozen=True)
class WeightCosts:
    """Costs where single weights are removed: only the weights that are kept count.

    A weight is stored as it is, or as a bitmap of its positions (one bit each) and the values that are left, whichever is
    smaller: so no removal makes the network larger.

    Attributes:
        fixed: for each cost what lies outside these weights.
        sizes: int64 ``(groups,)``, dense widths; a width w keeps ``numel * w // size`` elements.
        group: int64 ``(tensors,)``, the group that says how much of each weight is kept; -1: it stays whole.
        owner: int64 ``(tensors,)``, the group whose bits hold: one for all weights of a layer.
        numel: int64 ``(tensors,)``, elements.
        uses: int64 ``(tensors,)``, uses an example of each element.
        outputs: int64 ``(tensors,)``: as many scales a quantized weight has.
        leads: bool ``(tensors,)``, as in `CostModel`.
        element_bytes: int64 ``(tensors,)``.
    """

    fixed: dict[str, int]
    sizes: NDArray[np.int64]
    group: NDArray[np.int64]
    owner: NDArray[np.int64]
    numel: NDArray[np.int64]
    uses: NDArray[np.int64]
    outputs: NDArray[np.int64]
    leads: NDArray[np.bool_]
    element_bytes: NDArray[np.int64]

    def all(self, widths: Sequence[int], bits: Sequence[int] | None = None, ranks: Sequence[float] | None = None) -> dict[str, Any]:
        """Every cost of one plan, by name."""
        return {name: int(self.cost(name, widths, bits, ranks)) for name in self.fixed}

    def cost(
        self, name: str, widths: ArrayLike, bits: ArrayLike | None = None, ranks: ArrayLike | None = None
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """One cost for each row of widths, ``(..., groups)`` to ``(...)``."""
        if name == "latency":
            raise ValueError(
                "masked weights don't run faster, so latency is no cost of this granularity; use granularity='structured'"
            )
        at = np.maximum(self.group, 0)
        shares = self.numel * np.asarray(widths, dtype=np.int64)[..., at] // self.sizes[at]
        kept = np.where(self.group < 0, self.numel, shares)
        if name == "params":
            return np.asarray(kept.sum(axis=-1) + self.fixed[name])
        if name == "macs":
            return np.asarray((kept * self.uses).sum(axis=-1) + self.fixed[name])
        depth = np.full(self.owner.shape, FLOAT_BITS) if bits is None else np.asarray(bits, dtype=np.int64)[..., self.owner]
        coded = depth < FLOAT_BITS
        each = np.where(coded, depth, 8 * self.element_bytes)
        values = np.where(is_sparse(self.numel, kept, each), sparse_bytes(self.numel, kept, each), packed_bytes(self.numel, each))
        scales = np.where(coded, SCALE_BYTES * self.outputs + INPUT_BYTES * self.leads, 0)
        return np.asarray((values + scales).sum(axis=-1) + self.fixed[name])


def is_sparse(numel: Any, kept: Any, bits: Any) -> Any:
    """Whether a weight of `numel` elements of `bits` each, `kept` of them left, is stored as bitmap and values: if smaller so."""
    return sparse_bytes(numel, kept, bits) < packed_bytes(numel, bits)


def sparse_bytes(numel: Any, kept: Any, bits: Any) -> Any:
    """Bytes of a bitmap of `numel` positions and `kept` values of `bits` each."""
    return packed_bytes(numel, 1) + packed_bytes(kept, bits)


def packed_bytes(count: Any, bits: Any) -> Any:
    """Bytes of `count` codes of `bits` each, packed without gaps."""
    return (count * bits + 7) // 8


def _plain(levels: ArrayLike | None, default: float) -> bool:
    if isinstance(levels, tuple):  # of one plan
        return levels.count(default) == len(levels)
    return levels is None or bool((np.asarray(levels) == default).all())


def _of_tensors(levels: ArrayLike | None, owner: NDArray[np.int64], owned: NDArray[np.bool_], default: float) -> NDArray[Any]:
    if levels is None:
        return np.full(owner.shape, default)
    return np.where(owned, np.asarray(levels)[..., np.maximum(owner, 0)], default)
