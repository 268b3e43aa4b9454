"""A plan: what every group keeps. Numpy only, so that table environments need no torch."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FLOAT_BITS = 32
LOWEST_BITS, HIGHEST_BITS = 2, 8
_PARENT = "@after"  # in the JSON form; no layer has such a name

Kept = tuple[int, ...] | int


class Request(NamedTuple):
    """What one decision asks of a group; by default to leave it alone.

    Attributes:
        rate: fraction of the remaining channels that goes.
        bits: of its layers' weights, 32 for float.
        rank: parameters of its layers' two factors as a fraction of the whole layer's; 1 leaves them whole.
    """

    rate: float = 0.0
    bits: int = FLOAT_BITS
    rank: float = 1.0


class Plan:
    """An immutable, hashable record of what every group keeps.

    Args:
        names: group names, in network order.
        keep: for each group the kept channel indices, ascending, at least one; or, where single weights go, how many are kept.
        bits: for each group the bits of its layers' weights: 2 to 8, or 32 for float; default float.
        ranks: for each group the parameters of its layers' two factors as a fraction of the whole layer's, in (0, 1]; 1, the
            default, leaves them whole.
        parent: the plan after which the network was last trained, where rounds of cutting and training alternate.

    Raises:
        ValueError: a group keeps nothing, its indices are not ascending non-negative integers, or bits or a rank out of range.
    """

    __slots__ = ("_hash", "_widths", "bits", "keep", "names", "parent", "ranks")

    _hash: int  # as the widths, worked out when it is first asked for
    _widths: tuple[int, ...]
    names: tuple[str, ...]
    keep: tuple[Kept, ...]
    bits: tuple[int, ...]
    ranks: tuple[float, ...]
    parent: Plan | None

    def __init__(
        self,
        names: Sequence[str],
        keep: Sequence[Sequence[int] | int],
        bits: Sequence[int] | None = None,
        ranks: Sequence[float] | None = None,
        parent: Plan | None = None,
    ) -> None:
        if len(names) != len(keep):
            raise ValueError(f"a plan needs one list of kept channels for each group: {len(names)} names, {len(keep)} lists")
        kept = tuple(_checked_keep(name, what) for name, what in zip(names, keep, strict=True))
        widths = tuple([FLOAT_BITS] * len(kept)) if bits is None else tuple(bits)
        fractions = tuple([1.0] * len(kept)) if ranks is None else tuple(ranks)
        if not len(widths) == len(fractions) == len(kept):
            raise ValueError(f"a plan of {len(kept)} groups needs as many bits and ranks, got {len(widths)} and {len(fractions)}")
        widths = tuple(check_bits(b, f"group {name!r}") for name, b in zip(names, widths, strict=True))
        fractions = tuple(check_rank(rank, f"group {name!r}") for name, rank in zip(names, fractions, strict=True))
        if parent is not None and (not isinstance(parent, Plan) or parent.names != tuple(names)):
            raise ValueError("parent must be a plan of the same groups")
        self._fill(tuple(names), kept, widths, fractions, parent)

    def _fill(self, names: tuple[str, ...], keep: tuple[Kept, ...], bits: Any, ranks: Any, parent: Plan | None) -> None:
        fill = object.__setattr__
        fill(self, "names", names)
        fill(self, "keep", keep)
        fill(self, "bits", bits)
        fill(self, "ranks", ranks)
        fill(self, "parent", parent)

    @classmethod
    def dense(cls, names: Sequence[str], sizes: Sequence[int]) -> Plan:
        """The plan that keeps every channel."""
        return cls(names, [range(size) for size in sizes])

    @property
    def widths(self) -> tuple[int, ...]:
        """Kept channels (or weights) of each group."""
        try:
            return self._widths
        except AttributeError:
            object.__setattr__(self, "_widths", tuple([kept if isinstance(kept, int) else len(kept) for kept in self.keep]))
            return self._widths

    @property
    def levels(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
        """Widths, bits and ranks: all that costs depend on."""
        return self.widths, self.bits, self.ranks

    def replace(
        self, index: int, channels: Sequence[int] | int | None = None, bits: int | None = None, rank: float | None = None
    ) -> Plan:
        """A copy in which the group at `index` keeps `channels`, has `bits` or `rank` instead; None leaves each as it is."""
        if not 0 <= index < len(self.names):
            raise ValueError(f"the plan has no group number {index}; its {len(self.names)} groups are numbered from 0")
        name = self.names[index]
        where = f"group {name!r}"
        keep = self.keep[index] if channels is None else _checked_keep(name, channels)
        depth = self.bits[index] if bits is None else check_bits(bits, where)
        return self.with_group(index, keep, depth, self.ranks[index] if rank is None else check_rank(rank, where))

    def with_group(self, index: int, keep: Kept, bits: int, rank: float) -> Plan:
        """As `replace`, for what is known to be right: nothing is checked."""
        plan: Plan = object.__new__(Plan)
        widths, ranks = self.bits, self.ranks
        if widths[index] != bits:
            widths = _put(widths, index, bits)
        if ranks[index] != rank:
            ranks = _put(ranks, index, rank)
        plan._fill(self.names, _put(self.keep, index, keep), widths, ranks, self.parent)
        object.__setattr__(plan, "_widths", _put(self.widths, index, keep if isinstance(keep, int) else len(keep)))
        return plan

    def trained(self) -> Plan:
        """The plan of a next round that starts from the network trained after this one."""
        return Plan(self.names, self.keep, self.bits, self.ranks, self)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form: ``{group: {"keep": (channel, ...) or count, "bits": 8, "rank": 0.5}}``; defaults are left out."""
        data = _PlainPlan()
        for name, kept, bits, rank in zip(self.names, self.keep, self.bits, self.ranks, strict=True):
            data[name] = {"keep": kept}
            if bits != FLOAT_BITS:
                data[name]["bits"] = bits
            if rank != 1:
                data[name]["rank"] = rank
        if self.parent is not None:
            data[_PARENT] = self.parent.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote, also after a round trip through JSON.

        Raises:
            ValueError: `data` is not of that form.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a plan is a mapping of group to {{'keep': [...]}}, got {type(data).__name__}")
        groups = {name: entry for name, entry in data.items() if name != _PARENT}
        for name, entry in groups.items():
            whole = isinstance(entry, Mapping) and "keep" in entry and set(entry) <= {"keep", "bits", "rank"}
            if not whole or not isinstance(entry["keep"], (list, tuple, int, np.integer)):
                raise ValueError(
                    f"plan entry of group {name!r} must be {{'keep': [channel, ...]}} with optional 'bits' and 'rank', "
                    f"got {entry!r:.80}"
                )
        entries = list(groups.values())
        keep = [entry["keep"] for entry in entries]
        bits, ranks = [e.get("bits", FLOAT_BITS) for e in entries], [e.get("rank", 1.0) for e in entries]
        parent = cls.from_dict(data[_PARENT]) if _PARENT in data else None
        return cls(list(groups), keep, bits, ranks, parent)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a plan is immutable; use replace()")

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.names, self.keep, self.bits, self.ranks, self.parent)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash((self.names, self.keep, self.bits, self.ranks, self.parent)))
            return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Plan) or hash(self) != hash(other):
            return False
        return (self.keep, self.names, self.bits, self.ranks, self.parent) == (
            other.keep,
            other.names,
            other.bits,
            other.ranks,
            other.parent,
        )

    def __repr__(self) -> str:
        parts = []
        for name, width, bits, rank in zip(self.names, *self.levels, strict=True):
            extra = (f"@{bits}bit" if bits != FLOAT_BITS else "") + (f"/rank {rank:g}" if rank != 1 else "")
            parts.append(f"{name}={width}{extra}")
        return "Plan(" + ", ".join(parts) + ")"


class _PlainPlan(dict[str, Any]):
    """What `Plan.to_dict` gives: a dict whose deep copies share the tuples of channels.

    ``info`` holds one, and Stable-Baselines3 copies every info: channel by channel, that would take longer than the step.
    """

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _PlainPlan:
        return _PlainPlan((name, _copied(entry, memo)) for name, entry in self.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _copied(entry: Any, memo: dict[int, Any]) -> Any:
    if type(entry) is dict and type(entry.get("keep")) is tuple:
        rest = {name: copy.deepcopy(value, memo) for name, value in entry.items() if name != "keep"}
        return {"keep": entry["keep"]} | rest
    return copy.deepcopy(entry, memo)


def removal_count(width: int, rate: float) -> int:
    """Channels that `rate` removes of `width` remaining ones: rounded to the nearest whole, one always stays.

    Ties go up, also where a float32 action puts the rate a hair below the tie.
    """
    return min(int(rate * width + 0.5001), width - 1)


def check_bits(bits: Any, where: str) -> int:
    """`bits` if they are 2 to 8, or 32 for float; else a ``ValueError``."""
    whole = _whole(bits)
    if whole is None or not (LOWEST_BITS <= whole <= HIGHEST_BITS or whole == FLOAT_BITS):
        raise ValueError(f"{where}: bits={bits!r}; weights have {LOWEST_BITS} to {HIGHEST_BITS} bits, or {FLOAT_BITS} for float")
    return whole


def check_rank(rank: Any, where: str) -> float:
    """`rank` if it is in (0, 1]; else a ``ValueError``."""
    if isinstance(rank, bool) or not isinstance(rank, (int, float)) or not math.isfinite(rank) or not 0 < rank <= 1:
        raise ValueError(f"{where}: rank={rank!r} is outside (0, 1]; it is a fraction of the whole layer's parameters")
    return float(rank)


def _put(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    changed = list(values)
    changed[index] = value
    return tuple(changed)


def _checked_keep(name: str, keep: Sequence[int] | int) -> Kept:
    count = _whole(keep)
    if count is not None:
        if count < 1:
            raise ValueError(f"group {name!r} keeps {count} weights; every group keeps at least one")
        return count
    if isinstance(keep, (bool, str)) or not isinstance(keep, (Sequence, range)):
        raise ValueError(f"group {name!r}: keep must be a list of channels or a count of weights, got {keep!r:.80}")
    if not len(keep):
        raise ValueError(f"group {name!r} keeps no channel; every group keeps at least one")
    channels = tuple(keep)
    if set(map(type, channels)) != {int}:
        channels = tuple([-1 if (channel := _whole(c)) is None else channel for c in channels])
    if channels[0] < 0 or not all(map(operator.lt, channels, channels[1:])):
        raise ValueError(f"group {name!r}: kept channels must be ascending indices from 0, got {list(keep)[:8]!r:.80}...")
    return channels


def _whole(value: Any) -> int | None:
    """A whole number of any kind, numpy's too, as an int; None: it is no whole number, or a bool."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
