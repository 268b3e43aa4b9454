"""A plan: what every group keeps. Numpy only, so that table environments need no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any


class Plan:
    """An immutable, hashable record of the channels that every group keeps.

    Args:
        names: group names, in network order.
        keep: for each group the kept channel indices, ascending, at least one.

    Raises:
        ValueError: a group keeps nothing, or its indices are not ascending non-negative integers.
    """

    __slots__ = ("_hash", "keep", "names")

    _hash: int
    names: tuple[str, ...]
    keep: tuple[tuple[int, ...], ...]

    def __init__(self, names: Sequence[str], keep: Sequence[Sequence[int]]) -> None:
        if len(names) != len(keep):
            raise ValueError(f"a plan needs one list of kept channels for each group: {len(names)} names, {len(keep)} lists")
        kept = tuple(map(tuple, keep))
        for name, channels in zip(names, kept, strict=True):
            if not channels:
                raise ValueError(f"group {name!r} keeps no channel; every group keeps at least one")
            ascending = all(a < b for a, b in itertools.pairwise(channels))
            whole = all(isinstance(c, int) and not isinstance(c, bool) for c in channels)
            if not whole or channels[0] < 0 or not ascending:
                raise ValueError(f"group {name!r}: kept channels must be ascending indices from 0, got {list(channels)[:8]}...")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "keep", kept)
        object.__setattr__(self, "_hash", hash((self.names, kept)))

    @classmethod
    def dense(cls, names: Sequence[str], sizes: Sequence[int]) -> Plan:
        """The plan that keeps every channel."""
        return cls(names, [range(size) for size in sizes])

    @property
    def widths(self) -> tuple[int, ...]:
        """Kept channels of each group."""
        return tuple(map(len, self.keep))

    def replace(self, index: int, channels: Sequence[int]) -> Plan:
        """A copy in which the group at `index` keeps `channels` instead."""
        return Plan(self.names, (*self.keep[:index], tuple(channels), *self.keep[index + 1 :]))

    def to_dict(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """A JSON-able form: ``{group: {"keep": (channel, ...)}}``."""
        return {name: {"keep": channels} for name, channels in zip(self.names, self.keep, strict=True)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote, also after a round trip through JSON.

        Raises:
            ValueError: `data` is not of that form.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a plan is a mapping of group to {{'keep': [...]}}, got {type(data).__name__}")
        for name, entry in data.items():
            if not isinstance(entry, Mapping) or set(entry) != {"keep"} or not isinstance(entry["keep"], (list, tuple)):
                raise ValueError(f"plan entry of group {name!r} must be {{'keep': [channel, ...]}}, got {entry!r:.80}")
        return cls(list(data), [entry["keep"] for entry in data.values()])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a plan is immutable; use replace()")

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.names, self.keep)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._hash == other._hash and self.keep == other.keep and self.names == other.names

    def __repr__(self) -> str:
        return "Plan(" + ", ".join(f"{n}={len(k)}" for n, k in zip(self.names, self.keep, strict=True)) + ")"


def removal_count(width: int, rate: float) -> int:
    """Channels that `rate` removes of `width` remaining ones: rounded to the nearest whole, one always stays.

    Ties go up, also where a float32 action puts the rate a hair below the tie.
    """
    return min(int(rate * width + 0.5001), width - 1)
