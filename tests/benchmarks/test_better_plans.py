"""``python -m benchmarks better-plans``: what a run found becomes the best known plan, if it measures better here."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import better_plans, task_commands
from benchmarks import validate as validation
from benchmarks.better_plans import with_better
from benchmarks.budgets import inner_of
from benchmarks.results import Run, write_run
from benchmarks.results_folder import claim
from benchmarks.suites import SUITES, Case, Suite
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry
from tests.suites import TINY, Here, add_suites, made, main

TASK = "digits-mlp"
LIVE = Suite("live", 1, "for tests", (Case(TASK, TASK, 30), Case(f"{TASK}@0.5", TASK, 30, (("budget", 0.5),))), seeds=2)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites, and no new process."""
    add_suites(monkeypatch, TINY, LIVE)
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())


@pytest.fixture(scope="module")
def run() -> Run:
    return made("cma-es", suite=LIVE)


@pytest.fixture(scope="module")
def capped() -> Run:
    return made("cma-es", 1, suite=LIVE)


@pytest.fixture(scope="module")
def inner() -> ReptilePruneEnv:
    return inner_of(gym.make("ReptilePrune-v0", task=TASK))


@pytest.fixture
def low(inner: ReptilePruneEnv, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The task's entry as if little were known: the dense network, and under each cap a plan that returns little."""
    entry = copy.deepcopy(registry.references()[TASK])
    entry["best_known"] |= {"return": 0.0, "plan": inner.evaluator.dense.to_dict()}
    for each in entry["budgets"].values():
        each["best_known"] |= {"return": 0.0, "plan": inner.evaluator.dense.to_dict()}
    entry = json.loads(json.dumps(entry))  # lists, as the file has them
    known = {**registry.references(), TASK: entry}
    monkeypatch.setattr(registry, "references", functools.cache(lambda: known))
    return entry


def written(folder: Path, *runs: Run) -> Path:
    """A folder of results."""
    claim(folder, runs[0].suite, SUITES[runs[0].suite].digest)
    for each in runs:
        write_run(folder, each)
    return folder


def plans_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The best known plans, without and under each cap, whoever found them."""
    return [part["best_known"]["plan"] for part in (entry, *entry["budgets"].values())]


def with_claim(run: Run, claimed: float, row: int = 3) -> Run:
    """The run, one of whose plans claims another return."""
    returns = np.array(run.columns["plan_return"])
    returns[row] = claimed
    return dataclasses.replace(run, seed=1, columns=run.columns | {"plan_return": returns})


def test_a_better_plan_is_taken_as_it_measures_here(low: dict[str, Any], run: Run, inner: ReptilePruneEnv) -> None:
    before = copy.deepcopy(low)
    after = with_better(TASK, low, [run])
    assert low == before
    best, row = after["best_known"], int(np.argmax(run.columns["plan_return"]))
    assert best["return"] == run.columns["plan_return"][row] > 0.9
    assert best["valid"] == run.columns["metric"][row]
    assert best["found_by"] == f"cma-es, {row + 1} of 30 evaluations, seed 0 of live-v1"
    assert best["command"] == "python -m benchmarks run live-v1 --agents cma-es --tasks digits-mlp --seeds 1"
    plan = Plan.from_dict(best["plan"])
    assert list(plan.widths) == run.columns["widths"][row].tolist()
    assert best["test"] == inner.evaluator.test(plan).metric
    assert after["budgets"]["0.75"]["best_known"]["command"] == best["command"]


def test_each_cap_gets_the_best_plan_that_meets_it(low: dict[str, Any], run: Run) -> None:
    after = with_better(TASK, low, [run])
    shares = run.columns["macs"] / run.dense["macs"]
    returns = run.columns["plan_return"]
    for cap, part in after["budgets"].items():
        fitting = returns[shares <= float(cap)]
        wanted = max(float(fitting.max(initial=0)), 0)
        assert part["best_known"]["return"] == wanted
        if wanted > 0:
            assert part["best_known"]["relative_cost"] <= float(cap)
    assert any(part["best_known"]["return"] not in (0, after["best_known"]["return"]) for part in after["budgets"].values())


def test_a_plan_that_was_found_under_a_cap_may_be_the_best_of_all(low: dict[str, Any], capped: Run) -> None:
    after = with_better(TASK, low, [capped])
    best = after["best_known"]
    assert best["return"] == capped.columns["plan_return"].max() == after["budgets"]["0.5"]["best_known"]["return"]
    assert best["found_by"].endswith("seed 0 of live-v1, digits-mlp@0.5")
    assert best["command"] == "python -m benchmarks run live-v1 --agents cma-es --tasks digits-mlp@0.5 --seeds 1"


@pytest.mark.parametrize("claimed", [9.0, np.nan, np.inf])
def test_a_claim_that_does_not_hold_hides_none_that_does(claimed: float, low: dict[str, Any], run: Run) -> None:
    forged = with_claim(run, claimed, int(np.argmin(run.columns["plan_return"])))
    honest = plans_of(with_better(TASK, low, [run]))
    assert plans_of(with_better(TASK, low, [forged, run])) == honest
    if not np.isfinite(claimed):
        assert plans_of(with_better(TASK, low, [forged])) == honest


def test_what_is_known_stays_unless_something_measures_better_here(run: Run) -> None:
    entry = registry.references()[TASK]
    assert with_better(TASK, entry, [run, with_claim(run, 9.0)]) == entry


def test_the_known_plan_is_measured_here_too(low: dict[str, Any], run: Run) -> None:
    # Another machine saw one example otherwise: the same plan is no better than itself.
    best = with_better(TASK, low, [run])
    best["best_known"]["return"] -= 0.03
    assert with_better(TASK, best, [run]) == best


def test_a_plan_that_no_action_reaches_is_not_taken(low: dict[str, Any], run: Run) -> None:
    row, widths = int(np.argmax(run.columns["plan_return"])), np.array(run.columns["widths"])
    widths[row, 0] = 1  # of the largest rate, .9, more stay
    beyond = dataclasses.replace(run, columns=run.columns | {"widths": widths})
    assert with_better(TASK, low, [beyond])["best_known"]["return"] < run.columns["plan_return"][row]


def test_a_measurement_that_is_no_number_is_not_taken(low: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reptile_env.evaluation.reference.Reference.return_of", lambda self, measured: float("nan"))
    assert with_better(TASK, low, [run]) == low


def test_the_command_takes_validated_runs_and_writes_whole_entries(
    low: dict[str, Any], run: Run, capped: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "references.json"
    for module in (better_plans, task_commands):
        monkeypatch.setattr(module, "REFERENCES", file)
    file.write_text(json.dumps({"another": 1, TASK: low}))
    runs = [dataclasses.replace(each, best_known_return=0.0) for each in (run, capped)]  # as they would have been made then
    live, tables = written(tmp_path / "live", *runs), written(tmp_path / "tables", made("cma-es"))
    assert main("better-plans", live) == 2
    assert "was not validated" in capsys.readouterr().err
    for folder in (live, tables):
        assert main("validate", folder, "--workers", 1) == 0
    before = file.read_text()
    assert main("better-plans", tables) == 0  # a table's returns are its own
    assert main("better-plans", live, "--dry-run") == 0
    assert file.read_text() == before
    printed = capsys.readouterr().out
    assert "0 best known plans replaced" in printed
    assert f"{TASK}: 0.0000 -> " in printed
    assert main("better-plans", live, tables) == 0
    wanted = json.loads(json.dumps(with_better(TASK, low, runs)))
    assert json.loads(file.read_text()) == {"another": 1, TASK: wanted}
    assert wanted != json.loads(before)[TASK]


def test_what_cannot_be_measured_is_told_and_the_rest_goes_on(
    low: dict[str, Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def missing(*arguments: Any) -> Any:
        raise FileNotFoundError("its data are missing")

    folder = written(tmp_path, dataclasses.replace(run, best_known_return=0.0))
    assert main("validate", folder, "--workers", 1) == 0
    monkeypatch.setattr(better_plans, "with_better", missing)
    assert main("better-plans", folder, "--dry-run") == 1
    assert "digits-mlp: left out, FileNotFoundError: its data are missing" in capsys.readouterr().err


def test_an_entry_that_another_process_changes_meanwhile_is_not_written_over(
    low: dict[str, Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "references.json"
    for module in (better_plans, task_commands):
        monkeypatch.setattr(module, "REFERENCES", file)
    theirs = json.dumps({TASK: low | {"w": 0.123}})
    file.write_text(theirs)
    folder = written(tmp_path / "live", dataclasses.replace(run, best_known_return=0.0))
    assert main("validate", folder, "--workers", 1) == 0
    assert main("better-plans", folder) == 1
    printed = capsys.readouterr()
    assert file.read_text() == theirs
    assert "another process has changed it meanwhile" in printed.err
    assert "0 best known plans replaced" in printed.out


def test_references_that_cannot_be_written_are_told_before_anything_is_measured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = written(tmp_path / "live", run)
    assert main("validate", folder, "--workers", 1) == 0
    package, access = better_plans.REFERENCES.parent, os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != package and access(path, mode))
    assert main("better-plans", folder) == 2
    assert "--dry-run tells what is better" in " ".join(capsys.readouterr().err.split())


def test_networks_of_the_family_have_references_of_their_own(run: Run, capsys: Any) -> None:
    member = dataclasses.replace(run, settings=run.settings | {"task": "transfer-mlp-1"})
    assert better_plans._by_task([member, run]).keys() == {TASK}
    assert capsys.readouterr().err == ""


def test_another_network_or_scale_is_no_candidate(low: dict[str, Any], run: Run, capsys: Any) -> None:
    other = dataclasses.replace(run, groups=tuple(f"{name}x" for name in run.groups))
    with pytest.raises(ValueError, match="was of another network"):
        with_better(TASK, low, [other])
    assert list(better_plans._by_task([run])) == [TASK]
    assert better_plans._by_task([dataclasses.replace(run, scale=run.scale | {"w": 0.5})]) == {}
    assert f"no references under these settings: {TASK}" in capsys.readouterr().err


def test_what_is_no_folder_of_results_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert main("better-plans", tmp_path) == 2
    assert "is no folder of results" in " ".join(capsys.readouterr().err.split())
