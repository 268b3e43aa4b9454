"""``python -m benchmarks validate``: its verdicts, what they survive, and what is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import validate as validation
from benchmarks.engine import Lost
from benchmarks.results import Run, run_path, write_run
from benchmarks.results_folder import claim
from tests.suites import BROKEN, TINY, Here, changed, made, main, recomputed

pytestmark = pytest.mark.usefixtures("suites")


@pytest.fixture
def folder(tmp_path: Path, run: Run, stepwise: Run) -> Path:
    """Results: three honest runs."""
    claim(tmp_path, TINY.title, TINY.digest)
    for each in (run, stepwise, made("uniform")):
        write_run(tmp_path, each)
    return tmp_path


@pytest.mark.slow
def test_the_command_marks_each_row_and_says_what_it_expected(folder: Path, run: Run, capsys: Any) -> None:
    assert main("validate", folder, "--all", "--workers", 1) == 0
    assert "3 of 3 rows ok" in capsys.readouterr().out
    path = run_path(folder, run.agent, run.task, run.seed)
    path.unlink()
    write_run(folder, recomputed(changed(run, "metric", 11, 0.99)))
    cut = run_path(folder, "uniform", "digits-mlp", 0)
    cut.write_bytes(cut.read_bytes()[:-3])
    (folder / "notes.txt").write_text("not a run")
    assert main("validate", folder, "--all", "--workers", 1) == 1
    printed = capsys.readouterr().out
    assert "ok  dqn/digits-mlp@0.6.0.run: 40 of 40 plans replayed" in printed
    received = run.columns["metric"][11].item()
    assert "NOT random/digits-mlp.0.run: 40 of 40 plans replayed" in printed
    assert f"\n      plan 12, metric: expected 0.99, received {received}\n" in printed
    assert "NOT uniform/digits-mlp.0.run" in printed
    assert "is damaged" in printed
    assert "NOT notes.txt" in printed
    assert "1 of 4 rows ok" in printed
    rows = json.loads((folder / "validation.json").read_text())["rows"]
    assert {name: row["ok"] for name, row in rows.items()} == {
        "dqn/digits-mlp@0.6.0.run": True,
        "notes.txt": False,
        "random/digits-mlp.0.run": False,
        "uniform/digits-mlp.0.run": False,
    }
    assert rows["random/digits-mlp.0.run"]["problems"][0]["expected"] == 0.99


def test_a_folder_that_may_only_be_read_is_validated_all_the_same(
    folder: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(validation, "write_over", refuse)
    assert main("validate", folder) == 1
    printed = capsys.readouterr()
    assert "3 of 3 rows ok" in printed.out
    assert "validation.json can't be written, so the verdicts are not kept: Permission denied" in printed.err


def test_a_check_that_breaks_off_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Losing(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from ((job, Lost("Traceback:\n  somewhere\nValueError: no shape\n")) for job in jobs)

    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Losing())
    assert main("validate", folder) == 1
    printed = capsys.readouterr().out
    assert "received 'the replay ended without a result: ValueError: no shape'" in printed
    assert "Traceback" not in printed


def test_only_new_and_changed_files_are_checked_where_that_is_asked(folder: Path, run: Run, here: None, capsys: Any) -> None:
    assert main("validate", folder, "--all") == 0
    before = json.loads((folder / "validation.json").read_text())
    assert main("validate", folder, "--all", "--new") == 0
    assert "3 of 3 rows ok, 3 of them checked before" in capsys.readouterr().out
    assert json.loads((folder / "validation.json").read_text())["rows"] == {k: v | {"check": 0} for k, v in before["rows"].items()}
    write_run(folder, made("cma-es"))
    run_path(folder, run.agent, run.task, run.seed).unlink()
    write_run(folder, changed(run, "metric", 11, 0.99))
    assert main("validate", folder, "--all", "--new") == 1
    printed = capsys.readouterr().out
    assert "ok  cma-es/digits-mlp.0.run: 40 of 40" in printed
    assert "NOT random/digits-mlp.0.run" in printed
    assert "dqn" not in printed
    assert "3 of 4 rows ok, 2 of them checked before" in printed
    after = json.loads((folder / "validation.json").read_text())
    assert len(after["checks"]) == 2
    assert {name: row["check"] for name, row in after["rows"].items()} == {
        "cma-es/digits-mlp.0.run": 1,
        "dqn/digits-mlp@0.6.0.run": 0,
        "random/digits-mlp.0.run": 1,
        "uniform/digits-mlp.0.run": 0,
    }
    # It stays refused, though nobody looks at it again.
    assert main("validate", folder, "--new", "--sample", "1") == 1


def test_a_small_sample_leaves_the_verdicts_of_before_and_the_deeper_ones(folder: Path, here: None, capsys: Any) -> None:
    assert main("validate", folder, "--all") == 0
    assert main("validate", folder, "--sample", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].endswith("30 of 40 plans replayed")
    assert printed[-1] == "3 of 3 rows ok, 2 of them checked before"
    found = json.loads((folder / "validation.json").read_text())
    assert {row["checked"] for row in found["rows"].values()} == {row["evaluated"] for row in found["rows"].values()}
    # Thirty plans are not all.
    (folder / "validation.json").unlink()
    assert main("validate", folder, "--sample", "3") == 0
    assert main("validate", folder, "--all", "--new") == 0
    assert "ok  dqn/digits-mlp@0.6.0.run: 40 of 40 plans replayed" in capsys.readouterr().out


def test_a_file_that_is_gone_has_no_verdict(folder: Path, run: Run, here: None, capsys: Any) -> None:
    assert main("validate", folder) == 0
    run_path(folder, run.agent, run.task, run.seed).unlink()
    assert main("validate", folder, "--new") == 0
    assert "2 of 2 rows ok, 2 of them checked before" in capsys.readouterr().out


def test_an_interruption_costs_no_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Interrupted(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from super().run(work, jobs[:2])
            raise KeyboardInterrupt

    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        validation.validate(folder, all_=True, sample=None, seed=0, new=False, workers=1)
    kept = json.loads((folder / "validation.json").read_text())["rows"]
    assert [row["ok"] for row in kept.values()] == [True, True]
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())
    assert main("validate", folder, "--all", "--new") == 0
    assert "3 of 3 rows ok, 2 of them checked before" in capsys.readouterr().out


def test_a_kill_costs_half_a_minute(folder: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(validation, "SAVED", 0.0)
    monkeypatch.setattr(validation._Keeper, "__call__", lambda self, found: counts.append(len(found["rows"])))
    assert main("validate", folder) == 0
    assert counts == [1, 2, 3, 3]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "suite": "tiny-v1", "rows": {}}', "null"])
def test_a_damaged_validation_is_told_of(text: str, folder: Path, capsys: Any) -> None:
    (folder / "validation.json").write_text(text)
    assert main("validate", folder) == 2
    assert "is damaged" in (printed := " ".join(capsys.readouterr().err.split()))
    assert "remove it and run" in printed
    assert (folder / "validation.json").read_text() == text


def test_failed_runs_are_told_of(tmp_path: Path, here: None, capsys: Any) -> None:
    claim(tmp_path, BROKEN.title, BROKEN.digest)
    failed = dataclasses.replace(
        made("random", suite=BROKEN), status="failed", error="oh", columns={}, policy_return=None, policy_evaluation=None
    )
    write_run(tmp_path, failed)
    assert main("validate", tmp_path) == 1  # of nothing, nothing is confirmed
    assert "0 of 0 rows ok; 1 failed runs have nothing to replay: nothing could be confirmed\n" in capsys.readouterr().out
    write_run(tmp_path, made("random", seed=1, suite=BROKEN))
    assert main("validate", tmp_path) == 0
    assert "1 of 1 rows ok; 1 failed runs have nothing to replay\n" in capsys.readouterr().out
    (tmp_path / "random" / "digits-mlp.0.run").unlink()
    (tmp_path / "random" / "digits-mlp.1.run").unlink()
    assert main("validate", tmp_path, "--new") == 1
    assert "0 of 0 rows ok: nothing could be confirmed\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda folder: None, [], "is no folder of results"),
        (lambda folder: claim(folder, "core-v99", "x"), [], "holds results of core-v99, and this version of the program knows"),
        (lambda folder: claim(folder, "tiny-v1", "x"), [], "were others then"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--sample", "0"], "--sample 0: give at least 1"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--workers", "0"], "--workers 0: give at least 1"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--all", "--sample", "5"], "--sample 5 some: give one of them"),
    ],
)
def test_bad_arguments(prepare: Any, arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    prepare(tmp_path)
    assert main("validate", tmp_path, *arguments) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split())
    assert not (tmp_path / "validation.json").exists()
