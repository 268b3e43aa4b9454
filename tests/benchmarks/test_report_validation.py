"""What the report says of validation: how much of the runs was confirmed, and what their plans are worth on the test split."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.report.cases import by_suite, judged
from benchmarks.report.command import FIGURES, PAGE
from benchmarks.report.estimates import ALL, lines, scopes
from benchmarks.report.validation import Validation
from benchmarks.results import Run, run_path, write_run
from benchmarks.results_folder import VALIDATION_FILE
from tests.reports import report, suite_of, validated
from tests.results import failed_run, made_run, with_returns, write_runs


def summary_of(out: Path) -> Any:
    """What the page of a report is told of its one suite."""
    text = (out / PAGE).read_text(encoding="utf-8")
    return json.loads(text.split('id="summary">')[1].split("</script>")[0])["suites"][0]


def test_page_and_command_say_how_many_runs_were_confirmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [with_returns([1.2 + 0.1 * seed], seed=seed) for seed in range(4)]
    folder = write_runs(tmp_path / "results", [*runs, failed_run(seed=4)])
    options = ("--no-explain", "--no-figures")
    assert report(folder, "--out", tmp_path / "none", *options) == 0
    nothing = f"NOT validated: run `python -m benchmarks validate {folder}`"
    assert nothing in capsys.readouterr().out
    assert summary_of(tmp_path / "none")["validation"] == nothing
    validated(folder, {run: {} for run in runs})
    assert report(folder, "--out", tmp_path / "all", *options) == 0
    everything = "4 of 4 runs confirmed by validation (on 2026-01-02, 30 plans of each run)"
    assert everything in capsys.readouterr().out
    told = summary_of(tmp_path / "all")
    assert (told["validation"], told["unconfirmed"], told["refused"]) == (everything, False, [])
    problem = {"evaluation": 1, "what": "metric", "expected": 0.9, "received": 0.8}
    validated(folder, {runs[0]: {}, runs[1]: {"ok": False, "problems": [problem]}, runs[2]: {"sha256": "0" * 64}})
    assert report(folder, "--out", tmp_path / "some", "--no-explain") == 0
    some = "1 of 4 runs confirmed by validation (on 2026-01-02, 30 plans of each run), 1 refused, 1 changed since, 1 not checked"
    assert some in capsys.readouterr().out
    told = summary_of(tmp_path / "some")
    assert (told["validation"], told["unconfirmed"]) == (some, True)
    refused = {"agent": "random", "task": "task-a", "seed": 1, "error": "plan 1: metric: expected 0.9, received 0.8"}
    assert told["refused"] == [refused]
    assert [run["refused"] for run in told["tasks"][0]["runs"]] == [False, True, False, False]
    listed = pd.read_csv(tmp_path / "some" / FIGURES / "made-v1" / "runs.csv")
    verdicts = ["confirmed", "refused", "changed since", "not checked"]
    assert listed[listed["status"] == "done"]["validation"].tolist() == verdicts


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: "{",
        lambda data: json.dumps(data | {"checks": [{"validated": "2026"}]}),
        lambda data: json.dumps(data | {"rows": {name: row | {"test": [1]} for name, row in data["rows"].items()}}),
        lambda data: json.dumps(data | {"rows": {name: row | {"ok": False, "problems": 3} for name, row in data["rows"].items()}}),
    ],
    ids=["no JSON", "no sample", "no returns", "no problems"],
)
def test_a_damaged_validation_is_told_in_one_line(tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run()
    folder = validated(write_runs(tmp_path / "results", [run]), {})
    validated(folder, {run: {}})
    path = folder / VALIDATION_FILE
    path.write_text(damage(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert report(folder, "--out", tmp_path / "report", "--no-explain") == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert f"{VALIDATION_FILE} is damaged" in captured
    assert "validate" in captured


def test_scores_on_the_test_split_are_of_the_plans_that_the_runs_are_judged_by(tmp_path: Path) -> None:
    # Scores lie between returns of 1 and 1.6.
    searched = [with_returns([1.5], agent="sac", seed=seed, policy_return=1.2) for seed in range(3)]
    one, other = with_returns([1.4]), with_returns([1.4], seed=1)
    folder = write_runs(tmp_path / "results", [*searched, one, other])
    tests = [{"uniform": 0.9, "best": 1.2 + 0.03 * seed, "policy": 1.05} for seed in range(3)]
    verdicts = {run: {"test": test} for run, test in zip(searched, tests, strict=True)}
    validated(folder, verdicts | {one: {"test": None}, other: {"ok": False, "test": {"uniform": 0, "best": 9, "policy": None}}})
    assert report(folder, "--out", tmp_path / "report", "--no-explain") == 0
    files = tmp_path / "report" / FIGURES / "made-v1"
    table = pd.read_parquet(files / "search" / "scores.parquet").set_index("agent")
    pd.testing.assert_frame_equal(pd.read_csv(files / "search" / "scores.csv").set_index("agent"), table, check_dtype=False)
    expected = [(test["best"] - test["uniform"]) / 0.6 for test in tests]
    assert table.loc["sac", "on_test_iqm"] == pytest.approx(np.mean(expected))
    low, high = table.loc["sac", ["on_test_low", "on_test_high"]]
    assert min(expected) - 1e-9 <= low < high <= max(expected) + 1e-9
    assert table.loc[["sac", "random"], "on_test_n"].tolist() == [3, 0]  # a refused run knows nothing
    assert math.isnan(table.loc["random", "on_test_iqm"])
    policy = pd.read_parquet(files / "policy" / "scores.parquet").set_index("agent")
    assert policy.loc["sac", "on_test_iqm"] == pytest.approx(0.25)
    runs = pd.read_parquet(files / "runs.parquet")
    found = runs[(runs["agent"] == "sac") & (runs["track"] == "search")].sort_values("seed")
    assert found["on_test"].tolist() == pytest.approx(expected)
    assert summary_of(tmp_path / "report")["tracks"][0]["scopes"]["task-a"]["lines"][0]["test"]["n"] == 3


def test_returns_on_test_are_put_on_the_scale_of_the_task_like_all_others(tmp_path: Path) -> None:
    scale = made_run().scale
    fine = with_returns([1.2], agent="sac", scale=scale | {"scale": 0.05})
    coarse = with_returns([1.5], agent="dqn", scale=scale | {"scale": 0.04}, best_known_return=math.nan, uniform_return=math.nan)
    transferred = with_returns([1.5], agent="ppo", track="transfer", policy_return=1.5)
    folder = write_runs(tmp_path / "results", [fine, coarse, transferred])
    test = {"uniform": 1.0, "best": 1.3, "policy": None}
    validated(folder, {fine: {"test": test}, coarse: {"test": test}, transferred: {"test": test}})
    (suite,) = by_suite([fine, coarse, transferred])
    (case,) = type(suite)(suite.name, suite.runs, Validation.read(folder, suite.name)).cases
    assert judged(case, fine, "search", "test") == pytest.approx(0.5)
    assert judged(case, coarse, "search", "test") == pytest.approx((0.8 * 1.3 - 1.0) / 0.6)  # the same zero for both
    assert judged(case, transferred, "transfer", "test") == pytest.approx(0.5)
    assert math.isnan(judged(suite.cases[0], fine, "search", "test"))


def test_what_one_validation_example_is_worth_is_read_off_the_accuracies_or_left_out() -> None:
    def accuracies(values: Any, **replaced: Any) -> Run:
        return made_run(plans=len(values), columns={"metric": np.asarray(values, np.float64)}, **replaced)

    counted = accuracies(np.append(np.arange(180, 240, 3), 181) / 250)
    (case,) = suite_of(counted).cases
    assert case.example_worth == pytest.approx(0.9 / 250 / 0.95 / 0.05 / 0.6)
    assert math.isnan(suite_of(accuracies(np.array([180, 181]) / 250)).cases[0].example_worth)  # too few to tell
    assert math.isnan(suite_of(made_run()).cases[0].example_worth)  # no counts
    other = {"scale": made_run().scale | {"metric_name": "spearman"}}
    assert math.isnan(suite_of(accuracies(np.arange(180, 240) / 250, **other)).cases[0].example_worth)


def test_returns_of_different_tasks_have_no_best(tmp_path: Path) -> None:
    suite = suite_of(with_returns([1.5]), with_returns([90.0], task="task-b"))
    found = {scope.name: lines(scope)[0].highest for scope in scopes(suite, "search")}
    assert math.isnan(found[ALL])
    assert (found["task-a"], found["task-b"]) == (1.5, 90)


def test_a_report_of_a_changed_folder_never_takes_an_old_verdict(tmp_path: Path) -> None:
    run = with_returns([1.2])
    folder = validated(write_runs(tmp_path / "results", [run]), {})
    validated(folder, {run: {"test": {"uniform": 0.0, "best": 1.0, "policy": None}}})
    path = run_path(folder, run.agent, run.task, run.seed)
    path.unlink()
    write_run(folder, with_returns([1.9]))
    found = Validation.read(folder, "made-v1")
    assert found.of(run) == "changed since"
    assert math.isnan(found.on_test(run, "search"))
