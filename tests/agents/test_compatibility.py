"""Other people's libraries and wrappers run on the ids unchanged."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from examples import ppo
from reptile_env.wrappers import WithoutPlan
from tests.helpers import random_actions, stable

CONTINUOUS, DISCRETE, JOINT = "ReptilePrune-v0", "ReptilePruneDiscrete-v0", "ReptileCompress-v0"
IDS = (CONTINUOUS, DISCRETE, JOINT)
every_id = pytest.mark.parametrize("id", IDS)


def make(id: str = CONTINUOUS, **kwargs: Any) -> gym.Env[Any, Any]:
    """The quickest environment of an id."""
    quick = {"recovery": "none", "rounding": "nearest"} if id == JOINT else {"evaluator": "table"}
    return gym.make(f"reptile_env:{id}", **{"task": "digits-mlp", **quick, **kwargs})


def actions_of(env: gym.Env[Any, Any], seed: int = 0) -> list[Any]:
    """One action for each decision of an episode."""
    inner: Any = env.unwrapped
    return random_actions(inner, len(inner.groups), seed)


def returns_of(env: gym.Env[Any, Any], actions: list[Any]) -> float:
    """Sum of the rewards of an episode."""
    env.reset(seed=0)
    return sum(float(env.step(action)[1]) for action in actions)


# -- Gymnasium's wrappers ----------------------------------------------------------------------------------------------


@every_id
def test_record_episode_statistics(id: str) -> None:
    env = gym.wrappers.RecordEpisodeStatistics(make(id))
    actions = actions_of(env)
    env.reset(seed=0)
    for action in actions:
        *_, info = env.step(action)
    assert info["episode"]["l"] == len(actions)
    assert info["episode"]["r"] == pytest.approx(info["return"], rel=1e-6)


@every_id
def test_record_video(id: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="the extra 'compat' is not installed")
    env = gym.wrappers.RecordVideo(make(id, render_mode="rgb_array"), str(tmp_path / "videos"), name_prefix="pruning")
    returns_of(env, actions_of(env))
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.name == "pruning-episode-0.mp4"
    assert video.stat().st_size > 1000


@every_id
def test_time_limit(id: str) -> None:
    env = make(id, max_episode_steps=2)
    env.reset(seed=0)
    ends = [env.step(action)[2:4] for action in actions_of(env)[:2]]
    assert ends == [(False, False), (False, True)]


def test_rescale_action() -> None:
    plain, unit = make(), gym.wrappers.RescaleAction(make(), np.float32(0), np.float32(1))
    assert (unit.action_space.low[0], unit.action_space.high[0]) == (0, 1)
    actions = actions_of(plain)
    assert returns_of(unit, [(action + 1) / 2 for action in actions]) == pytest.approx(returns_of(plain, actions))


@every_id
def test_flatten_observation(id: str) -> None:
    plain, flat = make(id), gym.wrappers.FlattenObservation(make(id))
    assert flat.observation_space == plain.observation_space
    np.testing.assert_array_equal(flat.reset(seed=0)[0], plain.reset(seed=0)[0])


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_async_vectors_play_as_sync_ones_do(context: str) -> None:
    makers = [functools.partial(make, num_threads=1)] * 2
    played = []
    for envs in (SyncVectorEnv(makers), AsyncVectorEnv(makers, context=context)):
        assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        seen: list[Any] = [envs.reset(seed=0)]
        rng = np.random.default_rng(0)
        for _ in range(12):
            seen.append(envs.step(rng.uniform(-1, 1, (2, 1)).astype(np.float32)))
        envs.close()
        played.append(seen)
    for one, other in zip(*played, strict=True):
        for a, b in zip(one[:-1], other[:-1], strict=True):
            np.testing.assert_array_equal(a, b)
        assert str(stable(one[-1])) == str(stable(other[-1]))


# -- Libraries of algorithms -------------------------------------------------------------------------------------------


@every_id
def test_torchrl(id: str) -> None:
    envs = pytest.importorskip("torchrl.envs", reason="the extra 'compat' is not installed")
    from torchrl.envs.utils import check_env_specs

    quick = make(id).spec.kwargs  # type: ignore[union-attr]
    env = envs.GymEnv(id, device="cpu", **quick)
    check_env_specs(env)
    env.set_seed(0)
    rollout = env.rollout(100)
    decisions = len(make(id).unwrapped.groups)  # type: ignore[attr-defined]
    assert rollout.batch_size == (decisions,)
    assert rollout["next", "terminated"].flatten().tolist() == [False] * (decisions - 1) + [True]
    assert rollout["next", "observation"].dtype == torch.float32
    assert torch.isfinite(rollout["next", "reward"]).all()


def test_tianshou() -> None:
    pytest.importorskip("tianshou", reason="it is installed by `make`, without what it caps")
    from tianshou.algorithm import PPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic

    def normal(parameters: tuple[torch.Tensor, torch.Tensor]) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(*parameters), 1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Its buffers keep infos in arrays of one shape, which the lists of a plan don't have.
        env, envs = make(), DummyVectorEnv([lambda: WithoutPlan(make())] * 2)
        shapes = {"state_shape": env.observation_space.shape, "hidden_sizes": [16]}
        actor = ContinuousActorProbabilistic(preprocess_net=Net(**shapes), action_shape=env.action_space.shape, unbounded=True)
        policy = ProbabilisticActorPolicy(actor=actor, dist_fn=normal, action_space=env.action_space, action_scaling=False)
        critic = ContinuousCritic(preprocess_net=Net(**shapes))
        algorithm = PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3))
        collector = Collector[Any](algorithm, envs, VectorReplayBuffer(1000, 2))
        result = algorithm.run_training(
            OnPolicyTrainerParams(
                training_collector=collector,
                test_collector=None,
                max_epochs=1,
                epoch_num_steps=80,
                collection_step_num_env_steps=40,
                update_step_num_repetitions=2,
                batch_size=20,
            )
        )
    assert result.train_step == 80
    decisions = len(env.unwrapped.groups)  # type: ignore[attr-defined]
    assert result.train_episode == 2 * (40 // decisions)


@every_id
def test_rllib(id: str) -> None:
    pytest.importorskip("tree", reason="the extra 'compat' is not installed")
    multi = pytest.importorskip("ray.rllib.env.multi_agent_env", reason="the extra 'compat' is not installed")
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.utils.pre_checks.env import check_multiagent_environments

    check_multiagent_environments(multi.make_multi_agent(lambda _: make(id))({"num_agents": 2}))
    settings = make(id).spec.kwargs  # type: ignore[union-attr]
    config = PPOConfig().environment(f"reptile_env:{id}", env_config=settings)
    runner = SingleAgentEnvRunner(config=config.env_runners(num_env_runners=0, num_envs_per_env_runner=2))
    for episode in runner.sample(num_episodes=2, random_actions=True) + runner.sample(num_episodes=2, explore=True):
        assert len(episode) == len(make(id).unwrapped.groups)  # type: ignore[attr-defined]
        assert episode.is_terminated
        assert episode.get_return() == pytest.approx(episode.get_infos(-1)["return"])
    runner.stop()


def test_a_script_in_the_manner_of_cleanrl_learns() -> None:
    with torch.random.fork_rng(devices=[]):
        _, returns = ppo.train(ppo.Args(evaluator="table", steps=5000))
    assert len(returns) > 900
    assert np.mean(returns[-100:]) > np.mean(returns[:100]) + 1
