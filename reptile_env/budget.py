"""The budget wall: a cap on the final cost that no action can break."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reptile_env.actions import BITS, LOWEST_RANK
from reptile_env.compression.cost import Costs, Levels
from reptile_env.compression.plan import FLOAT_BITS, removal_count
from reptile_env.errors import number
from reptile_env.evaluation.grid import Grid

RANK_STEP = 0.05  # by which the wall lowers a rank
KINDS = (np.int64, np.int64, np.float64)  # of widths, bits and ranks
CHUNK = 64  # decisions whose ends are worked out at once


@dataclass(frozen=True)
class Decision:
    """What is done to a group.

    Attributes:
        count: channels to remove.
        bits: bits from then on.
        rank: rank from then on.
    """

    count: int
    bits: int = FLOAT_BITS
    rank: float = 1.0


@functools.lru_cache(maxsize=65536)
def _smallest_width(width: int, max_rate: float, passes: int) -> int:
    for _ in range(passes):
        width -= removal_count(width, max_rate)
    return width


def deepest_count(grid: Grid | None, group: int, width: int, max_rate: float) -> int:
    """The most channels that one decision can remove."""
    most = removal_count(width, max_rate)
    return most if grid is None else grid.nearest(group, width, most)


class BudgetWall:
    """What has to be done to the current group so that the cap can still be met (He et al., AMC, ECCV 2018, algorithm 1).

    The invariant: after every decision the cap is met if all that can still be cut is cut, by `max_rate` and, where they are
    decided on too, to 2 bits and the lowest rank. Small layers can cost less whole than in two factors, and less in float
    than with their scales, so each group ahead counts with the cheapest of its four ends.

    Args:
        costs: cost model of the network.
        cost: which cost is capped.
        budget: cap as a fraction of the dense cost, in (0, 1].
        sizes: dense widths.
        max_rate: largest rate that one decision can carry out.
        rounds: passes over all groups in an episode.
        bits: whether decisions lower bits.
        ranks: for each group whether decisions lower its rank; none when left out.
        grid: the widths that decisions lead to; all when left out.

    Raises:
        ValueError: `budget` outside (0, 1], or below what the deepest decisions reach; the message says what is reached.
    """

    def __init__(
        self,
        costs: Costs,
        cost: str,
        budget: float,
        sizes: Sequence[int],
        max_rate: float,
        rounds: int,
        bits: bool = False,
        ranks: Sequence[bool] = (),
        grid: Grid | None = None,
    ) -> None:
        if not 0 < number("budget", budget) <= 1:
            raise ValueError(f"budget={budget} is outside (0, 1]; it is the final {cost} as a fraction of the dense network's")
        self._costs, self._cost, self._max_rate, self._rounds = costs, cost, max_rate, rounds
        self._bits, self._ranks, self._grid = bits, tuple(ranks) or (False,) * len(sizes), grid
        whole: Levels = (sizes, [FLOAT_BITS] * len(sizes), [1.0] * len(sizes))
        dense = float(costs.cost(cost, *whole))
        self.cap = budget * dense
        smallest = float(self._least(whole, 0, [Decision(0)], [rounds] * len(sizes))[0])
        if smallest > self.cap:
            # Rounded up, so that the number in the message is itself reachable.
            reachable = np.ceil(smallest / dense * 1e4) / 1e4
            limits = [f"max_rate={max_rate:g}", f"rounds={rounds}"]
            limits += [f"{BITS[-1]} bits"] * bits + [f"rank {LOWEST_RANK:g}"] * any(self._ranks)
            raise ValueError(
                f"budget={budget} of {cost} can't be reached with {', '.join(limits[:-1])} and {limits[-1]}; "
                f"the smallest that can is {reachable:.4f}"
            )

    def decide(self, levels: Levels, group: int, round_: int, asked: Decision) -> Decision:
        """What was asked where it leaves the cap in reach; else the least more.

        First more channels go; where the largest removal is not enough, bits fall one by one, and then the rank.

        Args:
            levels: widths, bits and ranks before the decision.
            group: whose decision it is.
            round_: number of the round, from 0.
            asked: must not undo compression.
        """
        passes = self._passes(group, round_)

        def within(chunk: Sequence[Decision]) -> NDArray[np.bool_]:
            return np.asarray(self._least(levels, group, chunk, passes) <= self.cap)

        if self._is_within(levels, group, asked, passes):  # as nearly always
            return asked
        before = (levels[0][group], levels[1][group], levels[2][group])
        counts: Sequence[int] = range(asked.count + 1, self._most(group, before[0], asked) + 1)
        if self._grid is not None:
            counts = [count for count in self._grid.counts(group, before[0]) if count in counts]
        while len(counts) > CHUNK:
            # The more goes the less it costs, and a layer can have millions of single weights.
            middle = counts[len(counts) // 2]
            fits = within([replace(asked, count=middle)])[0]
            half = len(counts) // 2 + 1
            counts = counts[:half] if fits else counts[half:]
        candidates = list(self._candidates(before, group, asked, counts))
        for start in range(0, len(candidates), CHUNK):
            chunk = candidates[start : start + CHUNK]
            fitting = within(chunk)
            if fitting.any():
                return chunk[int(np.argmax(fitting))]
        raise AssertionError("the budget wall was stepped over")

    def leaves_in_reach(self, levels: Levels, group: int, round_: int, asked: Decision) -> bool:
        """Whether the cap can still be met after `asked`, so that `decide` leaves it as it is; arguments as there."""
        return self._is_within(levels, group, asked, self._passes(group, round_))

    def _passes(self, group: int, round_: int) -> list[int]:
        """For each group how many decisions are left after the one on `group`."""
        return [self._rounds - round_ - 1 + (i > group) for i in range(len(self._ranks))]

    def _is_within(self, levels: Levels, group: int, asked: Decision, passes: Sequence[int]) -> bool:
        if self._bits or any(self._ranks):
            return bool(self._least(levels, group, [asked], passes)[0] <= self.cap)
        widths = list(levels[0])
        widths[group] -= asked.count
        lowest = [self._smallest(i, width, left) for i, (width, left) in enumerate(zip(widths, passes, strict=True))]
        return bool(self._costs.cost(self._cost, lowest, levels[1], levels[2]) <= self.cap)

    def _candidates(self, before: tuple[int, int, float], group: int, asked: Decision, counts: Sequence[int]) -> Iterator[Decision]:
        """Deeper and deeper decisions: `counts` to remove, then the most with lower bits, then a lower rank."""
        width, bits, rank = before
        most = self._most(group, width, asked)
        yield from (Decision(count, asked.bits, asked.rank) for count in counts)
        depths = [depth for depth in BITS if depth < asked.bits] if self._bits else []
        yield from (Decision(most, depth, asked.rank) for depth in depths)
        lowest = min(asked.bits, BITS[-1]) if self._bits else asked.bits
        if self._ranks[group]:
            steps = int((asked.rank - LOWEST_RANK) / RANK_STEP + 1e-9)
            yield from (Decision(most, lowest, round(asked.rank - RANK_STEP * k, 3)) for k in range(1, steps + 1))
        # The deepest of all, and what was there before where it costs less than what was asked.
        yield from (Decision(most, int(depth), float(part)) for depth, part in reversed(self._ends(group, bits, rank)))

    def _most(self, group: int, width: int, asked: Decision) -> int:
        return max(deepest_count(self._grid, group, width, self._max_rate), asked.count)

    def _smallest(self, group: int, width: int, passes: int) -> int:
        """What the deepest decisions leave of `width`."""
        if self._grid is None:
            return _smallest_width(width, self._max_rate, passes)
        for _ in range(passes):
            width -= deepest_count(self._grid, group, width, self._max_rate)
        return width

    def _ends(self, group: int, bits: Any, rank: Any) -> list[tuple[Any, Any]]:
        """Bits and ranks, as they are and at their lowest: the cheapest end of a group has one of these."""
        depths = [bits, np.minimum(bits, BITS[-1])] if self._bits else [bits]
        fractions = [rank, np.minimum(rank, LOWEST_RANK)] if self._ranks[group] else [rank]
        return [(depth, fraction) for fraction in fractions for depth in depths]

    def _least(self, levels: Levels, group: int, decisions: Sequence[Decision], passes: Sequence[int]) -> NDArray[np.float64]:
        """For each decision on `group`, the least cost that can follow when each group has as many decisions left as `passes` says.

        A layer's bits and rank are those of one group, so what one group saves by them does not depend on the others'.
        """
        widths, bits, ranks = (
            np.tile(np.asarray(values, kind), (len(decisions), 1)) for values, kind in zip(levels, KINDS, strict=True)
        )
        widths[:, group] -= [decision.count for decision in decisions]
        bits[:, group] = [decision.bits for decision in decisions]
        ranks[:, group] = [decision.rank for decision in decisions]
        lowest = np.array(
            [[self._smallest(i, int(w), p) for i, (w, p) in enumerate(zip(row, passes, strict=True))] for row in widths]
        )
        least = base = np.asarray(self._costs.cost(self._cost, lowest, bits, ranks), np.float64)
        for other in (i for i, left in enumerate(passes) if left):
            saved = np.zeros(len(decisions))
            for depth, fraction in self._ends(other, bits[:, other], ranks[:, other])[1:]:  # the first is what base has
                ends = self._costs.cost(self._cost, lowest, _with(bits, other, depth), _with(ranks, other, fraction))
                saved = np.maximum(saved, base - ends)
            least = least - saved
        return least


def _with(rows: NDArray[Any], group: int, column: NDArray[Any]) -> NDArray[Any]:
    changed = rows.copy()
    changed[:, group] = column
    return changed
