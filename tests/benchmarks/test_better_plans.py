"""``python -m benchmarks better-plans``: what a run found becomes the best known plan, if it measures better here."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.cli import run as run_app
from benchmarks import better_plans
from benchmarks.__main__ import app
from benchmarks.better_plans import with_better
from benchmarks.budgets import inner_of
from benchmarks.report.cases import by_suite
from benchmarks.results import Run, write_run
from benchmarks.results_folder import claim
from benchmarks.suites import Case, Suite
from reptile_env.compression.plan import Plan
from reptile_env.tasks import registry
from tests.suites import made

TASK = "digits-mlp"
LIVE = Suite("live", 1, "for tests", (Case(TASK, TASK, 30), Case(f"{TASK}@0.5", TASK, 30, (("budget", 0.5),))), seeds=2)


@pytest.fixture(scope="module")
def run() -> Run:
    return made("cma-es", suite=LIVE)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The task's entry as if little were known of it."""
    entry = copy.deepcopy(registry.references()[TASK])
    for each in (entry, *entry["budgets"].values()):
        each["best_known"]["return"] = 0.9
    known = {**registry.references(), TASK: entry}
    monkeypatch.setattr(registry, "references", functools.cache(lambda: known))
    return entry


def main(*arguments: object) -> int:
    return run_app(app, "python -m benchmarks", "a command", ["better-plans", *map(str, arguments)])


def taken(entry: dict[str, Any], *runs: Run) -> dict[str, Any]:
    (suite,) = by_suite(runs)
    return with_better(TASK, entry, suite.cases)


def test_a_better_plan_is_taken_as_it_measures_here(low: dict[str, Any], run: Run) -> None:
    before = copy.deepcopy(low)
    after = taken(low, run)
    assert low == before
    best, row = after["best_known"], int(np.argmax(run.columns["plan_return"]))
    assert best["return"] == run.columns["plan_return"][row] > 0.9
    assert best["valid"] == run.columns["metric"][row]
    assert best["found_by"] == f"cma-es, {row + 1} of 30 evaluations, seed 0 of live-v1"
    assert best["command"] == "python -m benchmarks run live-v1 --agents cma-es --tasks digits-mlp --seeds 1"
    inner = inner_of(gym.make("ReptilePrune-v0", task=TASK))
    plan = Plan.from_dict(best["plan"])
    assert list(plan.widths) == run.columns["widths"][row].tolist()
    assert best["test"] == inner.evaluator.test(plan).metric
    fitting = [cap for cap in after["budgets"] if best["relative_cost"] <= float(cap)]
    for cap, known in after["budgets"].items():
        assert (known["best_known"]["return"] == best["return"]) == (cap in fitting)


def test_a_plan_under_a_cap_counts_there(low: dict[str, Any]) -> None:
    capped = made("cma-es", 1, suite=LIVE)
    after = taken(low, capped)
    best = after["budgets"]["0.5"]["best_known"]
    assert best["return"] == capped.columns["plan_return"].max() > 0.9
    assert best["relative_cost"] <= 0.5
    # It is the best of all too, and says how it was found.
    assert after["best_known"]["plan"] == best["plan"]
    assert after["best_known"]["found_by"] == f"{best['found_by']} (with at most 50% of the MACs)"
    assert after["best_known"]["command"] == "python -m benchmarks run live-v1 --agents cma-es --tasks digits-mlp@0.5 --seeds 1"


def test_a_claim_that_does_not_hold_changes_nothing(run: Run) -> None:
    entry = registry.references()[TASK]
    claimed = dataclasses.replace(run, columns=run.columns | {"plan_return": run.columns["plan_return"] + 5})
    assert taken(entry, claimed) == entry


def test_the_command_writes_what_is_better_and_nothing_of_tables(
    low: dict[str, Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    written: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(better_plans, "write_reference", written.__setitem__)
    live, tables = tmp_path / "live", tmp_path / "tables"
    for folder, each in ((live, run), (tables, made("cma-es"))):
        claim(folder, each.suite, "0" * 64)
        write_run(folder, each)
    assert main(tables) == 0
    assert main(live, "--dry-run") == 0
    assert written == {}
    printed = capsys.readouterr().out
    assert "0 better plans written" in printed
    assert "digits-mlp: 0.9000 -> " in printed
    assert main(live, tables) == 0
    assert written == {TASK: taken(low, run)}


def test_what_is_no_folder_of_results_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert main(tmp_path) == 2
    assert "is no folder of results" in " ".join(capsys.readouterr().err.split())
