"""Every algorithm of Stable-Baselines3 and sb3-contrib behind the one interface."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.policy import play_policy
from agents.registry import AGENTS, make_agent
from agents.sb3 import ALGORITHMS
from agents.trace import Trace
from tests.helpers import generator_states

EVALUATIONS = 137  # no multiple of an episode or a rollout, and enough for every algorithm to learn a little
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def make_env(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    spec = AGENTS[name]
    return gym.make(spec.env_id, **{"task": "digits-mlp", "evaluator": "table", **spec.env_settings, **kwargs})


def run(name: str, evaluations: int = EVALUATIONS, seed: int = 3, out: Path | None = None, **kwargs: Any) -> Trace:
    quick = {"learning_starts": 20, "batch_size": 32, "buffer_size": 1000} if "learning_starts" in make_agent(name).settings else {}
    return make_agent(name, quick).run(make_env(name, **kwargs), evaluations, seed, out=out)


def rows(trace: Trace) -> list[Any]:
    return [dataclasses.replace(row, seconds=0.0) for row in trace.rows]


@every_algorithm
def test_it_uses_all_evaluations_learns_and_repeats_itself(name: str, tmp_path: Path) -> None:
    before = generator_states()
    first = run(name, out=tmp_path)
    assert generator_states() == before
    assert rows(first) == rows(run(name))
    assert len(first.rows) == EVALUATIONS
    assert first.policy is not None
    assert first.policy.evaluation == EVALUATIONS
    # The last episode is what the saved policy does when it is played again.
    saved = make_agent(name)
    assert saved.policy_file is not None
    assert (tmp_path / saved.policy_file).is_file()
    total, info = play_policy(make_env(name), saved.load_policy(tmp_path / saved.policy_file), seed=0)
    assert total == first.policy.episode_return
    assert info["plan"] == first.rows[-1].plan.to_dict()


@every_algorithm
@pytest.mark.parametrize("evaluations", [1, 8, 53])
def test_it_stops_at_the_count(name: str, evaluations: int) -> None:
    assert len(run(name, evaluations).rows) == evaluations


@pytest.mark.parametrize("name", ["ppo", "sac", "ars"])
def test_checkpoints_are_policies_of_every_tenth(name: str, tmp_path: Path) -> None:
    run(name, 120, out=tmp_path)
    found = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.stem.rpartition("-")[2]))
    evaluated = [int(path.stem.rpartition("-")[2]) for path in found]
    assert 5 <= len(evaluated) <= 10
    assert all(0 < each <= 120 for each in evaluated)
    returns = [play_policy(make_env(name), make_agent(name).load_policy(path), seed=0)[0] for path in found]
    assert len(set(returns)) > 1, "the policy never changed"


def test_a_masked_policy_is_never_raised_by_the_budget() -> None:
    seen: list[bool] = []

    class Watching(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            outcome = super().step(action)
            seen.append(outcome[4]["budget_bit"])
            return outcome

    env = Watching(make_env("maskable-ppo", budget=0.3))
    make_agent("maskable-ppo").run(env, 100, 0)
    assert len(seen) == 100
    assert not any(seen)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run("ppo", 20)
    assert not list(tmp_path.iterdir())


def test_with_chosen_hyperparameters() -> None:
    settings = run("ppo", 10).agent_settings
    chosen = make_agent("ppo", {"n_steps": 7, "batch_size": 7}).run(make_env("ppo"), 10, 0).agent_settings
    assert chosen == settings | {"n_steps": 7, "batch_size": 7}
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        make_agent("ppo", {"lerning_rate": 0.1})
    with pytest.raises(ValueError, match="has no hyperparameters"):
        make_agent("random", {"learning_rate": 0.1})


def test_transfer_sees_the_same_numbers_of_every_network() -> None:
    mlp, cnn = make_env("ppo-group"), make_env("ppo-group", task="digits-cnn")
    assert mlp.observation_space == cnn.observation_space
    assert run("ppo-group", 20).env_settings["observation"] == "group"
