"""The budget wall: a cap on the final cost that no action can break."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from reptile_env.compression.cost import Costs
from reptile_env.compression.plan import removal_count
from reptile_env.errors import number


@functools.lru_cache(maxsize=65536)
def _smallest_width(width: int, max_rate: float, passes: int) -> int:
    for _ in range(passes):
        width -= removal_count(width, max_rate)
    return width


class BudgetWall:
    """How much of the current group must go so that the cap can still be met (He et al., AMC, ECCV 2018, algorithm 1).

    Args:
        costs: cost model of the network.
        cost: which cost is capped.
        budget: cap as a fraction of the dense cost, in (0, 1].
        sizes: dense widths.
        max_rate: largest rate that one decision can carry out.
        rounds: passes over all groups in an episode.

    Raises:
        ValueError: `budget` outside (0, 1], or below what `max_rate` everywhere reaches; the message says what is reached.
    """

    def __init__(self, costs: Costs, cost: str, budget: float, sizes: Sequence[int], max_rate: float, rounds: int) -> None:
        if not 0 < number("budget", budget) <= 1:
            raise ValueError(f"budget={budget} is outside (0, 1]; it is the final {cost} as a fraction of the dense network's")
        self._costs, self._cost, self._max_rate, self._rounds = costs, cost, max_rate, rounds
        dense = float(costs.cost(cost, sizes))
        self.cap = budget * dense
        smallest = float(costs.cost(cost, [_smallest_width(size, max_rate, rounds) for size in sizes]))
        if smallest > self.cap:
            # Rounded up, so that the number in the message is itself reachable.
            reachable = np.ceil(smallest / dense * 1e4) / 1e4
            raise ValueError(
                f"budget={budget} of {cost} can't be reached with max_rate={max_rate:g} and rounds={rounds}; "
                f"the smallest that can is {reachable:.4f}"
            )

    def smallest_removal(self, widths: Sequence[int], group: int, round_: int) -> int:
        """Fewest channels to remove from `group` now so that later decisions can still meet the cap."""
        later = self._rounds - round_ - 1
        lowest = [_smallest_width(w, self._max_rate, later + (i > group)) for i, w in enumerate(widths)]
        width = widths[group]
        options = np.tile(np.array(lowest, dtype=np.int64), (removal_count(width, self._max_rate) + 1, 1))
        options[:, group] = [_smallest_width(width - k, self._max_rate, later) for k in range(len(options))]
        within = self._costs.cost(self._cost, options) <= self.cap
        # The invariant of the wall: the largest removal always meets the cap.
        assert within[-1], "the budget wall was stepped over"
        return int(np.argmax(within))
