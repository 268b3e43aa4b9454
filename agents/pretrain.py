"""``python -m agents pretrain``: trains the policy of agent ``pretrained`` on the training networks of the transfer family."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import reptile_env
from agents.outputs import make_folder, versions, write_json
from agents.policy import play_policy
from agents.pretrained import GroupPolicy, exported
from reptile_env.errors import unknown
from reptile_env.tasks.splits import own_generators
from reptile_env.transfer import SUITE

ID, FILE = "ReptilePruneTransfer-v0", "pretrained.safetensors"
PARTS = 10  # of the training, after each of which the policy is played on all its networks and saved
ENVS, CACHE_BYTES = 8, 2 << 30


class Squashed(gym.RewardWrapper[Any, Any]):
    """Returns below -1 enter as their logarithm: a network cut to pieces returns -40 and would drown all others."""

    def reward(self, reward: Any) -> float:
        """The reward, unchanged from -1 on."""
        value = float(reward)
        return value if value > -1 else -1 - math.log(-value)


def training_networks() -> list[str]:
    """Names of the networks that policies may be trained on."""
    return [row["name"] for row in reptile_env.tasks() if row["suite"] == SUITE and row["split"] == "train"]


def pretrain(steps: int, seed: int, out: Path, networks: list[str] | None = None) -> GroupPolicy:
    """Train a policy by PPO and keep it in `out`; nothing of a network is observed but what it is made of.

    Args:
        steps: decisions; a plan is measured at the end of each episode, which has one a group.
        seed: of everything that is drawn.
        out: a new folder for the policy and ``run.json``.
        networks: to train on, of the family's training split; default all of it.

    Returns:
        The policy.

    Raises:
        ValueError: a network that is none of the training split's.
    """
    known = training_networks()
    for name in networks or ():
        if name not in known:
            raise unknown("network of the training split", name, known)
    names = networks or known
    make_folder(out)
    about = {
        "command": f"python -m agents pretrain --steps {steps} --seed {seed}" + "".join(f" --network {n}" for n in networks or ()),
        "networks": names,
        "steps": steps,
        "versions": versions(),
    }
    write_json(out / "run.json", about)
    with own_generators(seed):
        return _trained(names, steps, seed, out, about)


def played(policy: GroupPolicy, names: list[str], split: str) -> dict[str, float]:
    """The return of one pass over each network."""
    env = gym.make(ID, split=split, task=names, measure="round", cache_bytes=CACHE_BYTES)
    return {name: play_policy(env, policy, options={"task": name})[0] for name in names}


def _trained(names: list[str], steps: int, seed: int, out: Path, about: dict[str, Any]) -> GroupPolicy:
    torch.set_num_threads(1)

    def make() -> gym.Env[Any, Any]:
        return Squashed(gym.make(ID, task=names, measure="round", cache_bytes=CACHE_BYTES))

    # The scale of returns differs from network to network, and PPO's losses depend on it.
    envs = VecNormalize(DummyVecEnv([make] * ENVS), norm_obs=False, clip_reward=5.0, gamma=1.0)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=256,
        batch_size=256,
        n_epochs=6,
        gamma=1.0,
        gae_lambda=0.97,
        learning_rate=lambda left: 1e-3 * left + 1e-5,
        policy_kwargs={"net_arch": [64, 64], "log_std_init": -0.7},
        seed=seed,
        device="cpu",
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        model.learn(steps, callback=_Progress(steps, names, out / FILE, about, progress))
    policy = exported(model, about)
    policy.save(out / FILE)
    return policy


class _Progress(BaseCallback):
    """Shows and saves the policy after each part of its training."""

    def __init__(self, steps: int, names: list[str], path: Path, about: dict[str, Any], progress: Progress) -> None:
        super().__init__()
        self._steps, self._names, self._path, self._about = steps, names, path, about
        self._part = 0
        self._progress, self._bar = progress, progress.add_task("training", total=steps)

    def _on_step(self) -> bool:
        self._progress.update(self._bar, completed=min(self.num_timesteps, self._steps))
        return True

    def _on_rollout_end(self) -> None:
        part = self.num_timesteps * PARTS // self._steps
        if part <= self._part:
            return
        self._part = part
        policy = exported(self.model, self._about)
        policy.save(self._path)
        returns = list(played(policy, self._names, "train").values())
        self._progress.update(self._bar, description=f"return {np.mean(returns):.3f} on its own networks")
