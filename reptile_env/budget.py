"""The budget wall: a cap on the final cost that no action can break."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reptile_env.actions import BITS, LOWEST_RANK
from reptile_env.compression.cost import Costs, Levels
from reptile_env.compression.plan import FLOAT_BITS, removal_count
from reptile_env.errors import number

RANK_STEP = 0.05  # by which the wall lowers a rank
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
    ) -> None:
        if not 0 < number("budget", budget) <= 1:
            raise ValueError(f"budget={budget} is outside (0, 1]; it is the final {cost} as a fraction of the dense network's")
        self._costs, self._cost, self._max_rate, self._rounds = costs, cost, max_rate, rounds
        self._bits, self._ranks = bits, tuple(ranks) or (False,) * len(sizes)
        whole: Levels = (sizes, [FLOAT_BITS] * len(sizes), [1.0] * len(sizes))
        dense = float(costs.cost(cost, *whole))
        self.cap = budget * dense
        lowest = [_smallest_width(size, max_rate, rounds) for size in sizes]
        smallest = float(self._cheapest((lowest, whole[1], whole[2]), 0, [(lowest[0], FLOAT_BITS, 1.0)], range(len(sizes)))[0])
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
        later = self._rounds - round_ - 1
        widths = [_smallest_width(w, self._max_rate, later + (i > group)) for i, w in enumerate(levels[0])]
        free = [i for i in range(len(widths)) if later or i > group]
        before = (levels[0][group], levels[1][group], levels[2][group])

        def within(chunk: Sequence[Decision]) -> NDArray[np.bool_]:
            ends = [(_smallest_width(before[0] - c.count, self._max_rate, later), c.bits, c.rank) for c in chunk]
            return np.asarray(self._cheapest((widths, levels[1], levels[2]), group, ends, free) <= self.cap)

        if within([asked])[0]:  # as nearly always
            return asked
        counts = range(asked.count + 1, max(removal_count(before[0], self._max_rate), asked.count) + 1)
        while len(counts) > CHUNK:
            # The more goes the less it costs, and a layer can have millions of single weights.
            middle = counts[len(counts) // 2]
            fits = within([replace(asked, count=middle)])[0]
            counts = range(counts.start, middle + 1) if fits else range(middle + 1, counts.stop)
        candidates = list(self._candidates(before, group, asked, counts))
        for start in range(0, len(candidates), CHUNK):
            chunk = candidates[start : start + CHUNK]
            fitting = within(chunk)
            if fitting.any():
                return chunk[int(np.argmax(fitting))]
        raise AssertionError("the budget wall was stepped over")

    def _candidates(self, before: tuple[int, int, float], group: int, asked: Decision, counts: Sequence[int]) -> Iterator[Decision]:
        """Deeper and deeper decisions: `counts` to remove, then the most with lower bits, then a lower rank."""
        width, bits, rank = before
        most = max(removal_count(width, self._max_rate), asked.count)
        yield from (Decision(count, asked.bits, asked.rank) for count in counts)
        depths = [depth for depth in BITS if depth < asked.bits] if self._bits else []
        yield from (Decision(most, depth, asked.rank) for depth in depths)
        lowest = min(asked.bits, BITS[-1]) if self._bits else asked.bits
        if self._ranks[group]:
            steps = int((asked.rank - LOWEST_RANK) / RANK_STEP + 1e-9)
            yield from (Decision(most, lowest, round(asked.rank - RANK_STEP * k, 3)) for k in range(1, steps + 1))
        # The deepest of all, and what was there before where it costs less than what was asked.
        yield from (Decision(most, depth, fraction) for depth, fraction in self._ends(group, bits, rank))

    def _ends(self, group: int, bits: int, rank: float) -> list[tuple[int, float]]:
        """The cheapest bits and rank that a group can end with is one of these."""
        depths = [min(bits, BITS[-1]), bits] if self._bits else [bits]
        fractions = [min(rank, LOWEST_RANK), rank] if self._ranks[group] else [rank]
        return list(dict.fromkeys((depth, fraction) for fraction in fractions for depth in depths))

    def _cheapest(
        self, levels: Levels, group: int, ends: Sequence[tuple[int, int, float]], free: Sequence[int]
    ) -> NDArray[np.float64]:
        """For each width, bits and rank of `group`, the least cost that the bits and ranks of the `free` groups can lead to.

        A layer's bits and rank are those of one group, so what one group saves does not depend on the others'.
        """
        widths, bits, ranks = (np.tile(np.asarray(values), (len(ends), 1)) for values in levels)
        ranks = ranks.astype(np.float64)
        for values, column in zip((widths, bits, ranks), zip(*ends, strict=True), strict=True):
            values[:, group] = column
        cheapest = base = np.asarray(self._costs.cost(self._cost, widths, bits, ranks), np.float64)
        for other in free:
            saved = np.zeros(len(ends))
            for row in self._variants(other, bits, ranks):
                saved = np.maximum(saved, base - self._costs.cost(self._cost, widths, *row))
            cheapest = cheapest - saved
        return cheapest

    def _variants(
        self, group: int, bits: NDArray[np.int64], ranks: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """All rows with the bits, the rank or both of `group` at their lowest."""
        low_bits, low_ranks = bits.copy(), ranks.copy()
        low_bits[:, group] = np.minimum(low_bits[:, group], BITS[-1])
        low_ranks[:, group] = np.minimum(low_ranks[:, group], LOWEST_RANK)
        if self._bits:
            yield low_bits, ranks
        if self._ranks[group]:
            yield bits, low_ranks
        if self._bits and self._ranks[group]:
            yield low_bits, low_ranks
