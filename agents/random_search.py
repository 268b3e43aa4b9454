"""Random search: every decision is drawn uniformly (Bergstra & Bengio, JMLR 2012)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agents.base import Agent, Recorder, play
from agents.costs import PlanCosts


class RandomSearch(Agent):
    """Uniform draws; under a budget they are made milder or deeper, all alike, so that the cost ends just under the cap.

    It learns nothing from a half-finished plan, so with ``measure="round"`` every evaluation it is allowed goes to a
    complete plan: the strongest form of this baseline. Without the scaling, random plans would leave much of a budget unused, and
    whatever beats them would have beaten the unused budget alone.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play random episodes until the evaluations are used."""
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        costs, tops = PlanCosts(env), env.tops
        while env.remaining > 0:
            play(env, costs.filled(rng.uniform(0, tops)).tolist())
