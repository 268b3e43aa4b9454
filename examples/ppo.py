"""Proximal policy optimisation in one file, in the manner of CleanRL: read it from top to bottom, change what you like.

    python examples/ppo.py --task digits-mlp --evaluator table --steps 20000

It takes every id with continuous actions as it is, through Gymnasium's own wrappers and vector environments.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Normal

import reptile_env  # noqa: F401 (registers the ids)


@dataclass
class Args:
    env_id: str = "ReptilePrune-v0"
    task: str = "digits-mlp"
    evaluator: str = "live"
    seed: int = 0
    steps: int = 10_000  # decisions in all
    envs: int = 8
    rollout: int = 32  # decisions of each environment between two updates
    learning_rate: float = 0.001
    gamma: float = 1.0  # episodes are short and end
    gae_lambda: float = 0.95
    minibatches: int = 4
    epochs: int = 10
    clip: float = 0.2
    entropy: float = 0.0
    value_weight: float = 0.5
    largest_gradient: float = 0.5


def make_env(args: Args) -> gym.Env[Any, Any]:
    env = gym.make(args.env_id, task=args.task, evaluator=args.evaluator)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    return gym.wrappers.ClipAction(env)


def network(sizes: Sequence[int], last_gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        layer = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(layer.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)


class Agent(nn.Module):
    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()
        self.critic = network([observations, 64, 64, 1], last_gain=1.0)
        self.mean = network([observations, 64, 64, actions], last_gain=0.01)
        self.log_std = nn.Parameter(torch.full((actions,), -0.7))

    def act(self, observation: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An action, its log-probability, the entropy and the value; for a given action the last three."""
        policy = Normal(self.mean(observation), self.log_std.exp())
        action = policy.sample() if action is None else action
        return action, policy.log_prob(action).sum(-1), policy.entropy().sum(-1), self.critic(observation).squeeze(-1)


def train(args: Args) -> tuple[Agent, list[float]]:
    """Train; the agent and the returns of all episodes, in the order in which they ended."""
    torch.manual_seed(args.seed)
    envs = SyncVectorEnv([lambda: make_env(args)] * args.envs, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = Agent(int(np.prod(envs.single_observation_space.shape)), int(np.prod(envs.single_action_space.shape)))
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate, eps=1e-5)
    returns: list[float] = []

    shape = (args.rollout, args.envs)
    observations = torch.zeros(shape + envs.single_observation_space.shape)
    actions = torch.zeros(shape + envs.single_action_space.shape)
    log_probs, rewards, ends, values = (torch.zeros(shape) for _ in range(4))

    observation = torch.as_tensor(envs.reset(seed=args.seed)[0])
    end = torch.zeros(args.envs)
    updates = args.steps // (args.rollout * args.envs)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / updates)

        # Play.
        for step in range(args.rollout):
            observations[step], ends[step] = observation, end
            with torch.no_grad():
                actions[step], log_probs[step], _, values[step] = agent.act(observation)
            after, reward, terminated, truncated, infos = envs.step(actions[step].numpy())
            observation, end = torch.as_tensor(after), torch.as_tensor(terminated | truncated, dtype=torch.float32)
            rewards[step] = torch.as_tensor(reward)
            if "final_info" in infos and "episode" in infos["final_info"]:
                returns += infos["final_info"]["episode"]["r"][infos["_final_info"]].tolist()

        # How much better than expected each action was (Schulman et al., 2016).
        advantages = torch.zeros(shape)
        with torch.no_grad():
            following, goes_on, last = agent.act(observation)[3], 1 - end, torch.zeros(args.envs)
            for step in reversed(range(args.rollout)):
                surprise = rewards[step] + args.gamma * following * goes_on - values[step]
                last = advantages[step] = surprise + args.gamma * args.gae_lambda * goes_on * last
                following, goes_on = values[step], 1 - ends[step]
        targets = advantages + values

        # Learn.
        flat = [x.flatten(0, 1) for x in (observations, actions, log_probs, advantages, targets)]
        for _ in range(args.epochs):
            for rows in torch.randperm(args.rollout * args.envs).chunk(args.minibatches):
                seen, done, before, gain, target = (x[rows] for x in flat)
                _, log_prob, entropy, value = agent.act(seen, done)
                ratio = (log_prob - before).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = -torch.min(gain * ratio, gain * ratio.clamp(1 - args.clip, 1 + args.clip)).mean()
                value_loss = 0.5 * (value - target).pow(2).mean()
                loss = policy_loss + args.value_weight * value_loss - args.entropy * entropy.mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.largest_gradient)
                optimizer.step()
    envs.close()
    return agent, returns


def main() -> None:
    parser = argparse.ArgumentParser(description="Proximal policy optimisation on a reptile_env environment.")
    for name, value in vars(Args()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    _, returns = train(Args(**vars(parser.parse_args())))
    tenth = max(len(returns) // 10, 1)
    first, last = np.mean(returns[:tenth]), np.mean(returns[-tenth:])
    print(f"{len(returns)} episodes: mean return {first:.3f} in the first tenth, {last:.3f} in the last")
    print("0 is the dense network, 1 the best uniform rate")


if __name__ == "__main__":
    main()
