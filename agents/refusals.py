"""What an agent refuses, found out before anything is written."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from agents.arguments import Options
from agents.cli import BadArgumentError
from agents.registry import make_agent


class _FirstDecisionError(Exception):
    """The agent has begun: it refuses nothing."""


class _Unplayed(gym.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
        raise _FirstDecisionError


def refuse_early(name: str, env: gym.Env[Any, Any], options: Options) -> None:
    """Let an agent begin, up to its first decision: agents say themselves which environments and settings they can't run with.

    Nothing is evaluated or written, and the run proper is not changed by it, since that seeds everything anew.

    Args:
        name: of the agent.
        env: made by `agents.arguments.make_env`.
        options: its steps, seed and hyperparameters are used.

    Raises:
        BadArgumentError: what the agent, or the library behind it, refuses.
    """
    try:
        agent = make_agent(name, options.hyperparameters)
    except (TypeError, ValueError) as error:
        raise BadArgumentError(f"--hyperparameters: {error}") from error
    try:
        agent.run(_Unplayed(env), options.steps, options.seed)
    except _FirstDecisionError:
        pass
    except (AssertionError, TypeError, ValueError) as error:  # Stable-Baselines3 asserts what it is given
        raise BadArgumentError(f"{name}: {error}") from error
