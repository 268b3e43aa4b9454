"""CMA-ES over complete plans (Hansen & Ostermeier, Evolutionary Computation 2001), restarted with a doubled population."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cma
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Recorder, play

SIGMA = 0.2


class CmaEs(Agent):
    """The first start is the best uniform setting, every later one a random plan (IPOP: Auger & Hansen, CEC 2005)."""

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Evolve until the evaluations are used."""
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        start, scale = env.uniform, 1
        while env.remaining > 0:
            _evolve(env, start, scale, rng)
            start, scale = rng.uniform(0, env.tops), 2 * scale

    @property
    def settings(self) -> dict[str, Any]:
        """The first step size."""
        return {"sigma": SIGMA}


def _evolve(env: Recorder, start: NDArray[np.float64], scale: int, rng: np.random.Generator) -> None:
    # A network with one group has one decision, and CMA-ES needs two dimensions: the second then goes unused.
    padded = np.append(start, start) if len(start) == 1 else start
    tops = env.tops
    options = {
        "bounds": [0, [*tops, *tops][: len(padded)]],
        "popsize": (4 + int(3 * np.log(len(padded)))) * scale,
        # Its own generator: left alone, cma seeds numpy's global one.
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,
        "verbose": -9,
        "verb_log": 0,
    }
    strategy = cma.CMAEvolutionStrategy(padded, SIGMA, options)
    while not strategy.stop():
        candidates, losses = strategy.ask(), []
        for candidate in candidates:
            total = play(env, np.clip(candidate[: len(start)], 0, tops).tolist())
            if total is None:
                return
            losses.append(-total)
        strategy.tell(candidates, losses)
