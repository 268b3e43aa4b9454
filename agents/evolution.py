"""Regularised evolution over complete plans (Real, Aggarwal, Huang & Le, AAAI 2019)."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.base import Recorder, play
from agents.tuned import TunedAgent


class RegularisedEvolution(TunedAgent):
    """The best of a few drawn members has a changed child; the oldest member, not the worst, makes room for it.

    The first members are the best uniform setting and what normal steps make of it, where the paper draws them at random: random
    plans are worth less than the dense network. A child differs in one rate (or bits, or rank), by a normal step.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Evolve until the evaluations are used."""
        rng = np.random.default_rng(seed)
        size, sample, step = (self.hyperparameters[key] for key in ("population", "sample", "step"))
        env.reset(seed=seed)
        tops = env.tops
        population: collections.deque[tuple[NDArray[np.float64], float]] = collections.deque(maxlen=size)
        while env.remaining > 0:
            if len(population) < size:
                spread = self.hyperparameters["spread"] if population else 0.0
                child = env.uniform + rng.normal(0, spread * tops)
            else:
                drawn = [population[i] for i in rng.choice(size, sample, replace=False)]
                parent, _ = max(drawn, key=lambda member: member[1])
                child, index = parent.copy(), rng.integers(len(parent))
                child[index] += rng.normal(0, step * tops[index])
            child = np.clip(child, 0, tops)
            total = play(env, child.tolist())
            if total is not None:
                population.append((child, total))  # the oldest leaves at the other end
