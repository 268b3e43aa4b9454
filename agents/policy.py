"""Trained policies: how they are asked, and the one episode that each run ends with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agents.base import Recorder


class Policy(ABC):
    """What a training leaves: an action for every observation, without exploration."""

    def start(self) -> None:  # noqa: B027 (few policies remember anything)
        """Forget the episode before."""

    @abstractmethod
    def act(self, observation: NDArray[np.float32], env: gym.Env[Any, Any]) -> Any:
        """The action.

        Args:
            observation: where the episode stands.
            env: the environment, for what is no observation, such as its action masks.
        """


def reserved(env: Recorder) -> int:
    """How many of the evaluations that are left the policy's own episode needs; 0 where there are fewer than two episodes'."""
    last = env.evaluations_per_episode
    return last if env.remaining >= 2 * last else 0


def play_policy(env: gym.Env[Any, Any], policy: Policy, **reset: Any) -> tuple[float, dict[str, Any]]:
    """Play one episode: the sum of its rewards and its last info.

    Args:
        env: the environment.
        policy: asked at each step.
        **reset: arguments of the environment's reset.
    """
    observation, info = env.reset(**reset)
    policy.start()
    total, terminated = 0.0, False
    while not terminated:
        observation, reward, terminated, _, info = env.step(policy.act(observation, env))
        total += float(reward)
    return total, info


class AllowanceSpentError(Exception):
    """Only the evaluations that the policy's own episode needs are left."""


class Allowance(gym.Wrapper[Any, Any, Any, Any]):
    """Ends a training when its evaluations are used, wherever the library that trains stands: also in the middle of a rollout.

    Args:
        env: the recorder.
        reserved: evaluations to leave.
    """

    def __init__(self, env: Recorder, reserved: int) -> None:
        super().__init__(env)
        self._recorder, self._reserved = env, reserved

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Carry out one decision.

        Raises:
            AllowanceSpentError: there is none left for it.
        """
        if self._recorder.remaining <= self._reserved:
            raise AllowanceSpentError
        return super().step(action)
