"""What plans will cost, known before anything is evaluated: costs depend on widths, bits and ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.base import Recorder, env_settings
from reptile_env.actions import make_actions
from reptile_env.compression.plan import FLOAT_BITS, removal_count

HALVINGS = 14


class PlanCosts:
    """Costs of the plans of an environment.

    Args:
        env: of one task.

    Attributes:
        budget: cap on the cost, as a fraction of the dense network's; None without one.
    """

    def __init__(self, env: Recorder) -> None:
        settings = env_settings(env)
        kinds = [settings.get(name) for name in ("max_rate", "rates", "components")]
        self._env, self._read = env, make_actions(settings.get("action", "continuous"), *kinds).read
        self.budget: float | None = settings.get("budget")

    def cost(self, amounts: Sequence[float]) -> float:
        """Cost, relative to dense, of what `agents.base.play` would ask for with `amounts`, the budget's wall left aside."""
        env, evaluator = self._env.inner, self._env.inner.evaluator
        each, groups = len(env.components), len(evaluator.sizes)
        widths, bits, ranks = list(evaluator.sizes), [FLOAT_BITS] * groups, [1.0] * groups
        for decision in range(self._env.decisions):
            group = decision % groups
            asked = self._read(np.asarray(self._env.action_of(amounts[decision * each : (decision + 1) * each])))
            count = removal_count(widths[group], asked.rate)
            widths[group] -= count if evaluator.grid is None else evaluator.grid.nearest(group, widths[group], count)
            bits[group] = min(bits[group], asked.bits)
            ranks[group] = min(ranks[group], asked.rank) if evaluator.rankable[group] else 1.0
        cost = evaluator.costs.cost(env.reference.cost, tuple(widths), tuple(bits), tuple(ranks))
        return float(cost) / env.reference.dense_cost

    def filled(self, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
        """`amounts` made milder or deeper, all alike, until the plan fills the budget: its cost ends just under the cap.

        Milder: all are multiplied by one factor. Deeper: what all are short of the most is. Bits fall in jumps, from 32 to 8 at
        once, after which much of the budget may be unused: then those of single groups are made milder, as far as the cap allows,
        the mildest first, and the other amounts all alike. Without a budget, or with one that the dense network meets, they stay as
        they are.
        """
        if self.budget is None or self.budget >= 1:
            return amounts
        amounts = self._moved(amounts, self._mildest(lambda by: self._moved(amounts, by), -1.0, 1.0))
        jumps = np.tile(np.array(self._env.inner.components) == "bits", self._env.decisions)
        if jumps.any():
            singles = [np.arange(len(amounts)) == index for index in np.argsort(amounts, kind="stable") if jumps[index]]
            for part in [*singles, ~jumps]:
                amounts = self._given_back(amounts, part)
        return amounts

    def raised(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """`rates` that meet the cap: the same is added to each, none past the top, until the cost ends just under it.

        Those that meet it, or stand under none, stay as they are.
        """
        if self.budget is None or self._fits(rates):
            return rates

        def higher(by: float) -> NDArray[np.float64]:
            return np.minimum(rates + by * self._env.tops, self._env.tops)

        return higher(self._mildest(higher, 0.0, 1.0))

    def _given_back(self, amounts: NDArray[np.float64], part: NDArray[np.bool_]) -> NDArray[np.float64]:
        """`amounts` that fit, those of a part made milder, all alike, as far as the cap allows."""

        def milder(by: float) -> NDArray[np.float64]:
            return np.where(part, amounts * by, amounts)

        return milder(0.0) if self._fits(milder(0.0)) else milder(self._mildest(milder, 0.0, 1.0))

    def _mildest(self, plan: Callable[[float], NDArray[np.float64]], mildest: float, deepest: float) -> float:
        """The least between two numbers for which `plan` fits, to 14 halvings; `deepest` where none else does."""
        for _ in range(HALVINGS):
            middle = (mildest + deepest) / 2
            if self._fits(plan(middle)):
                deepest = middle
            else:
                mildest = middle
        return deepest

    def _fits(self, amounts: NDArray[np.float64]) -> bool:
        assert self.budget is not None
        return self.cost(amounts.tolist()) <= self.budget

    def _moved(self, amounts: NDArray[np.float64], by: float) -> NDArray[np.float64]:
        """`amounts` moved towards nothing (-1) or all there is (1)."""
        return amounts + (by * (self._env.tops - amounts) if by > 0 else by * amounts)
