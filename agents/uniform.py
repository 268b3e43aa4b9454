"""The uniform sweep: the same rate for every group."""

from __future__ import annotations

from pathlib import Path

from agents.base import Agent, Recorder, play


class Uniform(Agent):
    """Multiples of 0.05 up to the largest rate, then it is done; the best of them returns 1 by definition."""

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play one episode a rate."""
        env.reset(seed=seed)
        for request in env.inner.uniform_sweep:
            if env.remaining > 0:
                play(env, [request] * env.decisions)
