"""Stable-Baselines3's own vectors of environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

import reptile_env  # noqa: F401 (registers the ids)


class Maker:
    """Makes an environment in whatever process it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> gym.Env[Any, Any]:
        return gym.make("reptile_env:ReptilePrune-v0", task="digits-mlp", num_threads=1, disk_cache=self.folder)


def played(envs: VecEnv, steps: int = 8) -> list[Any]:
    """What a vector shows; `DummyVecEnv` rounds rewards to float32."""
    envs.seed(0)
    rng, seen = np.random.default_rng(0), [envs.reset()]
    for _ in range(steps):
        observations, rewards, dones, infos = envs.step(rng.uniform(-1, 1, (2, 1)).astype(np.float32))
        seen += [observations, np.asarray(rewards, np.float32), dones, [info["loss"] for info in infos]]
    envs.close()
    return seen


@pytest.mark.slow
def test_processes_and_one_process_play_alike(tmp_path: Path) -> None:
    makers = [Maker(tmp_path), Maker(tmp_path)]
    one, two = played(DummyVecEnv(makers)), played(SubprocVecEnv(makers, start_method="spawn"))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
