"""The algorithms of Stable-Baselines3 and sb3-contrib behind the agents' interface."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.noise import NormalActionNoise

from agents.base import Recorder
from agents.checkpoints import Checkpoints
from agents.policy import Allowance, AllowanceSpentError, Policy, play_policy, reserved
from agents.tuned import TunedAgent
from reptile_env.tasks.splits import own_generators

# The algorithm of each agent; the agents' papers stand in the registry's summaries and in the hyperparameter files.
ALGORITHMS = {
    "a2c": "stable_baselines3:A2C",
    "ars": "sb3_contrib:ARS",
    "crossq": "sb3_contrib:CrossQ",
    "ddpg": "stable_baselines3:DDPG",
    "dqn": "stable_baselines3:DQN",
    "maskable-ppo": "sb3_contrib:MaskablePPO",
    "ppo": "stable_baselines3:PPO",
    "ppo-group": "stable_baselines3:PPO",
    "purl": "stable_baselines3:DQN",
    "qr-dqn": "sb3_contrib:QRDQN",
    "recurrent-ppo": "sb3_contrib:RecurrentPPO",
    "sac": "stable_baselines3:SAC",
    "td3": "stable_baselines3:TD3",
    "tqc": "sb3_contrib:TQC",
    "trpo": "sb3_contrib:TRPO",
}
# What the adapter itself gives an algorithm.
_OURS = {"self", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"}


class SB3Agent(TunedAgent):
    """One of the algorithms, with the hyperparameters of ``hyperparameters/NAME.yaml``.

    These are arguments of the algorithm's constructor, but for ``action_noise``: the standard deviation of normal noise.

    It trains on all evaluations but one episode's; that last episode is played by the trained policy without exploration
    and is recorded as every other. With fewer than two episodes' evaluations there is no such episode. With a folder it keeps the
    model there, also after every tenth of the evaluations, and TensorBoard logs of the training.

    Args:
        name: of the agent.
        hyperparameters: used instead of the file's, or of the library's defaults.

    Raises:
        TypeError: see `TunedAgent`.
        ValueError: a hyperparameter that the algorithm does not have, or out of bounds.
    """

    def __init__(self, name: str, hyperparameters: Mapping[str, Any] | None = None) -> None:
        module, cls = ALGORITHMS[name].split(":")
        self._algorithm: type[BaseAlgorithm] = getattr(importlib.import_module(module), cls)
        super().__init__(name, hyperparameters)

    def _takes(self) -> list[str]:
        """The arguments of the algorithm's constructor: the file holds those that are not left at the library's defaults."""
        return [key for key in inspect.signature(self._algorithm.__init__).parameters if key not in _OURS]

    @property
    def policy_file(self) -> str:
        """The saved model."""
        return f"{self.name}.zip"

    def load_policy(self, path: Path) -> Policy:
        """The policy of a saved model."""
        return SB3Policy(self._algorithm.load(path, device="cpu"))

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Train, then play the policy once."""
        # The libraries seed the global generators and draw from them.
        with own_generators(seed):
            self._search(env, seed, out)

    def _search(self, env: Recorder, seed: int, out: Path | None) -> None:
        left = reserved(env)
        steps = (env.remaining - left) * (env.decisions // env.evaluations_per_episode)
        model = self._make(Allowance(env, left), seed)
        # A logger of its own, also without a folder: the default one prints, and leaves folders behind.
        logs = None if out is None else out / "tensorboard" / f"{self.name}-training"
        formats: list[KVWriter] = [] if logs is None else [TensorBoardOutputFormat(str(logs))]
        model.set_logger(Logger(None, formats))
        try:
            model.learn(steps, callback=_Saving(Checkpoints(env, out, self.policy_file)), log_interval=1)
        except AllowanceSpentError:
            pass  # as it should be where rollouts don't divide the evaluations
        finally:
            # Also after Ctrl-C: what was learnt is worth as much as what was found.
            if out is not None:
                model.save(out / self.policy_file)
            model.logger.close()
        if left:
            env.report_policy(play_policy(env, SB3Policy(model))[0])

    def _make(self, env: gym.Env[Any, Any], seed: int) -> BaseAlgorithm:
        arguments = self.settings
        noise = arguments.pop("action_noise", None)
        if noise is not None:
            shape = env.action_space.shape
            assert shape is not None
            arguments["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, noise))
        return self._algorithm(env=env, seed=seed, device="cpu", verbose=0, **arguments)


class SB3Policy(Policy):
    """The policy of a model.

    Args:
        model: any of Stable-Baselines3's or sb3-contrib's.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self._model = model
        self._masked = "action_masks" in inspect.signature(model.predict).parameters
        self.start()

    def start(self) -> None:
        """Forget the episode before: recurrent policies carry a state."""
        self._state: Any = None
        self._starting = np.ones(1, bool)

    def act(self, observation: NDArray[np.float32], env: gym.Env[Any, Any]) -> Any:
        """The action."""
        masks = {"action_masks": env.get_wrapper_attr("action_masks")()} if self._masked else {}
        action, self._state = self._model.predict(
            observation, state=self._state, episode_start=self._starting, deterministic=True, **masks
        )
        self._starting = np.zeros(1, bool)
        return action


class _Saving(BaseCallback):
    """Saves the model when a checkpoint is due."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self._checkpoints = checkpoints

    def _on_step(self) -> bool:
        path = self._checkpoints.due()
        if path is not None:
            self.model.save(path)
        return True
