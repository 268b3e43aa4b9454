"""Runs of agents through their common interface."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.base import Agent, Recorder
from agents.registry import AGENTS, make_agent
from agents.trace import Trace
from reptile_env.env import ReptilePruneEnv

TASK, DENSE_MACS = "digits-mlp", 27968
ENDING = ("uniform", "global-magnitude", "lamp", "pretrained")  # these have no more to say after some plans


def run(name: str, evaluations: int = 30, seed: int = 3, out: Path | None = None, **kwargs: Any) -> Trace:
    spec = AGENTS[name]
    env = gym.make(spec.env_id, task=TASK, **{**spec.env_settings, **kwargs})
    return make_agent(name).run(env, evaluations, seed, out=out)


def without_seconds(trace: Trace) -> list[Any]:
    return [dataclasses.replace(row, seconds=0.0) for row in trace.rows]


@pytest.mark.parametrize("name", AGENTS)
def test_same_seed_same_trace(name: str) -> None:
    first, second = run(name), run(name)
    assert without_seconds(first) == without_seconds(second)
    assert first.policy == second.policy
    assert 0 < len(first.rows) <= 30


@pytest.mark.parametrize("name", ["random", "pretrained"])
def test_the_seed_decides_what_the_environment_draws_too(name: str) -> None:
    plans = [[row.plan for row in run(name, 5, seed, prune_probability=0.5).rows] for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize("name", ["random", "sac", "cma-es"])
def test_another_seed_another_trace(name: str) -> None:
    assert without_seconds(run(name, seed=1)) != without_seconds(run(name, seed=2))


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in ENDING])
def test_every_allowed_plan_is_evaluated_and_no_more(name: str) -> None:
    assert len(run(name, 37).rows) == 37


def test_best_is_the_best_row_and_return_of_uniform_is_one() -> None:
    trace = run("uniform", 18)
    assert trace.best is not None
    assert trace.best.plan_return == max(row.plan_return for row in trace.rows) == pytest.approx(1, abs=1e-12)


def test_searches_beat_uniform_on_few_evaluations() -> None:
    for name in ("coordinate-ascent", "cma-es"):
        best = run(name, 150).best
        assert best is not None
        assert best.plan_return > 1.2


def test_policy_episode_is_the_last_and_deterministic() -> None:
    trace = run("sac", 60)
    assert trace.policy is not None
    assert trace.policy.evaluation == len(trace.rows) == 60
    assert trace.policy.episode_return == pytest.approx(trace.rows[-1].plan_return)


def test_best_plan_keeps_the_budget() -> None:
    trace = run("random", 40, budget=0.3)
    assert all(row.within_budget and row.macs <= 0.3 * DENSE_MACS for row in trace.rows)
    by_step = run("a2c", 60, budget=0.3)
    assert by_step.best is None or by_step.best.macs <= 0.3 * DENSE_MACS
    assert not all(row.within_budget for row in by_step.rows)


def test_recorder_refuses_to_go_on() -> None:
    class Greedy(Agent):
        def search(self, env: Recorder, seed: int, out: Path | None) -> None:
            env.reset()
            while True:
                _, _, terminated, _, _ = env.step(env.action_space.sample())
                if terminated:
                    env.reset()

    env = gym.make("ReptilePrune-v0", task=TASK)
    with pytest.raises(RuntimeError, match="all 7 plans that this run was allowed are evaluated"):
        Greedy("greedy").run(env, 7, 0)


def test_trace_file_reads_back_and_survives_a_cut_line(tmp_path: Path) -> None:
    trace = run("sac", 30, out=tmp_path)
    path = tmp_path / "trace-sac.jsonl"
    read = Trace.load(path)
    assert read.rows == trace.rows
    assert read.best == trace.best
    assert read.policy == trace.policy
    assert read.header() == trace.header()
    path.write_text(path.read_text()[:-20])
    assert Trace.load(path).rows == trace.rows
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="not a trace"):
        Trace.load(path)


def test_an_older_trace_is_never_written_over(tmp_path: Path) -> None:
    run("random", 5, out=tmp_path)
    with pytest.raises(FileExistsError):
        run("random", 5, out=tmp_path)


def test_a_crash_keeps_what_was_evaluated(tmp_path: Path) -> None:
    def failing(trace: Trace, row: Any, improved: bool) -> None:
        if row.evaluation == 12:
            raise OSError("disk gone")

    env = gym.make("ReptilePrune-v0", task=TASK)
    with pytest.raises(OSError, match="disk gone"):
        make_agent("sac").run(env, 40, 0, out=tmp_path, listeners=[failing])
    assert len(Trace.load(tmp_path / "trace-sac.jsonl").rows) == 12
    assert (tmp_path / "sac.zip").exists()


@pytest.mark.parametrize(("evaluations", "seed", "message"), [(0, 0, "at least 1"), (5, -1, "outside 0")])
def test_bad_runs_are_refused(evaluations: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("random", evaluations, seed)


@pytest.mark.parametrize(("evaluations", "seed"), [(10.5, 0), (True, 0), ("10", 0), (5, 1.5), (5, None)])
def test_numbers_of_plans_and_seeds_are_whole(evaluations: Any, seed: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a whole number, got"):
        run("random", evaluations, seed, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_environment_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(TypeError, match=r"agents act in the environments of reptile_env.*got CartPoleEnv"):
        make_agent("random").run(gym.make("CartPole-v1"), 5, 0)
    with pytest.raises(ValueError, match=r"make it with gym\.make"):
        make_agent("random").run(ReptilePruneEnv(TASK, evaluator="table"), 5, 0)


@pytest.mark.parametrize(
    ("name", "id", "message"),
    [
        ("amc", "ReptilePruneDiscrete-v0", r"chooses numbers, the actions there are Discrete\(10\); use ReptilePrune-v0"),
        ("sac", "ReptilePruneDiscrete-v0", "use ReptilePrune-v0"),
        ("dqn", "ReptilePrune-v0", "chooses from a list, .*; use ReptilePruneDiscrete-v0"),
    ],
)
def test_an_environment_of_other_actions_is_refused(name: str, id: str, message: str) -> None:
    env = gym.make(id, task=TASK, evaluator="table", observation=AGENTS[name].observation)
    with pytest.raises(ValueError, match=message):
        make_agent(name).run(env, 20, 0)


@pytest.mark.parametrize(
    ("id", "settings"),
    [
        ("ReptilePruneDiscrete-v0", {"rates": np.array([0.0, 0.3, 0.6]), "evaluator": "table"}),
        ("ReptilePrune-v0", {"max_rate": np.float64(0.5), "rounds": np.int64(2), "evaluator": "table"}),
        ("ReptilePrune-v0", {"disk_cache": Path("cache"), "reward": "tradeoff"}),
    ],
    ids=str,
)
def test_whatever_the_environment_takes_a_trace_can_hold(
    id: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = {"task": TASK, "measure": "round", **settings}
    trace = make_agent("random").run(gym.make(id, **made), np.int64(5), np.int64(3), out=tmp_path)  # type: ignore[arg-type]
    read = Trace.load(tmp_path / "trace-random.jsonl")
    assert read.header() == trace.header()
    assert len(read.rows) == 5
    as_lists = {name: list(value) if isinstance(value, np.ndarray) else value for name, value in made.items()}
    alike = make_agent("random").run(gym.make(id, **as_lists), 5, 3)
    assert without_seconds(alike) == without_seconds(trace)


@pytest.mark.parametrize("name", ["random", "uniform", "coordinate-ascent", "cma-es"])
def test_searches_leave_the_global_generator_alone(name: str) -> None:
    run(name, 5)  # whatever is built once is built
    before = np.random.get_state()  # noqa: NPY002
    run(name, 20)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert (before[1] == after[1]).all()


@pytest.mark.parametrize(
    "name", [n for n, spec in AGENTS.items() if spec.env_id == "ReptilePrune-v0" and spec.searches and not spec.weights]
)
@pytest.mark.parametrize("components", [None, ["bits", "rate"]])
def test_agents_decide_on_bits_and_ranks_too(name: str, components: list[str] | None) -> None:
    env = gym.make("ReptileCompress-v0", task=TASK, measure=AGENTS[name].measure, components=components, recovery="none")
    trace = make_agent(name).run(env, 40, 3)
    assert len(trace.rows) == 40 or (name == "uniform" and len(trace.rows) == len(env.unwrapped.uniform_sweep))  # type: ignore[attr-defined]
    assert len({bits for row in trace.rows for bits in row.plan.bits}) > 2
    assert (len({rank for row in trace.rows for rank in row.plan.ranks}) > 1) == (components is None)
    if name in ("uniform", "coordinate-ascent"):  # both begin with the best uniform setting, or come to it
        assert max(row.plan_return for row in trace.rows) >= 1 - 1e-12
