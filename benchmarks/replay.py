"""The decisions of a run made again, in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym

from benchmarks.results import Run
from reptile_env.actions import DEFAULT_MAX_RATE
from reptile_env.compression.plan import FLOAT_BITS
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.measurement import Measurement


class Level(NamedTuple):
    """What a decision leaves of a group."""

    width: int
    bits: int = FLOAT_BITS
    rank: float = 1.0


class Replay:
    """Plays the plans of a run anew.

    Args:
        run: whose environment, groups and decisions are taken.

    Attributes:
        env: the environment.
    """

    def __init__(self, run: Run) -> None:
        made = gym.make(run.env_id, **run.settings).unwrapped
        assert isinstance(made, ReptilePruneEnv)
        self.env, self._run = made, run
        self._decided: list[Level] = []
        self._open = False  # whether an episode goes on

    def measured(self, row: int) -> Measurement | None:
        """What the plan of a row measures; None where no actions lead to it.

        A plan that goes on from the one before it is reached by one more decision.
        """
        wanted = self._levels(row)
        if not self._open or len(self._decided) >= len(wanted) or wanted[: len(self._decided)] != self._decided:
            self.env.reset(seed=0)
            self._decided = []
        self._open = True
        for level in wanted[len(self._decided) :]:
            if not self._decide(level):
                self._open = False
                return None
            self._decided.append(level)
        return self.env.measurement

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _levels(self, row: int) -> list[Level]:
        """The decisions of a row's episode, up to that row."""
        columns, count = self._run.columns, int(self._run.columns["group"][row]) + 1
        names = [name for name in ("widths", "bits", "ranks") if name in columns]
        return [Level(*levels) for levels in zip(*(columns[name][row, :count].tolist() for name in names), strict=True)]

    def _decide(self, level: Level) -> bool:
        """Take the action that leaves the next group so; False where there is none."""
        env, group = self.env, len(self._decided)
        before = env.snapshot()
        for action in self._candidates(group, level):
            env.step(action)
            plan = env.plan
            if (plan.widths[group], plan.bits[group], plan.ranks[group]) == level:
                return True
            env.restore(before)
        return False

    def _candidates(self, group: int, level: Level) -> Iterator[Any]:
        """Actions that may lead there: the nearest, and of a list all others, since a budget may have raised one of them."""
        env = self.env
        size = self._run.sizes[group]
        rate, (_, bits, rank) = (size - level.width) / size, level
        discrete = isinstance(env.action_space, gym.spaces.Discrete)
        rates = self._run.settings.get("rates")
        most = max(rates) if rates else self._run.settings.get("max_rate") or DEFAULT_MAX_RATE
        nearest = env.action_for(min(rate, most) if "rate" in env.components else 0.0, bits, rank)
        yield nearest
        if discrete:
            assert isinstance(env.action_space, gym.spaces.Discrete)
            yield from (action for action in range(int(env.action_space.n)) if action != nearest)
