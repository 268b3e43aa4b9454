"""The environment of many networks: agents train on some and are scored on others."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import unknown
from reptile_env.tasks.registry import task_spec, tasks

SUITE, SPLITS = "transfer", ("train", "test")


class ReptilePruneTransferEnv(ReptilePruneEnv):
    """`ReptilePruneEnv` on a family of networks, one of which is drawn at each reset.

    ## Description
    The transfer family has 64 small trained networks of eight kinds (`reptile_env.tasks()` lists them, suite ``transfer``): 48
    to train agents on and 16, two of each kind, to score them on. A policy that was trained on some networks compresses others
    that it has never met, without a search of its own.

    ## Action Space
    As ``ReptilePrune-v0``.

    ## Observation Space
    ``"group"``, of the same length for every network: 23 numbers about the group to decide on.

    ## Rewards
    As ``ReptilePrune-v0``, on the scale of each network: 0 is the dense network, 1 its best uniform rate.

    ## Starting State
    A dense network of the split, drawn uniformly; ``options={"task": name}`` names it. ``info["task"]`` says which it is and
    ``info["split"]`` to which part it belongs. A network is made at the first reset that draws it, which takes a moment.

    ## Episode End
    Terminated after the last group of the last round, which comes sooner for some networks than for others. Never truncated.

    ## Arguments
    Those of `ReptilePruneEnv` and the ones below. ``cache_bytes`` is what all networks share.

    ## Version History
    v0: first.

    Args:
        split: ``"train"`` or ``"test"``.
        task: a name or a list of names, to draw from these networks of the split alone; default all of the family.
        observation: see `ReptilePruneEnv`.
        **settings: of `ReptilePruneEnv`.

    Raises:
        ValueError: an unknown split, a network of the other split, or what `ReptilePruneEnv` refuses.
    """

    def __init__(self, split: str = "train", *, task: Any = None, observation: str = "group", **settings: Any) -> None:
        self.split = _checked(split)
        super().__init__(_members(split, task), observation=observation, **settings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode on one of the networks; see `ReptilePruneEnv.reset`."""
        observation, info = super().reset(seed=seed, options=options)
        return observation, info | {"split": self.split}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Carry out one decision for the current group."""
        observation, reward, terminated, truncated, info = super().step(action)
        info["split"] = self.split
        return observation, reward, terminated, truncated, info


def make_vector(
    num_envs: int = 1, *, autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any
) -> SyncVectorEnv:
    """What ``gym.make_vec`` gives: environments that share the networks, one after the other.

    Args:
        num_envs: how many environments.
        autoreset_mode: how episodes start anew.
        **kwargs: of `ReptilePruneTransferEnv`, and ``max_episode_steps`` and ``disable_env_checker`` as ``gym.make`` takes them.
    """
    return SyncVectorEnv([lambda: gym.make("ReptilePruneTransfer-v0", **kwargs)] * num_envs, autoreset_mode=autoreset_mode)


def _checked(split: Any) -> str:
    if not isinstance(split, str) or split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return split


def _members(split: str, task: Any) -> list[Any]:
    """What episodes are played on: all of the split, or those that are asked for."""
    if task is None:
        return [row["name"] for row in tasks() if row["suite"] == SUITE and row["split"] == split]
    asked = list(task) if isinstance(task, (list, tuple)) else [task]
    for name in asked:
        if isinstance(name, str) and (there := task_spec(name).split) != split:
            raise ValueError(f"task {name!r} is one of split {there!r}; make the environment with split={there!r}")
    return asked
