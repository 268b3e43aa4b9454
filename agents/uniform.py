"""The uniform sweep: the same for every group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.base import Agent, Recorder


class Uniform(Agent):
    """What the environment's scale was found with, then it is done; the best of it returns 1 by definition.

    Rates are multiples of 0.05 up to the largest; with bits and ranks to decide on, a small grid of all three.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play one episode a setting."""
        env.reset(seed=seed)
        for request in env.inner.uniform_sweep:
            if env.remaining > 0:
                _play(env, env.inner.action_for(*request))


def _play(env: Recorder, action: Any) -> None:
    env.reset()
    for _ in range(env.decisions):
        if env.remaining > 0:
            env.step(action)
