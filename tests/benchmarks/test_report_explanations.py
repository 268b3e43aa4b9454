"""The report's explanations: neighbours of the best plans, measured once and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import pytest

import reptile_env
from benchmarks.execution import Job, execute
from benchmarks.report.command import FIGURES, PAGE
from benchmarks.report.explanations import Explanations, best_plans
from benchmarks.results import from_bytes, read_runs, write_run
from benchmarks.results_folder import EXPLANATIONS_FILE, claim
from benchmarks.suites import Case as SuiteCase
from benchmarks.suites import Suite as SuiteData
from tests.reports import report, suite_of
from tests.results import made_run
from tests.tables import NAME, write_tiny


@pytest.fixture
def explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real runs of two agents on the small table."""
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    write_tiny(tmp_path)
    settings = (("evaluator", "table"),)
    suite = SuiteData("tiny", 1, "for a test", (SuiteCase(NAME, NAME, 12, settings),), seeds=1)
    claim(tmp_path / "results", suite.title, suite.digest)
    for agent in ("random", "uniform"):
        (data,) = execute(Job(suite, agent, suite.cases, 0)).files.values()
        write_run(tmp_path / "results", from_bytes(data))
    return tmp_path / "results"


def test_best_plans_are_explained_by_measuring_their_neighbours(explained: Path) -> None:
    out = explained.parent / "report"
    assert report(explained, "--out", out) == 0
    why = pd.read_csv(out / FIGURES / "tiny-v1" / "why.csv")
    assert set(why["agent"]) == {"random", "uniform"}
    env: Any = gym.make("ReptilePrune-v0", task=NAME, evaluator="table").unwrapped
    grid = env.evaluator.grid
    for agent in ("random", "uniform"):
        rows = why[why["agent"] == agent].to_dict("records")
        widths = [row["kept"] for row in rows]
        here = env.measure(grid.plan_of(widths))

        def neighbour(place: int, width: int, widths: list[int] = widths) -> Any:
            return env.measure(grid.plan_of([*widths[:place], width, *widths[place + 1 :]]))

        for place, row in enumerate(rows):
            undone = neighbour(place, row["size"])
            assert row["undo_metric"] == pytest.approx(undone.metric - here.metric)
            assert row["undo_return"] == pytest.approx(env.reference.return_of(undone) - env.reference.return_of(here))
            deeper = [neighbour(place, width).metric - here.metric for width in grid.levels[place] if width < row["kept"]]
            if deeper:
                assert any(row["deeper_metric"] == pytest.approx(each) for each in deeper)
                assert row["deeper_cost"] < 0
            else:
                assert (row["deeper_metric"], row["deeper_cost"]) == (0, 0)


def test_explanations_are_measured_once_and_kept(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(explained, "--out", explained.parent / "first", "--no-figures") == 0
    assert (explained / EXPLANATIONS_FILE).exists()
    first = (explained.parent / "first" / PAGE).read_bytes()
    monkeypatch.setattr("benchmarks.report.explanations.gym.make", lambda *_, **__: pytest.fail("measured again"))
    assert report(explained, "--out", explained.parent / "second", "--no-figures") == 0
    assert (explained.parent / "second" / PAGE).read_bytes() == first
    kept = json.loads((explained / EXPLANATIONS_FILE).read_text(encoding="utf-8"))
    assert kept["version"] == reptile_env.__version__


def test_explanations_that_were_kept_before_the_deeper_step_told_its_width_are_read_or_measured_anew(explained: Path) -> None:
    runs = read_runs(explained)
    plans = best_plans(suite_of(*runs).cases)
    first = Explanations(explained)
    first.measure(plans)
    path = explained / EXPLANATIONS_FILE
    kept = json.loads(path.read_text(encoding="utf-8"))
    new = ("deeper_kept", "fewer_bits", "bits_metric", "bits_cost", "bits_return")
    new += ("lower_rank", "rank_metric", "rank_cost", "rank_return")
    kept["plans"] = {
        key: [{name: value for name, value in group.items() if name not in new} for group in groups]
        for key, groups in kept["plans"].items()
    }
    path.write_text(json.dumps(kept), encoding="utf-8")
    again = Explanations(explained)
    assert all(again.of(plan) == (None, None) for plan in plans)  # on a table the width hangs on its grid
    again.measure(plans)
    assert [again.of(plan) for plan in plans] == [first.of(plan) for plan in plans]
    live = best_plans(suite_of(*(dataclasses.replace(run, settings=run.settings | {"evaluator": "live"}) for run in runs)).cases)
    path.write_text(json.dumps(kept), encoding="utf-8")
    for group in Explanations(explained).of(live[0])[0] or pytest.fail("it was not read"):
        assert group["kept"] - group["deeper_kept"] == min(max(1, round(0.1 * group["size"])), group["kept"] - 1)
    for broken in ("no list", [], [1], [{"size": "x", "kept": None}]):
        path.write_text(json.dumps(kept | {"plans": dict.fromkeys(kept["plans"], broken)}), encoding="utf-8")
        again = Explanations(explained)
        again.measure(plans)
        assert [again.of(plan) for plan in plans] == [first.of(plan) for plan in plans]


def test_what_cannot_be_explained_is_told(tmp_path: Path) -> None:
    suite = suite_of(made_run())  # of a task that is not there
    plans = best_plans(suite.cases)
    explanations = Explanations(tmp_path)
    explanations.measure(plans)
    groups, error = explanations.of(plans[0])
    assert groups is None
    assert error is not None
    assert "task-a" in error
    assert not (tmp_path / EXPLANATIONS_FILE).exists()


def test_a_plan_that_measures_otherwise_here_is_not_explained(explained: Path) -> None:
    run = from_bytes((explained / "random" / f"{NAME}.0.run").read_bytes())
    run.columns["metric"][:] += 0.1
    plans = best_plans(suite_of(run).cases)
    explanations = Explanations(explained)
    explanations.measure(plans)
    assert "is it the same network?" in str(explanations.of(plans[0])[1])


def test_a_folder_that_may_only_be_read_is_reported_on_all_the_same(
    explained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("benchmarks.report.explanations.write_over", refuse)
    assert report(explained, "--out", explained.parent / "report", "--no-figures") == 0
    assert "explanations are not kept" in capsys.readouterr().out
