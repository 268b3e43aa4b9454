"""``python -m benchmarks run``: what is missing is made, once; nothing that goes wrong is lost, and nothing is written over."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results_folder, run_command
from benchmarks.engine_local import LocalEngine
from benchmarks.results import read_run, read_runs, run_path, write_run
from benchmarks.runner import jobs_of, run_jobs
from benchmarks.suites import SUITES
from tests.helpers import ROOT
from tests.suites import NAMES, TINY, add_suites, content, made, main

pytestmark = pytest.mark.usefixtures("suites")


def test_a_run_is_the_same_in_a_worker_as_here(tmp_path: Path) -> None:
    jobs = jobs_of(TINY, ["random", "cma-es"], NAMES, 2)
    run_jobs(jobs, tmp_path, LocalEngine(2))
    runs = read_runs(tmp_path)
    assert len(runs) == 8
    for run in runs:
        assert content(run) == content(made(run.agent, NAMES.index(run.task), run.seed))


def test_another_seed_is_another_run() -> None:
    first, second = made("random", seed=0), made("random", seed=1)
    assert content(first)[1]["widths"] != content(second)[1]["widths"]


def test_a_run_says_how_it_came_to_be() -> None:
    run = made("dqn", 1, 2)
    assert (run.suite, run.agent, run.task, run.seed, run.track) == ("tiny-v1", "dqn", "digits-mlp@0.6", 2, "search")
    assert run.env_id == "ReptilePruneDiscrete-v0"
    assert run.settings.items() >= {"task": "digits-mlp", "budget": 0.6, "evaluator": "table", "measure": "step"}.items()
    assert run.agent_settings["learning_rate"] > 0
    assert {"reptile_env", "torch", "numpy", "python"} <= set(run.versions)
    assert "cores" in run.machine["processor"]
    assert (run.threads, run.evaluations, run.evaluated, run.training_networks, run.on_test) == (1, 40, 40, (), False)
    assert run.policy_evaluation == 40
    assert run.policy_return == run.columns["plan_return"][-1]
    assert run.columns["within_budget"][run.columns["group"] == 4].all()
    assert not run.columns["within_budget"].all()


def test_the_same_command_makes_what_is_missing_and_nothing_else(tmp_path: Path, here: None, capsys: Any) -> None:
    out = tmp_path / "results"
    assert main("run", "tiny", "--agents", "random", "--seeds", 1, "--out", out) == 0
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.run")}
    assert len(first) == 2
    assert main("run", "tiny", "--agents", "random, uniform", "--seeds", 2, "--out", out) == 0
    assert "6 runs to make, 2 are there" in capsys.readouterr().out
    assert len(read_runs(out)) == 8
    assert {path: path.stat().st_mtime_ns for path in first} == first
    path = run_path(out, "uniform", "digits-mlp", 1)
    kept = read_run(path)
    path.unlink()
    assert main("run", "tiny", "--agents", "random,uniform", "--seeds", 2, "--out", out) == 0
    assert "1 runs to make, 7 are there" in capsys.readouterr().out
    assert content(read_run(path)) == content(kept)


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "results"
    assert main("run", "core", "--agents", "random,sac", "--seeds", 3, "--workers", 2, "--out", out, "--dry-run") == 0
    printed = capsys.readouterr().out
    count = 2 * 3 * len(SUITES["core-v1"].cases)
    assert f"{count:,} runs to make, 0 are there" in printed
    assert "workers=2" in printed
    assert "about" in printed
    assert not out.exists()


def test_list_names_suites_with_their_version(capsys: Any) -> None:
    assert main("list") == 0
    printed = capsys.readouterr().out
    assert all(f"{name}-v1" in printed for name in ("smoke", "core", "budget", "joint", "table"))
    assert "digits-cnn@0.25" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_id": "ReptileCompress-v0"}, "was made with other settings (its environment was ReptileCompress-v0"),
        ({"settings": {"task": "digits-mlp"}}, "was made with other settings (its environment was"),
        ({"agent_settings": {"sigma": 3}}, "its hyperparameters were {'sigma': 3}"),
    ],
)
def test_runs_under_other_settings_are_not_mixed_in(change: dict[str, Any], message: str, tmp_path: Path, capsys: Any) -> None:
    results_folder.claim(tmp_path, TINY.title, TINY.digest)
    write_run(tmp_path, dataclasses.replace(made("cma-es"), **change))
    assert main("run", "tiny", "--agents", "cma-es", "--out", tmp_path) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_changed_suite_does_not_go_on_in_an_old_folder(tmp_path: Path, here: None, monkeypatch: Any, capsys: Any) -> None:
    assert main("run", "tiny", "--agents", "random", "--seeds", 1, "--out", tmp_path / "r") == 0
    add_suites(monkeypatch, dataclasses.replace(TINY, seeds=2))
    assert main("run", "tiny", "--agents", "random", "--seeds", 1, "--out", tmp_path / "r") == 2
    assert "its tasks, settings, evaluations or seeds were others then" in " ".join(capsys.readouterr().err.split())


BAD = {
    "unknown suite": (["run", "cores"], "did you mean 'core'"),
    "unknown agent": (["run", "tiny", "--agents", "sca"], "did you mean 'sac'"),
    "unknown task": (["run", "tiny", "--tasks", "digits-mpl"], "did you mean 'digits-mlp'"),
    "no agent": (["run", "tiny", "--agents", " "], "no agent is named"),
    "a name too few": (["run", "tiny", "--agents", "random,,sac"], "has an empty name between its commas"),
    "no task": (["run", "tiny", "--tasks", ","], "no task is named"),
    "no seed": (["run", "tiny", "--seeds", "0"], "give a number from 1 to 3"),
    "too many seeds": (["run", "tiny", "--seeds", "4"], "tiny-v1 has the seeds 0 to 2"),
    "unknown engine": (["run", "tiny", "--engine", "rya"], "did you mean 'ray'"),
    "no worker": (["run", "tiny", "--workers", "0"], "give at least 1"),
    "address without ray": (["run", "tiny", "--address", "auto"], "it goes with --engine ray"),
    "a file above": (["run", "tiny", "--agents", "random", "--out", "/dev/null/r"], "/dev/null/r"),
    "a file": (["run", "tiny", "--agents", "random", "--out", str(ROOT / "README.md")], "is a file; name a folder"),
    "read-only": (["run", "tiny", "--agents", "random", "--out", "/proc/r"], "can't be written"),
    "somebody's folder": (["run", "tiny", "--agents", "random", "--out", str(ROOT / "docs")], "is no folder of results"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    assert main(*arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ray_that_is_not_installed_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(run_command.importlib.util, "find_spec", lambda name: None)
    assert main("run", "tiny", "--engine", "ray", "--dry-run") == 2
    assert "pip install 'reptile-env[ray]'" in capsys.readouterr().err
