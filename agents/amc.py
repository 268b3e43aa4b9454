"""AMC, AutoML for Model Compression (He et al., ECCV 2018): DDPG that sets the rate of one layer after the other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.stats import truncnorm
from torch import Tensor, nn

from agents.base import Recorder
from agents.checkpoints import Checkpoints
from agents.policy import Policy, play_policy, reserved
from agents.tuned import TunedAgent

Floats = NDArray[np.float32]
SMALLEST_NOISE = 1e-6  # far below what moves one channel


class Actor(nn.Module):
    """From a layer's description to what is done to it, each number in (0, 1).

    Args:
        observations: numbers of an observation.
        actions: numbers of an action.
        hidden: units of the two hidden layers.
    """

    def __init__(self, observations: int, actions: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        first, second = hidden
        layers = [nn.Linear(observations, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, actions)]
        self.layers = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, observations: Tensor) -> Tensor:
        """``(n, observations)`` to ``(n, actions)``."""
        out: Tensor = self.layers(observations)
        return out


class Critic(nn.Module):
    """The value of an action; arguments as of the actor."""

    def __init__(self, observations: int, actions: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        first, second = hidden
        self.observed, self.done = nn.Linear(observations, first), nn.Linear(actions, first)
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``(n, observations)`` and ``(n, actions)`` to ``(n, 1)``."""
        out: Tensor = self.layers(self.observed(observations) + self.done(actions))
        return out


class Step(NamedTuple):
    """One decision as it is kept; `reward` is that of the whole episode."""

    observation: Floats
    action: Floats
    reward: float
    after: Floats
    ended: bool


class Ddpg:
    """Actor, critic, their slow copies and the memory that they learn from (Lillicrap et al., ICLR 2016).

    Args:
        observations: numbers of an observation.
        actions: numbers of an action.
        decisions: of an episode.
        settings: of ``hyperparameters/amc.yaml``.
        seed: of weights and batches.
    """

    def __init__(self, observations: int, actions: int, decisions: int, settings: dict[str, Any], seed: int) -> None:
        self._settings, self._rng = settings, np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(observations, actions, tuple(settings["hidden"]))
            self.critic = Critic(observations, actions, tuple(settings["hidden"]))
        self._slow_actor, self._slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self._actor_steps = torch.optim.Adam(self.actor.parameters(), settings["actor_learning_rate"])
        self._critic_steps = torch.optim.Adam(self.critic.parameters(), settings["critic_learning_rate"])
        self._memory: list[Step] = []
        self._limit = settings["memory_episodes"] * decisions
        self._kept = 0
        self._baseline: float | None = None

    def keep(self, step: Step) -> None:
        """Remember a decision; beyond the limit the oldest is forgotten."""
        if len(self._memory) < self._limit:
            self._memory.append(step)
        else:
            self._memory[self._kept % self._limit] = step
        self._kept += 1

    def learn(self) -> None:
        """One update on a batch drawn from memory, of whose rewards the moving average is subtracted."""
        settings = self._settings
        size = settings["batch_size"]
        drawn = self._rng.choice(len(self._memory), size, replace=len(self._memory) < size)
        observed, action, reward, after, ended = map(np.asarray, zip(*(self._memory[i] for i in drawn), strict=True))
        mean = float(reward.mean())
        old = mean if self._baseline is None else self._baseline
        self._baseline = old + settings["baseline_rate"] * (mean - old)
        states, actions, following = (torch.as_tensor(values, dtype=torch.float32) for values in (observed, action, after))
        gains, goes_on = (torch.as_tensor(v, dtype=torch.float32)[:, None] for v in (reward - self._baseline, ~ended))
        with torch.no_grad():
            target = gains + settings["discount"] * goes_on * self._slow_critic(following, self._slow_actor(following))
        _descend(self._critic_steps, nn.functional.mse_loss(self.critic(states, actions), target))
        _descend(self._actor_steps, -self.critic(states, self.actor(states)).mean())
        for slow, quick in ((self._slow_actor, self.actor), (self._slow_critic, self.critic)):
            for old_values, values in zip(slow.parameters(), quick.parameters(), strict=True):
                old_values.data.lerp_(values.data, settings["target_rate"])


def _descend(steps: torch.optim.Optimizer, loss: Tensor) -> None:
    steps.zero_grad()
    loss.backward()
    steps.step()


class Amc(TunedAgent):
    """Warm-up episodes at random, then the actor's actions with truncated normal noise that decays from episode to episode.

    All decisions of an episode get the same reward, the episode's, so plans are evaluated once an episode; a moving average of it
    is subtracted as a baseline. The budget wall of the paper's algorithm 1 is the environment's (``budget=``), its state the
    observation ``group``. By default it maximises the benchmark's reward, as every agent; the paper's own are
    ``--reward accuracy`` with a budget, ``--reward amc_macs`` and ``--reward amc_params`` without.
    """

    @property
    def policy_file(self) -> str:
        """The actor's weights."""
        return f"{self.name}.safetensors"

    def load_policy(self, path: Path) -> Policy:
        """The actor of a file."""
        return AmcPolicy.load(path)

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Train, then play the actor once without noise."""
        # A stream of its own: its warm-up would else be the very plans that random search draws from the same seed.
        settings, rng = self.settings, np.random.default_rng([seed, *self.name.encode()])
        sizes: list[int] = []
        for space in (env.observation_space, env.action_space):
            assert space.shape is not None
            sizes += space.shape
        learner = Ddpg(sizes[0], sizes[1], env.decisions, settings, seed)
        policy, left, checkpoints = AmcPolicy(learner.actor), reserved(env), Checkpoints(env, out, self.policy_file)
        env.reset(seed=seed)
        episode = 0
        try:
            while env.remaining > left:
                noise = settings["noise"] * settings["noise_decay"] ** max(episode - settings["warmup_episodes"], 0)
                explore = policy if episode >= settings["warmup_episodes"] else None
                for step in _episode(env, left, explore, max(noise, SMALLEST_NOISE), rng):
                    learner.keep(step)
                    if explore is not None:
                        learner.learn()
                episode += 1
                path = checkpoints.due()
                if path is not None:
                    policy.save(path)
        finally:
            if out is not None:
                policy.save(out / self.policy_file)
        if left:
            env.report_policy(play_policy(env, policy)[0])


def _episode(env: Recorder, left: int, policy: AmcPolicy | None, noise: float, rng: np.random.Generator) -> list[Step]:
    """The decisions of an episode; none where the evaluations ran out on the way."""
    observation, _ = env.reset()
    steps: list[Step] = []
    total, ended = 0.0, False
    while not ended:
        if env.remaining <= left:
            return []
        if policy is None:
            action = rng.uniform(size=env.action_space.shape).astype(np.float32)
        else:
            action = _noisy(policy.fraction(observation), noise, rng)
        after, reward, ended, _, _ = env.step(2 * action - 1)
        total += float(reward)
        steps.append(Step(observation, action, 0.0, after, ended))
        observation = after
    return [step._replace(reward=total) for step in steps]


def _noisy(mean: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Drawn from a normal distribution around `mean`, cut off at 0 and 1."""
    low, high = (0 - mean) / noise, (1 - mean) / noise
    drawn = truncnorm.rvs(low, high, loc=mean, scale=noise, size=mean.shape, random_state=rng)
    return np.clip(drawn, 0, 1).astype(np.float32)


class AmcPolicy(Policy):
    """The actor without noise.

    Args:
        actor: its network.
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def fraction(self, observation: Floats) -> Floats:
        """What is done of what can be done, each number in (0, 1)."""
        with torch.no_grad():
            fraction: Floats = self._actor(torch.as_tensor(observation)[None])[0].numpy()
        return fraction

    def act(self, observation: Floats, env: gym.Env[Any, Any]) -> Floats:
        """The action, in [-1, 1]."""
        return 2 * self.fraction(observation) - 1

    def save(self, path: Path) -> None:
        """Write the actor's weights."""
        save_file(self._actor.state_dict(), path)

    @classmethod
    def load(cls, path: Path) -> AmcPolicy:
        """The actor that `save` wrote."""
        weights = load_file(path)
        matrices = [weights[f"layers.{index}.weight"] for index in (0, 2, 4)]
        actor = Actor(matrices[0].shape[1], len(matrices[2]), (len(matrices[0]), len(matrices[1])))
        actor.load_state_dict(weights)
        return cls(actor)
