"""The front of the plans that no other plan beats in both accuracy and cost, and the area under it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Plans that lose more than half of the dense metric, or cost more than the dense network, are of no use and count for nothing.
LEAST_QUALITY = 0.5
MOST_COST = 1.0


def front(costs: ArrayLike, qualities: ArrayLike) -> NDArray[np.int64]:
    """Indices of the plans that no other dominates, from cheap to costly; of equals the first.

    Args:
        costs: lower is better.
        qualities: higher is better.
    """
    cost, quality = np.asarray(costs, np.float64), np.asarray(qualities, np.float64)
    order = np.lexsort((-quality, cost))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(quality[order])[:-1]]) if len(order) else quality
    return np.asarray(order[quality[order] > best_before])


def hypervolume(costs: ArrayLike, qualities: ArrayLike) -> float:
    """The area that plans dominate (Zitzler and Thiele, 1999), scaled: 1 for a plan of the dense metric at no cost.

    It is taken between the costs 0 and `MOST_COST` and above `LEAST_QUALITY`. A metric above the dense one can lift it over 1.

    Args:
        costs: relative to the dense network's.
        qualities: metric relative to the dense network's, higher is better.
    """
    cost, quality = np.asarray(costs, np.float64), np.asarray(qualities, np.float64)
    useful = (cost < MOST_COST) & (quality > LEAST_QUALITY)
    cost, quality = cost[useful], quality[useful]
    chosen = front(cost, quality)
    widths = np.diff(np.append(cost[chosen], MOST_COST))
    return float((widths * (quality[chosen] - LEAST_QUALITY)).sum() / (MOST_COST * (1 - LEAST_QUALITY)))
