"""Random search: every decision is drawn from the action space (Bergstra & Bengio, JMLR 2012)."""

from __future__ import annotations

from pathlib import Path

from agents.base import Agent, Recorder


class RandomSearch(Agent):
    """Uniform draws.

    It learns nothing from a half-finished plan, so with ``measure="round"`` every evaluation it is allowed goes to a
    complete plan: the strongest form of this baseline.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play random episodes until the evaluations are used."""
        env.action_space.seed(seed)
        env.reset(seed=seed)
        while env.remaining > 0:
            _, _, terminated, _, _ = env.step(env.action_space.sample())
            if terminated and env.remaining > 0:
                env.reset()
