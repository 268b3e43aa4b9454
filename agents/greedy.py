"""Greedy descent by measured sensitivity, as NetAdapt's (Yang et al., ECCV 2018): cut where it gains most or costs least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium.spaces import Discrete
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
        levels = self._levels(env)
        _descend(env, levels, patience, 1.0, rng)
        while env.remaining > 0:
            _descend(env, levels, patience, share, rng)

    def _levels(self, env: Recorder) -> list[NDArray[np.float64]]:
        """What each amount can be, from leaving a group alone to the most: listed rates are these and no others."""
        if isinstance(env.action_space, Discrete):
            return [np.array([0.0, *(request.rate for request in env.inner.uniform_sweep)])] * env.decisions
        each = [len(BITS) - 1 if name == "bits" else self.hyperparameters["steps"] for name in env.inner.components]
        steps = np.tile(each, env.decisions)
        return [np.arange(count + 1) * (top / count) for top, count in zip(env.tops, steps, strict=True)]


def _descend(env: Recorder, levels: Sequence[NDArray[np.float64]], patience: int, share: float, rng: np.random.Generator) -> None:
    """One descent, which ends too when the evaluations are used."""
    steps = np.array([len(each) - 1 for each in levels])
    taken = np.zeros(len(steps), int)
    best, since = -np.inf, 0
    while since < patience and (taken < steps).any():
        candidates, open_ones = [], rng.permutation(np.flatnonzero(taken < steps))
        for index in open_ones[: math.ceil(share * len(open_ones))]:
            deeper = taken.copy()
            deeper[index] += 1
            amounts = [float(each[at]) for each, at in zip(levels, deeper, strict=True)]
            total = play(env, amounts) if env.remaining > 0 else None
            if total is None:
                return
            candidates.append((total, deeper))
        value, taken = max(candidates, key=lambda candidate: candidate[0])
        best, since = (value, 0) if value > best else (best, since + 1)
