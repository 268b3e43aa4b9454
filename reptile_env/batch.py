"""Many episodes on a table at once: what each decision leads to, by the arithmetic of one environment, on arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from reptile_env.episode import Rules, Scene
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.optimum import deepest_levels
from reptile_env.rewards import Reward
from reptile_env.worth import PAYOFFS, Flags, Floats, Ints, Worth


@dataclass
class Episodes:
    """Where episodes stand, each field ``(episodes,)``.

    Attributes:
        row: of the table, of the current plan.
        seen: row of the last measured plan.
        made: decisions made.
        requested: rate that the last decision asked for.
        rate: rate that it carried out.
        bit: whether the budget asked for more.
        measured: whether the plan after it was measured.
        total: sum of rewards.
    """

    row: Ints
    seen: Ints
    made: Ints
    requested: Floats
    rate: Floats
    bit: Flags
    measured: Flags
    total: Floats

    @classmethod
    def start(cls, count: int) -> Episodes:
        """Episodes on the dense network."""
        rows, seen, made = (np.zeros(count, np.int64) for _ in range(3))
        requested, rate, total = (np.zeros(count) for _ in range(3))
        return cls(rows, seen, made, requested, rate, np.zeros(count, bool), np.ones(count, bool), total)

    def of(self, which: Ints) -> Episodes:
        """Some of them."""
        return Episodes(*(getattr(self, field.name)[which] for field in fields(self)))

    def put(self, which: Ints, part: Episodes) -> None:
        """Overwrite some of them."""
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(part, field.name)


class Batch:
    """The rules of episodes on one table, for all of them at once.

    Args:
        scene: a task on a table.
        rules: of the episodes.
        reward: one of `reptile_env.worth.PAYOFFS`.

    Attributes:
        steps: decisions of an episode.
        group: by decisions made, the group to decide on next; the last one at the end.
        progress: by decisions made, as a fraction of the episode.
        levels: int16 ``(rows, groups)``, number of the level of each group.
        widths: ``(groups, levels)``, filled up with zeros.
        worth: what each row is worth.

    Raises:
        ValueError: rewards that are not finite.
    """

    def __init__(self, scene: Scene, rules: Rules, reward: Reward) -> None:
        evaluator = scene.evaluator
        assert isinstance(evaluator, TableEvaluator)
        self.scene, self.rules, self.evaluator = scene, rules, evaluator
        grid, groups = evaluator.grid, len(evaluator.sizes)
        self.steps = rules.rounds * groups
        self.group = np.append(np.arange(self.steps) % groups, groups - 1)
        self.progress = np.arange(self.steps + 1) / self.steps
        self._measures = np.array([rules.measure == "step" or group == groups - 1 for group in self.group])
        self.levels: NDArray[np.int16] = grid.levels_of(np.arange(grid.rows)).astype(np.int16)
        deepest = max(map(len, grid.levels))
        self.widths = np.array([widths + (0,) * (deepest - len(widths)) for widths in grid.levels])
        self._strides = np.array(grid.strides)
        self._nearest = np.zeros((groups, max(grid.sizes) + 1), np.int64)
        for group, size in enumerate(grid.sizes):
            known = grid.levels[group]
            self._nearest[group, : size + 1] = [known.index(size - grid.nearest(group, size, size - at)) for at in range(size + 1)]
        self.worth = Worth(scene, rules)
        self._payoff = PAYOFFS[reward](self.worth)
        if not np.isfinite(self._payoff.values).all():
            raise ValueError(f"the table of {evaluator.name!r} gives rewards that are not finite; use another reward=")
        self._wall: Wall | None = None if scene.wall is None else Wall(evaluator, rules, scene.wall.cap, self.levels)

    def advance(self, at: Episodes, rates: Floats, carried_out: Flags | None) -> tuple[Episodes, Floats]:
        """One decision of each episode, none of which has ended: where they stand then, and the rewards.

        Args:
            at: where they stand.
            rates: what is asked for, ``(episodes,)``.
            carried_out: False where chance lets the group alone; None: nowhere.
        """
        group = self.group[at.made]
        before = self.levels[at.row, group].astype(np.int64)
        width = self.widths[group, before]
        count = np.minimum((rates * width + 0.5001).astype(np.int64), width - 1)  # as removal_count
        level = self._nearest[group, width - count]
        if carried_out is not None:
            level = np.where(carried_out, level, before)
        asked = level
        if self._wall is not None:
            level = self._wall.decide(at, group, asked)
        row = at.row + (level - before) * self._strides[group]
        measured = self._measures[at.made]
        seen = row if self.rules.measure == "step" else np.where(measured, row, at.seen)
        made = at.made + 1
        reward = self._payoff(at.seen, seen, made == self.steps)
        rate = (width - self.widths[group, level]) / width
        return Episodes(row, seen, made, rates, rate, level != asked, measured, at.total + reward), reward


class Wall:
    """The budget wall of `reptile_env.budget`, on arrays: the least more than what was asked that leaves the cap in reach."""

    def __init__(self, evaluator: TableEvaluator, rules: Rules, cap: float, levels: NDArray[np.int16]) -> None:
        grid, groups = evaluator.grid, len(evaluator.sizes)
        self._cap, self._levels, self._groups = cap, levels, np.arange(groups)
        self._cost, self._count = evaluator.columns[rules.cost], np.array(list(map(len, grid.levels)))
        # For each number of passes to come, group and level: what the deepest decisions add to the row.
        self._ends = np.zeros((rules.rounds + 1, groups, self._count.max()), np.int64)
        for group, count in enumerate(self._count):
            for passes in range(rules.rounds + 1):
                ends = deepest_levels(grid, rules.max_rate, group, passes)
                self._ends[passes, group, :count] = ends * grid.strides[group]
        self._passes = np.array(
            [
                [rules.rounds - made // groups - 1 + (i > made % groups) for i in range(groups)]
                for made in range(rules.rounds * groups)
            ]
        )

    def decide(self, at: Episodes, group: Ints, asked: Ints) -> Ints:
        """The level of each group after the decision."""
        passes = self._passes[at.made]
        ends = self._ends[passes, self._groups, self._levels[at.row]]
        everyone = np.arange(len(group))
        ends[everyone, group] = 0
        others, own = ends.sum(axis=1), self._ends[passes[everyone, group], group]
        over = np.flatnonzero(self._cost[others + own[everyone, asked]] > self._cap)
        if not len(over):
            return asked
        levels = np.arange(own.shape[1])
        fits = self._cost[others[over, None] + own[over]] <= self._cap
        fits &= (levels > asked[over, None]) & (levels < self._count[group[over], None])
        taken = asked.copy()
        taken[over] = np.argmax(fits, axis=1)
        return taken
