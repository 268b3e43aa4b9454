"""Q-learning, double Q-learning, SARSA and SARSA(lambda): what they learn, and the table that they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.policy import play_policy
from agents.registry import make_agent
from agents.tabular import QTable, Schedule
from agents.trace import Trace
from reptile_env.env import ReptilePruneEnv

NAMES = ("q-learning", "double-q-learning", "sarsa", "sarsa-lambda")
# Episodes that are enough on the two tables, as docs/agents.md has them.
EPISODES = {"q-learning": 5000, "double-q-learning": 10000, "sarsa": 10000, "sarsa-lambda": 10000}


def make(task: str = "digits-mlp", id: str = "ReptilePruneDiscrete-v0", **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(id, task=task, **{"evaluator": "table", **kwargs})


def inner(env: gym.Env[Any, Any]) -> ReptilePruneEnv:
    assert isinstance(env.unwrapped, ReptilePruneEnv)
    return env.unwrapped


def shares(name: str, task: str, seed: int, episodes: int) -> tuple[float, float]:
    """Return of the best plan and of the greedy policy, as fractions of the optimum's."""
    env = make(task)
    env.reset()
    _, optimum = inner(env).optimum()
    trace = make_agent(name).run(env, episodes * len(inner(env).groups), seed)
    assert trace.best is not None
    assert trace.policy is not None
    return trace.best.plan_return / optimum, trace.policy.episode_return / optimum


@pytest.mark.parametrize("name", ["q-learning", "double-q-learning"])
def test_best_plan_and_policy_come_near_the_optimum_soon(name: str) -> None:
    assert min(shares(name, "digits-mlp", seed=0, episodes=1500)) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_best_plan_and_policy_come_within_five_percent_of_the_optimum_over_ten_seeds(name: str, builtin: str) -> None:
    assert min(min(shares(name, builtin, seed, EPISODES[name])) for seed in range(10)) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_a_file_of_plain_arrays_and_plays_as_the_policy_did(name: str, tmp_path: Path) -> None:
    env = make()
    trace = make_agent(name).run(env, 300, seed=2, out=tmp_path)
    path = tmp_path / f"{name}.npz"
    with np.load(path, allow_pickle=False) as data:
        assert data["values"].shape[1:2] == (5,)
        assert data["values"].shape[-1] == 10
        assert int(data["evaluations"]) == 295  # all but the policy's own episode
    total, _ = play_policy(env, make_agent(name).load_policy(path))
    assert trace.policy is not None
    assert total == trace.policy.episode_return
    assert len(list((tmp_path / "checkpoints").glob("*.npz"))) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_with_a_table(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    make_agent(name).run(make(), 3000, seed=0, out=first)
    known = QTable.load(first / f"{name}.npz")
    trace = make_agent(name, {"table": str(first / f"{name}.npz")}).run(make(), 500, seed=1, out=second)
    grown = QTable.load(second / f"{name}.npz")
    assert grown.evaluations == known.evaluations + 495
    assert grown.values.shape == known.values.shape
    changed = (grown.values != known.values).mean()
    assert 0 < changed < 0.05
    # Schedules go on where they stood, so hardly anything is tried at random, as it is in a run of its own.
    alone = make_agent(name).run(make(), 500, seed=1)
    assert _mean_return(trace) > _mean_return(alone)


def _mean_return(trace: Trace) -> float:
    last = inner(make()).groups[-1]
    return float(np.mean([row.plan_return for row in trace.rows if row.group == last]))


def test_a_table_goes_on_with_its_own_states_and_in_its_own_environment_alone(tmp_path: Path) -> None:
    make_agent("q-learning", {"costs": 7}).run(make(), 50, seed=0, out=tmp_path)
    path = str(tmp_path / "q-learning.npz")
    go_on = make_agent("q-learning", {"table": path})
    assert go_on.run(make(), 50, seed=0).policy is not None
    with pytest.raises(ValueError, match="observations of 14 numbers and 10 actions, the environment has 18 and 10"):
        go_on.run(make("digits-cnn"), 50, seed=0)
    with pytest.raises(ValueError, match="14 numbers and 10 actions, the environment has 14 and 3"):
        go_on.run(make(rates=[0.0, 0.3, 0.6]), 50, seed=0)
    with pytest.raises(ValueError, match="holds 1 tables and double-q-learning needs 2"):
        make_agent("double-q-learning", {"table": path}).run(make(), 50, seed=0)
    with pytest.raises(ValueError, match="learnt with 5 decisions an episode, here are 10"):
        go_on.run(make(rounds=2), 50, seed=0)
    with pytest.raises(ValueError, match="use ReptilePruneDiscrete-v0"):
        go_on.run(make(id="ReptilePrune-v0"), 50, seed=0)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("values")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    np.savez(tmp_path / "object.npz", values=np.array([{}], dtype=object))
    for name in ("none.npz", "text.npz", "other.npz", "object.npz"):
        with pytest.raises(ValueError, match="is no table that a tabular agent saved"):
            QTable.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"metric_edges=\[0.9, 0.8\] must ascend"):
        make_agent("sarsa", {"metric_edges": [0.9, 0.8]}).run(make(), 10, seed=0)


def test_states_tell_decision_cost_and_metric_apart_whatever_the_observation() -> None:
    values = np.zeros((1, 10, 4, 3, 10))
    envs = make(rounds=2), make(rounds=2, observation="group")
    lengths = [env.observation_space.shape[0] for env in envs]  # type: ignore[index]
    tables = [QTable(values, np.array([0.25, 0.5, 0.75]), np.array([0.8, 0.95]), length, 0) for length in lengths]
    seen = [[table.state(env.reset(seed=0)[0])] for env, table in zip(envs, tables, strict=True)]
    for action in (0, 9, 3, 0, 0, 5, 0, 0, 0):
        for env, table, states in zip(envs, tables, seen, strict=True):
            observation, _, _, _, info = env.step(action)
            states.append(table.state(observation))
            reference = inner(env).reference
            cost, metric = info["macs"] / reference.dense.macs, info["metric"] / reference.dense.metric
            assert states[-1] == (len(states) - 1, min(int(4 * cost), 3), int(metric >= 0.8) + int(metric >= 0.95))
    assert seen[0] == seen[1]
    assert len({state[1] for state in seen[0]}) > 1
    assert len({state[2] for state in seen[0]}) > 1


def test_schedules_change_evenly_and_then_stay() -> None:
    schedule = Schedule(1.0, 0.2, 0.5)
    assert [schedule(done) for done in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([1.0, 0.6, 0.2, 0.2, 0.2])


UPDATES = {
    "step_size": {"first": 0.5, "last": 0.5},
    "epsilon": {"first": 0.0, "last": 0.0},
    "hope": 0.0,
    "costs": 1,
    "metric_edges": [],
}


@pytest.mark.parametrize(("name", "more"), [("q-learning", {}), ("sarsa", {}), ("sarsa-lambda", {"trace_decay": 0.5})])
def test_one_episode_updates_as_worked_out_by_hand(name: str, more: dict[str, float], tmp_path: Path) -> None:
    """With hope 0 and a step size of a half, the values after one episode are half the errors, plus what traces carry back."""
    trace = make_agent(name, UPDATES | more).run(make(measure="step"), 5, seed=4, out=tmp_path)
    values = QTable.load(tmp_path / f"{name}.npz").values[0]
    returns = [0.0] + [row.episode_return for row in trace.rows]
    rewards = np.diff(returns)
    decay = more.get("trace_decay", 0.0)
    for decision, row in enumerate(trace.rows):
        action = round(10 * row.rate)
        later = sum(decay**k * reward for k, reward in enumerate(rewards[decision:]))
        assert values[decision, 0, 0, action] == pytest.approx(0.5 * later)
    assert np.count_nonzero(values) == np.count_nonzero(rewards)


def test_double_q_learning_moves_one_table_at_a_time(tmp_path: Path) -> None:
    make_agent("double-q-learning", UPDATES).run(make(), 5, seed=4, out=tmp_path)
    values = QTable.load(tmp_path / "double-q-learning.npz").values
    assert values.any(axis=(1, 2, 3, 4)).all()
    assert not (values[0] != 0)[values[1] != 0].any()
