"""``python -m benchmarks table``: parts on disk, resumed after a kill, never over another's results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from agents.cli import run
from benchmarks.__main__ import app
from benchmarks.table_build import Job, build, estimate, parts_folder
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table import open_table
from reptile_env.evaluation.table_file import read_table
from tests.helpers import run_python
from tests.tables import NAME, RATES, tiny

TASK = "tests.tables:tiny_task"
JOB = Job(TASK, Settings(), RATES, rows_a_part=4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))


def content(path: Path) -> tuple[object, dict[str, list[float]]]:
    """Head and columns of a table without the times, which differ from run to run."""
    packed = read_table(path)
    head = json.loads(json.dumps(packed.head))
    for each in head["further"]:
        del each["values"]["seconds"]
    head["columns"] = [each["name"] for each in head["columns"]]
    return head, {name: column.tolist() for name, column in packed.columns().items() if name != "seconds"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table built in one go."""
    return build(JOB, tmp_path_factory.mktemp("whole") / f"{NAME}.table")


def test_it_holds_what_the_running_network_measures(whole: Path) -> None:
    table, (_, head, columns) = open_table(whole), tiny()
    assert table.head.grid == head.grid
    for name, column in columns.items():
        if name != "seconds":
            assert table.columns[name].tolist() == column.tolist()
    assert (table.columns["seconds"] > 0).all()
    assert not parts_folder(whole).exists()


def killed(out: Path, workers: int, after: int) -> int:
    """Build in a process that kills itself, as kill -9 does, when `after` parts are on disk; gives the number that it left."""
    found = run_python(
        f"""
        import os, signal
        from pathlib import Path
        from benchmarks.table_build import Job, build
        from reptile_env.evaluation.settings import Settings

        parts = []

        def progress(done, rows, found):
            parts.append(done)
            if len(parts) > {after}:
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            build(Job({TASK!r}, Settings(), {RATES!r}, rows_a_part=4), Path({str(out)!r}), {workers}, progress)
        """
    )
    assert found.returncode == -9, found.stderr
    assert not out.exists()
    return len(list(parts_folder(out).glob("part-*.npz")))


def interrupted(out: Path, after: int) -> None:
    """Build, and press Ctrl-C when `after` parts are on disk."""

    def progress(done: int, rows: int, found: int) -> None:
        if done == 4 * after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(JOB, out, progress=progress)
    assert not out.exists()


def test_what_was_measured_is_not_measured_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{NAME}.table"
    interrupted(out, after=5)
    steps: list[tuple[int, int, int]] = []
    build(JOB, out, progress=lambda *step: steps.append(step))
    assert steps == [(done, 64, 20) for done in range(20, 65, 4)]
    assert content(out) == content(whole)


def test_a_kill_ends_the_workers_too_and_the_same_job_goes_on(whole: Path, tmp_path: Path) -> None:
    """The workers' standard error is the killed process's, so that waiting for its end waits for theirs."""
    out = tmp_path / f"{NAME}.table"
    left = killed(out, workers=2, after=2)
    assert 2 <= left <= 16
    steps: list[tuple[int, int, int]] = []
    build(JOB, out, progress=lambda *step: steps.append(step))
    assert steps[0] == (4 * left, 64, 4 * left)
    assert content(out) == content(whole)


def test_a_damaged_part_is_measured_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{NAME}.table"
    interrupted(out, after=3)
    part = parts_folder(out) / "part-000001.npz"
    part.write_bytes(part.read_bytes()[:-30])
    firsts: list[int] = []
    build(JOB, out, progress=lambda done, rows, found: firsts.append(found))
    assert firsts[0] == 8
    assert content(out) == content(whole)


def test_parts_of_another_job_are_refused(tmp_path: Path) -> None:
    out = tmp_path / f"{NAME}.table"
    interrupted(out, after=1)
    for other in (Job(TASK, Settings("none"), RATES), Job(TASK, Settings(), (0.0, 0.5))):
        with pytest.raises(ValueError, match="delete it, or name another file"):
            build(other, out)
    shutil.rmtree(parts_folder(out))
    assert build(Job(TASK, Settings(), (0.0, 0.5)), out) == out


def test_the_command_tells_how_long_it_would_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, seconds = estimate(JOB)
    assert rows == 64
    assert 0 < seconds < 60
    out = tmp_path / f"{NAME}.table"
    assert run(app, "x", "y", ["table", TASK, "--levels", "3", "--dry-run", "--out", str(out)]) == 0
    assert "27 rows, about " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_command_builds_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"{NAME}@small.table"
    arguments = ["table", TASK, "--levels", "2", "--workers", "1", "--train-loss", "--out", str(out)]
    assert run(app, "x", "y", arguments) == 0
    assert f"REPTILE_TABLES={tmp_path}" in capsys.readouterr().out.replace("\n", "")
    table = open_table(out)
    assert table.head.grid.levels == ((24, 2), (12, 1), (16, 2))
    assert table.head.settings == Settings(train_loss=True)
    assert np.isfinite(table.columns["train_loss"]).all()
    before = out.read_bytes()
    assert run(app, "x", "y", arguments) == 2
    assert out.read_bytes() == before
    assert "exists; name another file, or say --replace" in capsys.readouterr().err
    assert run(app, "x", "y", [*arguments, "--replace"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "unknown task 'nothing'"),
        ([TASK, "--levels", "11"], "2 to 10 levels"),
        ([TASK, "--workers", "0"], "give at least 1"),
        ([TASK, "--recovery", "reconstruct+finetune"], "without 'finetune'"),
        ([TASK, "--importance", "l3"], "did you mean"),
        ([TASK, "--out", "other.table"], "call it tiny.table"),
        ([TASK, "--out", "tiny.json"], "call it tiny.table"),
        ([TASK, "--out", "nowhere/tiny.table"], "there is no folder nowhere"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "x", "y", ["table", *arguments]) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1
