"""Coordinate ascent over complete plans: change one rate (or bits, or rank) at a time, keep what is better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Recorder, play

STEPS = (0.2, 0.1, 0.05, 0.025)  # the sizes of a change, one after the other
KICK = 0.25  # standard deviation of the change that starts the climb anew from the best plan


class CoordinateAscent(Agent):
    """Climbs from the best uniform setting, then again from the best plan with every rate changed a little."""

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Climb until the evaluations are used."""
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        best_amounts = env.uniform
        start, best = best_amounts, -np.inf
        while env.remaining > 0:
            amounts, total = _climb(env, start, rng)
            if total > best:
                best_amounts, best = amounts, total
            start = np.clip(best_amounts + rng.normal(0, KICK, len(best_amounts)), 0, env.tops)

    @property
    def settings(self) -> dict[str, object]:
        """Step sizes and the size of a kick."""
        return {"steps": list(STEPS), "kick": KICK}


def _climb(env: Recorder, start: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    tops, amounts, total = env.tops, start, play(env, start.tolist())
    if total is None:
        return amounts, -np.inf
    for size in STEPS:
        improved = True
        while improved:
            improved = False
            for index in rng.permutation(len(amounts)):
                for change in rng.permutation([-size, size]):
                    changed = amounts.copy()
                    changed[index] = np.clip(amounts[index] + change, 0, tops[index])
                    if changed[index] == amounts[index]:
                        continue
                    value = play(env, changed.tolist())
                    if value is None:
                        return amounts, total
                    if value > total:
                        amounts, total, improved = changed, value, True
                        break
    return amounts, total
