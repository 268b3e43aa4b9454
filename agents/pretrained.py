"""A policy that was trained on many networks and prunes one that it never met, in a single pass and without a search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from agents.base import Agent, Recorder, play
from agents.costs import PlanCosts
from agents.policy import Policy, play_policy
from reptile_env.observations import GROUP_FEATURES, KINDS, group_features

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

SHIPPED = Path(__file__).parent / "policies" / "pretrained.safetensors"
_FORMAT = "reptile_env policy 1"
_BUDGET_LEFT = len(KINDS) + GROUP_FEATURES.index("budget left")


class GroupPolicy(Policy):
    """A small fully connected network from observation ``"group"`` to an action, in numpy.

    Args:
        layers: of each its weights ``(outputs, inputs)`` and biases ``(outputs,)``, float32; tanh between them.
        about: what is known of its training: ``command``, ``networks``, ``features`` and the like.
    """

    def __init__(self, layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], about: dict[str, Any]) -> None:
        self.layers, self.about = tuple(layers), about

    def act(self, observation: NDArray[np.float32], env: gym.Env[Any, Any]) -> NDArray[np.float32]:
        """The action, ``(1,)`` float32 in [-1, 1]."""
        values = np.asarray(observation, np.float32)
        for number, (weights, biases) in enumerate(self.layers, 1):
            values = weights @ values + biases
            if number < len(self.layers):
                values = np.tanh(values)
        return np.clip(values, -1, 1).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the policy as safetensors; what is known of its training stands in the head."""
        tensors: dict[str, NDArray[np.float32]] = {}
        for number, (weights, biases) in enumerate(self.layers):
            tensors |= {f"{number}.weight": np.ascontiguousarray(weights), f"{number}.bias": np.ascontiguousarray(biases)}
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(save(tensors, {"format": _FORMAT, "about": json.dumps(self.about)}))
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> GroupPolicy:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or not one of these.
        """
        try:
            with safe_open(path, "np") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"policy {path} can't be read: {error}") from error
        if head.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no policy of this package; `python -m agents pretrain` writes one")
        layers = [(tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in range(len(tensors) // 2)]
        return cls(layers, json.loads(head["about"]))


def exported(model: BaseAlgorithm, about: dict[str, Any]) -> GroupPolicy:
    """The deterministic policy of a Stable-Baselines3 PPO or A2C model with tanh layers, without the library.

    Raises:
        ValueError: a model of another kind.
    """
    import torch
    from stable_baselines3.common.policies import ActorCriticPolicy

    policy = model.policy
    if not isinstance(policy, ActorCriticPolicy) or not isinstance(model.action_space, gym.spaces.Box):
        raise ValueError(f"{type(model).__name__} can't be exported; train ppo-group, or another actor-critic of numbers")
    parts = [*policy.mlp_extractor.policy_net, policy.action_net]
    linear = [part for part in parts if isinstance(part, torch.nn.Linear)]
    if not all(isinstance(part, (torch.nn.Linear, torch.nn.Tanh)) for part in parts):
        raise ValueError("policies of other activations than tanh can't be exported; leave activation_fn at its default")
    layers = [(part.weight.detach().numpy().copy(), part.bias.detach().numpy().copy()) for part in linear]
    return GroupPolicy(layers, about)


class Pretrained(Agent):
    """Plays a trained policy once, without exploration: one plan is measured, and nothing is learnt from it.

    The policy sees observation ``"group"`` alone: what the layers look like, and how much the calibration loss rises when a group
    is halved. It was trained without a budget, so it is shown none: where a cap asks for more than it cuts by itself, all its rates
    are raised by the same, instead of the last ones alone, which the environment's wall would raise.

    Args:
        name: of the agent.
        path: of the policy; default the shipped one.
    """

    def __init__(self, name: str, path: Path = SHIPPED) -> None:
        super().__init__(name)
        self._path = path
        self._policy = GroupPolicy.load(path)

    @property
    def settings(self) -> dict[str, Any]:
        """What is known of the policy's training."""
        return dict(self._policy.about)

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that the policy was trained on."""
        return tuple(self._policy.about["networks"])

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play once.

        Raises:
            ValueError: the environment's observations are not those that the policy was trained on.
        """
        expected, shape = self._policy.layers[0][0].shape[1], env.observation_space.shape
        if shape != (expected,) or env.inner.components != ("rate",):
            raise ValueError(
                f"the policy reads observation='group' of {expected} numbers ({', '.join(group_features(('rate',)))}) and chooses "
                f"a rate; this environment's observations have shape {shape} and its decisions are about "
                f"{', '.join(env.inner.components)}"
            )
        if env.remaining < env.evaluations_per_episode:
            raise ValueError(f"one pass evaluates {env.evaluations_per_episode} plans; {env.remaining} are allowed")
        costs = PlanCosts(env)
        if costs.budget is None or env.evaluations_per_episode > 1:  # then its metric on the way is part of what it sees
            env.report_policy(play_policy(env, self._policy)[0])
            return
        returned = play(env, costs.raised(self._asked(env)).tolist())
        assert returned is not None
        env.report_policy(returned)

    def _asked(self, env: Recorder) -> NDArray[np.float64]:
        """The rates ``(decisions,)`` that the policy asks for where it is shown no budget. Nothing is measured.

        The wall works on the way, so under a tight cap what it sees of the cost is what the cap leaves.
        """
        observation, _ = env.inner.reset()
        actions: list[NDArray[np.float32]] = []
        while True:
            observation[_BUDGET_LEFT] = 0
            actions.append(self._policy.act(observation, env))
            if len(actions) == env.decisions:
                return env.tops * (np.concatenate(actions) + 1) / 2
            observation, *_ = env.inner.step(actions[-1])
