"""Wrappers for libraries that need an environment a little otherwise."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class WithoutPlan(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose infos lack the plan; ``env.unwrapped.plan`` still has it.

    A plan lists kept channels, now more and now fewer. Libraries that keep infos in arrays of one shape can't hold that: Tianshou's
    replay buffers do so.

    Args:
        env: any of this package's.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = super().reset(seed=seed, options=options)
        return observation, _without_plan(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Carry out one decision."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, _without_plan(info)


def _without_plan(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name != "plan"}
