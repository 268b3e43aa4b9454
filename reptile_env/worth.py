"""What the plan of each row of a table is worth to an environment, by the arithmetic of `reptile_env.rewards`, on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reptile_env import rewards
from reptile_env.episode import Rules, Scene
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.optimum import qualities, utilities

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Worth:
    """Numbers by row, each ``(rows,)``.

    Args:
        scene: a task on a table.
        rules: of the episodes.

    Attributes:
        quality: metric relative to dense, higher is better.
        relative_cost: cost relative to dense.
        utility: see `reptile_env.rewards.utility`.
        budget_left: how far the relative cost is above the cap.
        scale: utility of the best uniform rate minus that of the dense network.
        dense: measurement of the dense network.
    """

    def __init__(self, scene: Scene, rules: Rules) -> None:
        evaluator, reference = scene.evaluator, scene.reference
        assert isinstance(evaluator, TableEvaluator)
        self._columns = evaluator.columns
        rows = np.arange(evaluator.grid.rows)
        self.quality: Floats = qualities(scene, evaluator, rows)
        self.relative_cost: Floats = self.column(reference.cost) / reference.dense.cost(reference.cost)
        self.utility: Floats = utilities(scene, evaluator, rows)
        above = self.relative_cost - (math.inf if rules.budget is None else rules.budget)
        self.budget_left: Floats = np.maximum(above, 0.0)
        self.scale, self.dense = reference.scale, reference.dense

    def column(self, name: str) -> Floats:
        """A column of the table."""
        return np.asarray(self._columns[name], np.float64)


@dataclass(frozen=True)
class Payoff:
    """A reward as numbers by row.

    Attributes:
        values: of each row.
        paid: what a step pays of them: their ``change``, divided by `scale`; those of the row that it leads to, at every step
            (``always``) or at the end (``end``), 0 before.
        scale: of changes.
    """

    values: Floats
    paid: Literal["change", "end", "always"]
    scale: float = 1.0

    def __call__(self, before: Ints, after: Ints, ended: Flags) -> Floats:
        """Rewards of steps from measured rows to measured rows."""
        if self.paid == "change":
            return np.asarray((self.values[after] - self.values[before]) / self.scale)
        return self.values[after] if self.paid == "always" else np.where(ended, self.values[after], 0.0)


def _tradeoff(worth: Worth) -> Payoff:
    return Payoff(worth.utility, "change", worth.scale)


def _loss(worth: Worth) -> Payoff:
    return Payoff(-(rewards.GAMMA * worth.column("train_loss") + worth.column("loss")), "change")


def _amc_params(worth: Worth) -> Payoff:
    return _amc(worth, "params")


def _amc_macs(worth: Worth) -> Payoff:
    return _amc(worth, "macs")


def _amc(worth: Worth, cost: str) -> Payoff:
    # numpy's logarithm differs from math's in the last bit.
    return Payoff(-(1 - worth.column("metric")) * np.array([math.log(value) for value in worth.column(cost).tolist()]), "end")


def _accuracy(worth: Worth) -> Payoff:
    return Payoff(worth.column("metric"), "end")


def _purl(worth: Worth) -> Payoff:
    lost = np.maximum(1 - worth.quality / rewards.TARGET_ACCURACY, 0.0)
    kept = np.maximum(1 - (1 - worth.column("params") / worth.dense.params) / rewards.TARGET_SPARSITY, 0.0)
    return Payoff(-rewards.BETA * (lost + kept), "always")


PAYOFFS: dict[rewards.Reward, Callable[[Worth], Payoff]] = {
    rewards.tradeoff: _tradeoff,
    rewards.loss: _loss,
    rewards.amc_params: _amc_params,
    rewards.amc_macs: _amc_macs,
    rewards.accuracy: _accuracy,
    rewards.purl: _purl,
}
