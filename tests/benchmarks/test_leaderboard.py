"""``python -m benchmarks leaderboard``: validated runs alone, and no winner where runs are missing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from agents.registry import AGENTS, make_agent
from benchmarks import validate as validation
from benchmarks.leaderboard import Validated, page
from benchmarks.results import Run, run_path, write_run
from benchmarks.results_folder import claim
from tests.results import with_returns
from tests.suites import TINY, Here, add_suites, changed, made, main

CHECK = {"validated": "2026-01-02T03:04:05", "sample": "all plans", "machine": "a machine"}
VALIDATION: dict[str, Any] = {"checks": [CHECK], "rows": {}, "failed": []}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite, and no new process."""
    add_suites(monkeypatch, TINY)
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())


@pytest.fixture(scope="module")
def run() -> Run:
    return made("random")


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:
    """Results: three honest runs."""
    claim(tmp_path, TINY.title, TINY.digest)
    for each in (run, made("dqn", 1), made("uniform")):
        write_run(tmp_path, each)
    return tmp_path


def test_the_leaderboard_takes_validated_rows_alone(folder: Path, run: Run, capsys: Any) -> None:
    page = folder.parent / "leaderboard.md"
    assert main("leaderboard", folder, "--out", page) == 2
    assert "was not validated" in capsys.readouterr().err
    settings = make_agent("cma-es").settings
    write_run(
        folder, dataclasses.replace(made("random", seed=1), agent="cma-es", agent_settings=settings)
    )  # its decisions are fine
    assert main("validate", folder, "--all", "--workers", 1) == 0
    assert main("leaderboard", folder, "--out", page) == 0
    text = page.read_text()
    assert "## tiny-v1" in text
    assert all(f"| {agent} |" in text for agent in ("random", "uniform", "cma-es"))
    capped, free = text.split("### search, cost at most 60% of dense: ")[1].split("### search, no cap: ")
    assert ("| random |" in free, "| random |" in capped) == (True, False)
    assert "| agent | return |" in capped  # no best plan under such a cap is known
    assert "4 runs, made at" in text
    path = run_path(folder, run.agent, run.task, run.seed)
    path.unlink()
    write_run(folder, changed(run, "metric", 11, 0.99))  # after the validation
    assert main("leaderboard", folder, "--out", page) == 0
    assert "| random |" not in page.read_text()
    assert "1 runs that were not checked or not confirmed" in page.read_text()
    write_run(folder, made("random", seed=2))  # as good as any, and not checked
    assert main("leaderboard", folder, "--out", page) == 0
    assert "2 runs that were not checked" in page.read_text()


def test_the_leaderboard_leaves_out_runs_of_an_agent_that_has_changed_since(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main("validate", folder, "--all", "--workers", 1) == 0
    before = Validated.read(folder)
    assert before.left_out == 0
    changed_since = dataclasses.replace(AGENTS["random"], measure="step")
    monkeypatch.setitem(AGENTS, "random", changed_since)  # type: ignore[arg-type]
    after = Validated.read(folder)
    assert after.left_out == 1
    assert {run.agent for run in before.runs} - {run.agent for run in after.runs} == {"random"}
    assert main("leaderboard", folder, folder) == 2


def test_the_leaderboard_marks_nobody_where_runs_are_missing() -> None:
    good = [with_returns([1.5 + 0.001 * seed], agent="sac", seed=seed) for seed in range(5)]
    poor = [with_returns([1.0 + 0.001 * seed], seed=seed) for seed in range(5)]
    assert "| **sac** |" in page([Validated(Path("made"), VALIDATION, [*good, *poor], 0)])
    missing = page([Validated(Path("made"), VALIDATION, [*good, *poor[:4]], 1)])
    assert "| sac |" in missing
    assert "Left out: 1 runs" in missing
    others = [dataclasses.replace(run, seed=run.seed + 1) for run in poor]
    assert "| sac |" in page([Validated(Path("made"), VALIDATION, [*good, *others], 0)])


def test_runs_under_different_caps_are_not_mixed() -> None:
    runs = [
        with_returns(
            [level + 0.01 * seed], agent=agent, seed=seed, task=f"task-a@{cap}", settings={"task": "task-a", "budget": cap}
        )
        for cap, level in ((0.25, 1.1), (0.5, 1.4))
        for agent in ("random", "sac")
        for seed in range(3)
    ]
    text = page([Validated(Path("made"), VALIDATION, runs, 0)])
    tight, wide = text.split("### search, cost at most ")[1:]
    assert [part.split(": ")[0] for part in (tight, wide)] == ["25% of dense", "50% of dense"]
    alone = page([Validated(Path("made"), VALIDATION, [run for run in runs if "0.5" in run.task], 0)])
    assert wide.split("\n\n", 1)[1] == alone.split("### search: ")[1].split("\n\n", 1)[1]
    assert tight.split("\n\n", 1)[1] != wide.split("\n\n", 1)[1]


def test_tasks_without_a_scale_of_scores_are_told() -> None:
    known, unknown = (with_returns([1.2], task=name, best_known_return=best) for name, best in (("a", 1.5), ("b", math.nan)))
    assert "is known: b." in page([Validated(Path("made"), VALIDATION, [known, unknown], 0)])


def test_a_run_that_does_not_say_where_it_was_made_is_listed_all_the_same() -> None:
    text = page(
        [Validated(Path("made"), VALIDATION, [with_returns([1.5], machine={}), with_returns([1.2], agent="sac", machine={})], 0)]
    )
    assert "2 runs, made at 0123abc on unknown." in text
