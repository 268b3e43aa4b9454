"""``python -m benchmarks better-plans`` on runs of ``python -m agents train``."""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.__main__ import main as train
from benchmarks import better_plans, task_commands
from benchmarks.budgets import inner_of
from benchmarks.trained import read_trained, with_trained
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry
from tests.benchmarks.test_better_plans import low  # noqa: F401
from tests.suites import main

TASK = "digits-mlp"
RUN = ["train", "cma-es", "--task", TASK, "--steps", "40", "--seed", "3"]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert train([*RUN, "--budget", "0.5", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(first_run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for path in first_run.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def inner() -> ReptilePruneEnv:
    return inner_of(gym.make("ReptilePrune-v0", task=TASK))


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_better_plan_takes_its_place_wherever_it_meets_the_cap(run: Path, low: dict[str, Any], inner: ReptilePruneEnv) -> None:  # noqa: F811
    best = json.loads((run / "best_plan.json").read_text(encoding="utf-8"))
    plan = Plan.from_dict(best["plan"])
    after = with_trained(low, read_trained(run))
    measured = inner.measure(plan)
    share = measured.macs / inner.reference.dense.macs
    assert share <= 0.5
    parts = {1.0: after, **{float(cap): part for cap, part in after["budgets"].items()}}
    for cap, part in parts.items():
        known = part["best_known"]
        if share > cap:
            assert part == low["budgets"][f"{cap:g}"]
            continue
        assert known["plan"] == plan.to_dict()
        assert known["return"] == pytest.approx(inner.reference.return_of(measured))
        assert known["found_by"] == f"cma-es, {best['evaluation']} of 40 evaluations, seed 3"
        assert known["relative_cost"] == share
    assert after["best_known"]["test"] == inner.evaluator.test(plan).metric


def test_the_command_makes_the_run_again(run: Path, tmp_path: Path) -> None:
    command = read_trained(run).command
    assert command == f"python -m agents train cma-es --task {TASK} --steps 40 --seed 3 --budget 0.5"
    assert train([*shlex.split(command)[3:], "--out", str(tmp_path / "again")]) == 0
    assert read_trained(tmp_path / "again") == read_trained(run)


def test_a_run_on_another_device_says_so_in_its_command(run: Path) -> None:
    plain = read_trained(run)
    changed(run / "run.json", others={"device": "cuda", "num_threads": 2, "disk_cache": "measured"})
    found = read_trained(run)
    assert found.command == f"{plain.command} --set device=cuda"
    assert found.plan == plain.plan


def test_threads_are_in_the_command(run: Path) -> None:
    plain = read_trained(run).command
    changed(run / "run.json", threads=2)  # other threads sum in another order
    assert read_trained(run).command == f"{plain} --threads 2"


def test_what_is_not_better_changes_nothing(run: Path) -> None:
    entry = registry.references()[TASK]
    assert with_trained(entry, read_trained(run)) == entry


def test_the_command_line_takes_such_folders(
    run: Path,
    low: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "references.json"
    file.write_text(json.dumps({TASK: low}), encoding="utf-8")
    monkeypatch.setattr(task_commands, "REFERENCES", file)
    monkeypatch.setattr(better_plans, "REFERENCES", file)
    assert main("better-plans", run) == 0
    told = capsys.readouterr().out
    assert "best known plans replaced in references.json" in told
    assert f"{TASK} at 50% of the MACs: 0.0000 -> " in told
    written = json.loads(file.read_text(encoding="utf-8"))[TASK]
    monkeypatch.setattr(registry, "references", functools.cache(lambda: {TASK: written}))
    assert main("better-plans", run) == 0
    assert "0 best known plans" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))[TASK] == written


def test_a_dry_run_tells_what_would_be_written(
    run: Path,
    low: dict[str, Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(registry, "references", functools.cache(lambda: {TASK: low}))
    assert main("better-plans", run, "--dry-run") == 0
    once = capsys.readouterr().out
    assert f"{TASK}: " in once
    assert main("better-plans", run, run, "--dry-run") == 0
    assert capsys.readouterr().out == once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "mymodule:make"}, "mymodule:make has no references"),
        ({"task": None, "env": "ReptilePruneTransfer-v0"}, "None has no references"),
        ({"task": "transfer-mlp-1"}, "best plans of the transfer family come from"),
        ({"evaluator": "table"}, "looked plans up in a table"),
        ({"others": {"w": 0.5}}, "this run had --hyperparameters, or --set of more than cache_bytes, disk_cache"),
        ({"hyperparameters": {"sigma": 0.1}}, "this run had --hyperparameters, or --set of more than"),
        ({"task": ["digits-mlp"]}, "run: run.json of this run is damaged: task is ['digits-mlp'], not a name"),
        ({"others": None}, "run: run.json of this run is damaged: others is None, not an object"),
        ({"agent": "nobody"}, "there is no agent 'nobody'"),
    ],
)
def test_runs_that_say_nothing_of_a_task_are_refused(
    change: dict[str, Any], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(run / "run.json", **change)
    assert main("better-plans", run) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "{}", "{", '{"plan": 3, "evaluation": 1}'])
def test_a_damaged_or_missing_best_plan_is_told_of(text: str | None, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "best_plan.json").unlink()
    if text is not None:
        (run / "best_plan.json").write_text(text, encoding="utf-8")
    assert main("better-plans", run) == 2
    error = capsys.readouterr().err
    assert ("no plan within the budget was measured yet" if text is None else "best_plan.json is damaged") in error


def test_plans_that_no_actions_reach_are_left_out(
    run: Path,
    inner: ReptilePruneEnv,
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = json.loads((run / "best_plan.json").read_text(encoding="utf-8"))
    plan, dense = Plan.from_dict(best["plan"]), inner.evaluator.dense
    group = max(range(len(plan.names)), key=lambda each: inner.evaluator.sizes[each] - plan.widths[each])
    others = sorted(set(dense.keep[group]) - set(plan.keep[group]))[: plan.widths[group]]  # type: ignore[arg-type]
    for wrong in (
        plan.replace(group, others),  # not the least important ones are gone
        dense.replace(group, [0]),  # deeper than any rate
        plan.replace(group, bits=4),
        Plan([f"{name}x" for name in plan.names], plan.keep),
    ):
        changed(run / "best_plan.json", plan=wrong.to_dict())
        assert main("better-plans", run) == 1
        error = capsys.readouterr().err
        assert f"{TASK}: left out, ValueError" in error
        assert "no actions of this task's" in error or "of another network" in error
