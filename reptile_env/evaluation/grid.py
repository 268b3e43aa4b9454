"""The plans of a table: every group at a few widths, in every combination. Numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reptile_env.compression.plan import FLOAT_BITS, Plan, removal_count
from reptile_env.evaluation.settings import Settings

TENTHS = 9  # rate of the last level
_NOTHING: tuple[Any, int] = (None, 0)
BEND = 1.2  # above 1: mild rates lie closer together, for that is where good plans are


@dataclass(frozen=True)
class Grid:
    """The plans that a table holds, numbered from 0.

    The row of a plan is its levels read as a number of mixed radix, group 0 first: neighbours share all but their last groups.

    Attributes:
        names: of the groups, in network order.
        sizes: dense channels of each.
        orders: for each group its channels, the least important first.
        levels: for each group its widths, descending; the first is dense.
        exact: widths of further plans that the table holds beside the rows.

    Raises:
        ValueError: an order that is none of the group's channels, or levels that do not descend from its size.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]
    levels: tuple[tuple[int, ...], ...]
    exact: frozenset[tuple[int, ...]] = frozenset()

    def __post_init__(self) -> None:
        for name, size, order, widths in zip(self.names, self.sizes, self.orders, self.levels, strict=True):
            if sorted(order) != list(range(size)):
                raise ValueError(f"group {name!r}: its order must list each of its channels 0 to {size - 1} once")
            if not widths or widths[0] != size or widths[-1] < 1 or list(widths) != sorted(set(widths), reverse=True):
                raise ValueError(f"group {name!r}: its levels must descend from {size} to 1 or more, got {list(widths)}")

    @functools.cached_property
    def rows(self) -> int:
        """How many plans."""
        return math.prod(map(len, self.levels))

    @functools.cached_property
    def strides(self) -> tuple[int, ...]:
        """For each group what one level more adds to the row."""
        return tuple(math.prod(map(len, self.levels[i + 1 :])) for i in range(len(self.levels)))

    def levels_of(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Number of the level of each group, 0 for dense: ``(...)`` rows give ``(..., groups)``."""
        numbers = np.asarray(rows, np.int64)[..., None]
        return np.asarray(numbers // np.array(self.strides) % np.array([len(widths) for widths in self.levels]))

    def widths_of(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Width of each group: ``(...)`` rows give ``(..., groups)``."""
        levels = self.levels_of(rows)
        return np.stack([np.array(widths)[levels[..., i]] for i, widths in enumerate(self.levels)], axis=-1)

    def kept(self, group: int, width: int) -> tuple[int, ...]:
        """The `width` most important channels of a group, ascending; the same object at each call."""
        known = self._kept[group].get(width)
        if known is None:
            if not 1 <= width <= self.sizes[group]:
                raise ValueError(f"group {self.names[group]!r} has no {width} channels; it has {self.sizes[group]}")
            known = self._kept[group].setdefault(width, tuple(sorted(self.orders[group][self.sizes[group] - width :])))
        return known

    def plan(self, row: int) -> Plan:
        """The plan of a row."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside 0 to {self.rows - 1}")
        return self.plan_of(self.widths_of(row).tolist())

    def plan_of(self, widths: Sequence[int]) -> Plan:
        """The plan that keeps as many of the most important channels of each group."""
        return Plan(self.names, [self.kept(group, width) for group, width in enumerate(widths)])

    def row(self, plan: Plan) -> int:
        """The row of a plan.

        Raises:
            TypeError: not a `Plan`.
            ValueError: it has none; the message says which group is off the grid.
        """
        row = self.find(plan)
        if row is None:
            raise ValueError(self.missing(plan))
        return row

    def find(self, plan: Plan) -> int | None:
        """The row of a plan; None where its widths are off the grid.

        Raises:
            TypeError, ValueError: see `check`.
        """
        row = self._known(plan)
        if row is not None:
            return row
        self.check(plan)
        row = 0
        for level_of, width, stride in zip(self._level, plan.widths, self.strides, strict=True):
            level = level_of.get(width)
            if level is None:
                return None
            row += level * stride
        return row

    def _known(self, plan: Any) -> int | None:
        """The row of a plan that is made of the very objects that `kept` gave, as nearly all are: there is nothing to compare."""
        if type(plan) is not Plan or plan.names != self.names or plan.parent is not None:
            return None
        if plan.bits != self._float or plan.ranks != self._whole:
            return None
        row = 0
        for parts, keep, width in zip(self._parts, plan.keep, plan.widths, strict=True):
            known, part = parts.get(width, _NOTHING)
            if known is not keep:
                return None
            row += part
        return row

    def missing(self, plan: Plan) -> str:
        """Why a plan has no row."""
        for name, width, widths in zip(self.names, plan.widths, self.levels, strict=True):
            if width not in widths:
                known = ", ".join(map(str, widths))
                return f"the table has no plan in which group {name!r} keeps {width} channels; it knows the widths {known}"
        return "the plan has a row"

    def check(self, plan: Plan) -> None:
        """Refuse what no table holds: groups, bits, ranks or channels of another kind.

        Raises:
            TypeError: not a `Plan`.
            ValueError: the plan is not one of this network's, or keeps other than its most important channels.
        """
        if not isinstance(plan, Plan):
            kind = "dict" if isinstance(plan, dict) else type(plan).__name__  # also where it is the one from info
            raise TypeError(f"a reptile_env.Plan is needed, got {kind}; Plan.from_dict reads its JSON form")
        if plan.names != self.names:
            raise ValueError(f"the plan's groups {list(plan.names)} are not those of the table: {list(self.names)}")
        if plan.parent is not None or plan.bits != self._float or plan.ranks != self._whole:
            raise ValueError(f"a table holds float plans of whole layers, got {plan}; use evaluator='live'")
        for group, keep in enumerate(plan.keep):
            if isinstance(keep, int):
                raise ValueError(f"group {self.names[group]!r}: a table holds lists of kept channels, got the count {keep}")
            if len(keep) > self.sizes[group] or (keep is not (best := self.kept(group, len(keep))) and keep != best):
                raise ValueError(
                    f"group {self.names[group]!r}: a table holds plans that keep the most important channels, which "
                    f"{list(keep)[:8]}... are not; use evaluator='live'"
                )

    def nearest(self, group: int, width: int, count: int) -> int:
        """How many channels go instead of `count`: down to the nearest level at or below `width`, ties to the wider."""
        there = self._nearest[group][width - count]
        if there > width:  # only from a width that is no level
            there = next((level for level in self.levels[group] if level <= width), width)
        return width - there

    def counts(self, group: int, width: int) -> tuple[int, ...]:
        """How many channels can go from `width`, ascending."""
        return tuple(width - level for level in self.levels[group] if level <= width)

    def nearest_widths(self, widths: Sequence[int]) -> tuple[int, ...]:
        """`widths` where `exact` holds them, else the nearest level of each group."""
        if tuple(widths) in self.exact:
            return tuple(widths)
        return tuple(int(self._nearest[group][width]) for group, width in enumerate(widths))

    @functools.cached_property
    def _kept(self) -> list[dict[int, tuple[int, ...]]]:
        return [{} for _ in self.sizes]

    @functools.cached_property
    def _level(self) -> list[dict[int, int]]:
        return [{width: level for level, width in enumerate(widths)} for widths in self.levels]

    @functools.cached_property
    def _parts(self) -> list[dict[int, tuple[Any, int]]]:
        """For each group and width of a level: the kept channels, and what the level adds to the row."""
        return [
            {width: (self.kept(group, width), level * stride) for level, width in enumerate(widths)}
            for group, (widths, stride) in enumerate(zip(self.levels, self.strides, strict=True))
        ]

    @functools.cached_property
    def _nearest(self) -> list[list[int]]:
        """For each group and width the nearest level."""
        return [
            [min(widths, key=lambda level, at=at: (abs(level - at), -level)) for at in range(size + 1)]  # type: ignore[misc]
            for size, widths in zip(self.sizes, self.levels, strict=True)
        ]

    @functools.cached_property
    def _float(self) -> tuple[int, ...]:
        return (FLOAT_BITS,) * len(self.sizes)

    @functools.cached_property
    def _whole(self) -> tuple[float, ...]:
        return (1.0,) * len(self.sizes)


def grid_rates(levels: int) -> list[float]:
    """Rates of a grid of `levels` levels, from 0 to 0.9, mild ones closer together: 10 are the default rates of discrete actions.

    Raises:
        ValueError: fewer than 2 or more than 10 levels.
    """
    if not 2 <= levels <= TENTHS + 1:
        raise ValueError(f"levels={levels}; a grid has 2 to {TENTHS + 1} levels a group")
    return [max(k, round(TENTHS * (k / (levels - 1)) ** BEND)) / 10 for k in range(levels)]


def widths_at(size: int, rates: Sequence[float]) -> tuple[int, ...]:
    """Widths that rates leave of a group, descending, dense first, each once."""
    return tuple(sorted({size, *(size - removal_count(size, rate) for rate in rates)}, reverse=True))


def make_grid(evaluator: Any, rates: Sequence[float], exact: Sequence[float] = ()) -> Grid:
    """The grid of an evaluator that runs the network.

    Args:
        evaluator: an `Evaluator`; asked for the order in which the channels of each group go.
        rates: of the levels of every group.
        exact: rates of further plans, which remove the same of every group.

    Raises:
        ValueError: settings under which a plan is more than its widths.
    """
    check_settings(evaluator.settings)
    sizes = tuple(evaluator.sizes)
    orders = tuple(_order(evaluator, group) for group in range(len(sizes)))
    levels = tuple(widths_at(size, rates) for size in sizes)
    alike = {tuple(size - removal_count(size, rate) for size in sizes) for rate in exact}
    beside = frozenset(each for each in alike if any(width not in known for width, known in zip(each, levels, strict=True)))
    return Grid(tuple(evaluator.group_names), sizes, orders, levels, beside)


def check_settings(settings: Settings) -> None:
    """Refuse settings under which a plan is more than its widths, or a measurement depends on this machine.

    Raises:
        ValueError: says which setting, and what goes instead.
    """
    if settings.granularity != "structured":
        raise ValueError(
            f"granularity={settings.granularity!r}: a table holds granularity='structured' alone; use evaluator='live'"
        )
    if "finetune" in settings.recovery.split("+"):
        raise ValueError(
            f"recovery={settings.recovery!r}: training changes which channels go next, so no table can hold it; use a recovery "
            "without 'finetune', or evaluator='live'"
        )
    if settings.latency:
        raise ValueError("cost='latency' is measured on one machine, so no table holds it; use another cost, or evaluator='live'")


def _order(evaluator: Any, group: int) -> tuple[int, ...]:
    """The channels of a group, the least important first: as they go one by one."""
    gone: list[int] = []
    plan = evaluator.dense
    for _ in range(evaluator.sizes[group] - 1):
        after = evaluator.cut(plan, group, 1)
        gone += set(plan.keep[group]) - set(after.keep[group])
        plan = after
    return (*gone, *plan.keep[group])
