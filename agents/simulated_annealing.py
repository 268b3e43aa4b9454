"""Simulated annealing over complete plans (Kirkpatrick, Gelatt & Vecchi, Science 1983)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agents.base import Recorder, play
from agents.tuned import TunedAgent


class SimulatedAnnealing(TunedAgent):
    """Walks from the best uniform setting; a worse plan is accepted the more rarely the cooler it is.

    The temperature, in units of the return, falls geometrically over the evaluations. A neighbour differs in one rate (or bits,
    or rank), by a normal step.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Cool down until the evaluations are used."""
        rng = np.random.default_rng(seed)
        hottest, coolest = self.hyperparameters["hottest"], self.hyperparameters["coolest"]
        env.reset(seed=seed)
        allowed, tops = env.remaining, env.tops
        amounts, value = env.uniform, play(env, env.uniform.tolist())
        while env.remaining > 0 and value is not None:
            temperature = hottest * (coolest / hottest) ** (1 - env.remaining / allowed)
            changed, index = amounts.copy(), rng.integers(len(amounts))
            changed[index] = np.clip(amounts[index] + rng.normal(0, self.hyperparameters["step"] * tops[index]), 0, tops[index])
            total = play(env, changed.tolist())
            if total is not None and (total >= value or rng.random() < np.exp((total - value) / temperature)):
                amounts, value = changed, total
