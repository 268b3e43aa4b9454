"""Greedy descent by measured sensitivity, as NetAdapt's (Yang et al., ECCV 2018): cut where it gains most or costs least."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.base import Recorder, play
from agents.tuned import TunedAgent
from reptile_env.actions import BITS


class Greedy(TunedAgent):
    """From the dense network, cuts one group a step further at a time: every group is tried, the best result is kept.

    It goes on where no step gains, since a later one may, until a number of steps brought nothing better. Later descents try only
    some of the groups, drawn anew at each step (stochastic greedy: Mirzasoleiman et al., AAAI 2015), so that they end elsewhere.
    Bits and ranks, where they are decided on, are lowered in the same way, bits one by one.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Descend until the evaluations are used."""
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        patience, share = self.hyperparameters["patience"], self.hyperparameters["share"]
        each = [len(BITS) - 1 if name == "bits" else self.hyperparameters["steps"] for name in env.inner.components]
        steps = np.tile(each, env.decisions)
        _descend(env, steps, patience, 1.0, rng)
        while env.remaining > 0:
            _descend(env, steps, patience, share, rng)


def _descend(env: Recorder, steps: NDArray[np.int64], patience: int, share: float, rng: np.random.Generator) -> None:
    """One descent, which ends too when the evaluations are used."""
    taken, step = np.zeros(len(env.tops), int), env.tops / steps
    best, since = -np.inf, 0
    while since < patience and (taken < steps).any():
        candidates, open_ones = [], rng.permutation(np.flatnonzero(taken < steps))
        for index in open_ones[: math.ceil(share * len(open_ones))]:
            deeper = taken.copy()
            deeper[index] += 1
            total = play(env, (deeper * step).tolist()) if env.remaining > 0 else None
            if total is None:
                return
            candidates.append((total, deeper))
        value, taken = max(candidates, key=lambda candidate: candidate[0])
        best, since = (value, 0) if value > best else (best, since + 1)
