"""Stable-Baselines3's algorithms behind the agents' interface."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise

from agents.base import Agent, Recorder

HYPERPARAMETERS = Path(__file__).parent / "hyperparameters"


class SB3Agent(Agent):
    """One of PPO, A2C, SAC, TD3, DDPG and DQN, with the hyperparameters of ``hyperparameters/NAME.yaml``.

    It trains on all evaluations but one episode's; that last episode is played by the trained policy without exploration
    and is recorded as every other. With fewer than two episodes' evaluations there is no such episode.

    Args:
        name: the algorithm, in lower case.
        hyperparameters: used instead of the file's.
    """

    def __init__(self, name: str, hyperparameters: dict[str, Any] | None = None) -> None:
        super().__init__(name)
        self._algorithm: type[BaseAlgorithm] = getattr(stable_baselines3, name.upper())
        text = (HYPERPARAMETERS / f"{name}.yaml").read_text(encoding="utf-8")
        self._hyperparameters: dict[str, Any] = yaml.safe_load(text) if hyperparameters is None else hyperparameters

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters."""
        return copy.deepcopy(self._hyperparameters)

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Train, then play the policy once; with `out`, keep TensorBoard logs and the trained model there."""
        arguments = self.settings
        noise = arguments.pop("action_noise", None)
        if noise is not None:
            assert env.action_space.shape is not None
            arguments["action_noise"] = NormalActionNoise(np.zeros(env.action_space.shape), np.full(env.action_space.shape, noise))
        model = self._algorithm(env=env, seed=seed, device="cpu", verbose=0, **arguments)
        # A logger of its own, also without a folder: the default one may print.
        folder = str(out / "tensorboard" / f"{self.name}-training") if out is not None else None
        model.set_logger(configure(folder, ["tensorboard"] if folder is not None else []))
        last = env.evaluations_per_episode
        reserved = last if env.remaining >= 2 * last else 0
        steps = (env.remaining - reserved) * (env.decisions // last)
        try:
            model.learn(steps, callback=_Stop(env, reserved), log_interval=1)
        finally:
            # Also after Ctrl-C: what was learnt is worth as much as what was found.
            if out is not None:
                model.save(out / f"{self.name}.zip")
            model.logger.close()
        if reserved:
            _play_policy(env, model)


class _Stop(BaseCallback):
    """Ends the training when only the reserved evaluations are left, also in the middle of a rollout."""

    def __init__(self, env: Recorder, reserved: int) -> None:
        super().__init__()
        self._env, self._reserved = env, reserved

    def _on_step(self) -> bool:
        return self._env.remaining > self._reserved


def _play_policy(env: Recorder, model: BaseAlgorithm) -> None:
    observation, _ = env.reset()
    terminated, total = False, 0.0
    while not terminated:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, _, _ = env.step(action)
        total += float(reward)
    env.report_policy(total)
