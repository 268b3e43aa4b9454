"""The track ``transfer``: trained on some networks, scored on others that the policy never met."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run_command
from benchmarks.checks import problems_of
from benchmarks.execution import Finished, Job, execute
from benchmarks.results import Run, from_bytes, read_runs, run_path
from benchmarks.suites import TRANSFER, Case, Suite, agents_of, check_agent
from tests.suites import Here, add_suites, content, main

TAKEN_ALONG = Suite(
    "taken-along",
    1,
    "for tests",
    (Case("transfer-mlp-7", "transfer-mlp-7", 60), Case("transfer-cnn-8", "transfer-cnn-8", 60)),
    tracks=("transfer",),
    seeds=2,
    env_id=TRANSFER,
    settings=(("observation", "group"),),
    training_networks=("transfer-mlp-1", "transfer-cnn-1"),
)


def runs_of(finished: Finished) -> list[Run]:
    assert finished.error is None, finished.error
    return [from_bytes(data) for data in finished.files.values()]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return runs_of(execute(Job(TAKEN_ALONG, "ppo-group", TAKEN_ALONG.cases, 0)))


def test_each_network_is_measured_once_after_training_on_the_others(runs: list[Run]) -> None:
    for run, case in zip(runs, TAKEN_ALONG.cases, strict=True):
        assert (run.task, run.track, run.settings["task"], run.settings["split"]) == (case.name, "transfer", case.task, "test")
        assert run.training_networks == ("transfer-mlp-1", "transfer-cnn-1")
        assert run.evaluations == 60
        assert run.evaluated == len(run.groups) == run.policy_evaluation  # one episode, measured after each decision
        assert run.columns["group"].tolist() == list(range(len(run.groups)))
        assert run.policy_return == run.columns["plan_return"][-1]
        assert not run.on_test
    assert runs[0].groups != runs[1].groups


def test_replays_confirm_it(runs: list[Run]) -> None:
    for run in runs:
        assert problems_of(run, TAKEN_ALONG, range(run.evaluated)) == []
        better = dataclasses.replace(run, training_networks=())
        assert [problem.what for problem in problems_of(better, TAKEN_ALONG, [])] == ["training_networks"]


def test_a_seed_decides_everything(runs: list[Run]) -> None:
    again = runs_of(execute(Job(TAKEN_ALONG, "ppo-group", TAKEN_ALONG.cases, 0)))
    assert [content(run) for run in again] == [content(run) for run in runs]
    other = runs_of(execute(Job(TAKEN_ALONG, "ppo-group", TAKEN_ALONG.cases, 1)))
    assert [content(run)[1] for run in other] != [content(run)[1] for run in runs]


def test_training_on_test_networks_is_told() -> None:
    suite = dataclasses.replace(TAKEN_ALONG, training_networks=("transfer-mlp-1", "transfer-mlp-8"))
    finished = execute(Job(suite, "ppo-group", suite.cases[:1], 0))
    assert finished.error is not None  # the environment's split refuses it
    (run,) = [from_bytes(data) for data in finished.files.values()]
    assert run.on_test
    assert run.status == "failed"


def test_agents_without_a_policy_to_take_along_are_refused() -> None:
    able = agents_of(TAKEN_ALONG)
    assert {"ppo-group", "sac", "amc"} <= set(able)
    assert not {"random", "cma-es", "dqn"} & set(able)
    with pytest.raises(ValueError, match=r"agent 'random' can't run taken-along-v1: it learns no policy"):
        check_agent(TAKEN_ALONG, "random")


def test_a_job_of_several_files_goes_on_where_one_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    add_suites(monkeypatch, TAKEN_ALONG)
    monkeypatch.setattr(run_command, "LocalEngine", lambda workers: Here())
    command = ["run", "taken-along", "--agents", "ppo-group", "--seeds", "1", "--out", str(tmp_path / "r")]
    assert main(*command) == 0
    lost, kept = (run_path(tmp_path / "r", "ppo-group", case.name, 0) for case in TAKEN_ALONG.cases)
    before = kept.read_bytes()
    lost.unlink()
    assert main(*command) == 0
    assert kept.read_bytes() == before
    assert [run.task for run in read_runs(tmp_path / "r")] == ["transfer-cnn-8", "transfer-mlp-7"]
    assert main(*command) == 0
    assert "0 runs to make, 1 are there" in capsys.readouterr().out
