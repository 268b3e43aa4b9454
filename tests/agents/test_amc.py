"""AMC's DDPG: what the paper says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import amc
from agents.amc import Ddpg, Step
from agents.policy import play_policy
from agents.registry import AGENTS, make_agent
from agents.trace import Trace
from tests.helpers import generator_states


def make_env(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("ReptilePrune-v0", task="digits-mlp", **{"evaluator": "table", **AGENTS["amc"].env_settings, **kwargs})


def run(evaluations: int, seed: int = 0, out: Path | None = None, **hyperparameters: Any) -> Trace:
    return make_agent("amc", hyperparameters).run(make_env(), evaluations, seed, out=out)


def learner(**settings: Any) -> Ddpg:
    return Ddpg(2, 1, 4, make_agent("amc", settings).settings, seed=0)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The decisions that a learner is told of."""
    steps: list[Step] = []
    monkeypatch.setattr(Ddpg, "keep", lambda self, step: steps.append(step))
    monkeypatch.setattr(Ddpg, "learn", lambda self: None)
    return steps


def test_all_decisions_of_an_episode_get_its_one_reward(kept: list[Step]) -> None:
    trace = run(30)
    decisions = len(trace.rows[0].plan.names)
    assert len(kept) == 29 * decisions  # the last episode is the policy's own
    for episode, row in enumerate(trace.rows[:-1]):
        steps = kept[episode * decisions : (episode + 1) * decisions]
        assert {step.reward for step in steps} == {row.episode_return}
        assert [step.ended for step in steps] == [False] * (decisions - 1) + [True]


def test_it_warms_up_at_random_and_then_the_noise_dies_down(kept: list[Step]) -> None:
    run(111, warmup_episodes=60, noise_decay=0.8)
    actions = np.array([step.action for step in kept]).reshape(110, -1)
    assert ((actions >= 0) & (actions <= 1)).all()
    assert actions[:60].std(axis=0).min() > 0.2
    assert actions[60:64].std(axis=0).mean() > 0.1
    assert actions[-10:].std(axis=0).max() < 0.01


def test_its_warm_up_is_not_what_random_search_draws_from_the_same_seed() -> None:
    ours = run(40).rows
    random = make_agent("random").run(make_env(), 40, seed=0).rows
    assert [row.plan for row in run(40).rows] == [row.plan for row in ours]
    assert not {row.plan for row in ours} & {row.plan for row in random}


def test_nothing_is_learnt_in_the_warm_up(tmp_path: Path) -> None:
    untrained, warm, trained = (tmp_path / name for name in ("untrained", "warm", "trained"))
    for folder, evaluations in ((untrained, 2), (warm, 51), (trained, 61)):
        folder.mkdir()
        run(evaluations, out=folder, warmup_episodes=50)
    weights = [(folder / "amc.safetensors").read_bytes() for folder in (untrained, warm, trained)]
    assert weights[0] == weights[1] != weights[2]


def test_the_actor_finds_what_pays() -> None:
    agent, rng = learner(actor_learning_rate=0.001, batch_size=32, discount=0.0), np.random.default_rng(0)
    for _ in range(300):
        observation, action = rng.uniform(size=2).astype(np.float32), rng.uniform(size=1).astype(np.float32)
        reward = 100 - float((action[0] - observation[0]) ** 2)  # the baseline takes the 100 away
        agent.keep(Step(observation, action, reward, observation, ended=True))
    for _ in range(600):
        agent.learn()
    wanted = np.linspace(0.2, 0.8, 7, dtype=np.float32)
    with torch.no_grad():
        found = agent.actor(torch.as_tensor(np.stack([wanted, np.full(7, 0.5, np.float32)], axis=1)))[:, 0].numpy()
    assert np.abs(found - wanted).max() < 0.15


def test_the_memory_forgets_the_oldest() -> None:
    agent = learner(memory_episodes=2)  # of 4 decisions
    nothing = np.zeros(2, np.float32)
    for reward in range(11):
        agent.keep(Step(nothing, nothing[:1], reward, nothing, ended=True))
    assert sorted(step.reward for step in agent._memory) == list(range(3, 11))


def test_the_saved_actor_plays_the_last_episode_again(tmp_path: Path) -> None:
    before = generator_states()
    trace = run(130, out=tmp_path)
    assert generator_states() == before
    assert trace.policy is not None
    agent = make_agent("amc")
    total, info = play_policy(make_env(), agent.load_policy(tmp_path / "amc.safetensors"))
    assert total == trace.policy.episode_return
    assert info["plan"] == trace.rows[-1].plan.to_dict()
    assert (tmp_path / "checkpoints").is_dir()


@pytest.mark.parametrize("mean", [0.0, 1e-9, 0.3, 1.0])
@pytest.mark.parametrize("noise", [0.5, 1e-3, amc.SMALLEST_NOISE])
def test_noise_is_cut_off_at_the_ends(mean: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([amc._noisy(np.array([mean], np.float32), noise, rng) for _ in range(200)])
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert np.abs(drawn - mean).max() <= 6 * noise
    assert drawn.std() > 0.1 * noise or mean + noise == mean


def test_it_decides_on_bits_and_ranks_and_under_a_budget_too() -> None:
    settings = {"budget": 0.3, "recovery": "none", "rounding": "nearest", **AGENTS["amc"].env_settings}
    trace = make_agent("amc", {"warmup_episodes": 5}).run(gym.make("ReptileCompress-v0", task="digits-mlp", **settings), 12, 0)
    assert len(trace.rows) == 12
    assert all(row.within_budget for row in trace.rows)
    assert len({bits for row in trace.rows for bits in row.plan.bits}) > 2
