"""``python -m benchmarks run`` when things go wrong: nothing is lost or written over, and what is in the way is told of."""

from __future__ import annotations

import datetime
import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import execution, results_folder
from benchmarks.execution import Job, execute
from benchmarks.report.cases import Suite
from benchmarks.report.summary import what_was_run
from benchmarks.results import from_bytes, read_runs, run_path
from benchmarks.runner import jobs_of, run_jobs
from benchmarks.suites import SUITES
from tests.chores import wait_for
from tests.helpers import ROOT
from tests.suites import NAMES, TINY, Here, Losing, content, made, main

pytestmark = pytest.mark.usefixtures("suites")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_failures_are_rows_with_their_traceback(tmp_path: Path, here: None, capsys: Any) -> None:
    out = tmp_path / "results"
    command = ["run", "broken", "--agents", "random", "--seeds", 2, "--out", out]
    assert main(*command) == 1
    printed = capsys.readouterr()
    assert "2 runs failed" in printed.err
    assert f"{run_path(out, 'random', 'too-small', 1)}: ValueError: " in printed.err
    runs = read_runs(out)
    assert [(run.task, run.status) for run in runs] == [("digits-mlp", "done")] * 2 + [("too-small", "failed")] * 2
    assert "Traceback" in str(runs[-1].error)
    assert "can't be reached" in str(runs[-1].error)
    assert runs[-1].settings["budget"] == 1e-6
    assert main(*command) == 1  # they stay failed, and are told of again
    assert "0 runs to make, 2 are there" in capsys.readouterr().out
    assert main(*command, "--retry-failed") == 1
    assert "2 runs to make, 2 are there" in capsys.readouterr().out
    assert len(read_runs(out)) == 4


def test_a_failed_row_stays_until_its_new_run_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = tmp_path / "results"
    jobs = jobs_of(TINY, ["random"], NAMES[:1], 2)

    class Killed(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from itertools.islice(super().run(work, jobs), 1)
            raise KeyboardInterrupt

    run_jobs(jobs, out, Losing())
    command = ["run", "tiny", "--agents", "random", "--tasks", NAMES[0], "--seeds", 2, "--out", out, "--retry-failed"]
    monkeypatch.setattr("benchmarks.run_command.LocalEngine", lambda workers: Killed())
    assert main(*command) == 1
    assert [run.error for run in read_runs(out)] == [None, "its worker died"]
    monkeypatch.setattr("benchmarks.run_command.LocalEngine", lambda workers: Here())
    capsys.readouterr()
    assert main(*command) == 0
    assert "1 runs to make, 1 are there" in capsys.readouterr().out
    assert [run.error for run in read_runs(out)] == [None, None]


def test_a_failure_never_takes_the_place_of_a_run_that_is_done(tmp_path: Path) -> None:
    jobs = jobs_of(TINY, ["random"], NAMES[:1], 1)
    run_jobs(jobs, tmp_path, Losing())
    run_jobs(jobs, tmp_path, Here())  # as another command does that shares the folder
    run_jobs(jobs, tmp_path, Losing())
    assert [run.error for run in read_runs(tmp_path)] == [None]


def test_a_lost_worker_is_a_row_too(tmp_path: Path) -> None:
    run_jobs(jobs_of(TINY, ["random"], NAMES[:1], 1), tmp_path, Losing())
    (run,) = read_runs(tmp_path)
    assert (run.status, run.error) == ("failed", "its worker died")


def test_a_full_disk_stops_the_command_and_keeps_what_is_there(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, written = tmp_path / "results", []
    sync = os.fsync

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 6:  # the claim and two runs, each with its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(results_folder.os, "fsync", full)
    command = ["run", "tiny", "--agents", "random", "--seeds", 2, "--out", out]
    assert main(*command) == 1
    assert "No space left on device; the runs so far are kept, and the same command goes on" in " ".join(
        capsys.readouterr().err.split()
    )
    assert len(read_runs(out)) == 2
    assert len(files(out)) == 3
    monkeypatch.setattr(results_folder.os, "fsync", sync)
    assert main(*command) == 0
    assert len(read_runs(out)) == 4


@pytest.mark.slow  # two commands with workers of their own, which load torch
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "results"
    names = ["random", "uniform", "cma-es", "coordinate-ascent"]
    command = [sys.executable, "-m", "benchmarks", "run", "smoke", "--agents", ",".join(names), "--seeds", "1", "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: len(list(out.rglob("*.run"))) >= 2)
        finally:
            running.send_signal(signal.SIGKILL)
    kept = {path: path.read_bytes() for path in out.rglob("*.run")}
    assert 2 <= len(kept) < 8
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{8 - len(kept)} runs to make, {len(kept)} are there" in done.stdout
    assert len(read_runs(out)) == 8
    assert {path: path.read_bytes() for path in kept} == kept
    suite = SUITES["smoke-v1"]
    for run in read_runs(out):
        case = suite.case(run.task)
        if dict(case.settings).get("evaluator") == "table":
            assert content(run) == content(from_bytes(execute(Job(suite, run.agent, (case,), run.seed)).files[case.name]))


def test_somebody_elses_run_stays(tmp_path: Path) -> None:
    jobs = jobs_of(TINY, ["random"], NAMES[:1], 1)
    theirs = execute(Job(TINY, "random", TINY.cases[:1], 0, "theirs")).files[NAMES[0]]

    class Slow(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            for job, result in super().run(work, jobs):
                results_folder.write_new(run_path(tmp_path, "random", NAMES[0], 0), theirs)
                yield job, result

    run_jobs(jobs, tmp_path, Slow())
    assert read_runs(tmp_path)[0].git == "theirs"


def test_damaged_files_stop_the_command_before_anything_is_run(tmp_path: Path, here: None, capsys: Any) -> None:
    out = tmp_path / "r"
    assert main("run", "tiny", "--agents", "random", "--seeds", 1, "--out", out) == 0
    path = run_path(out, "random", "digits-mlp", 0)
    path.write_bytes(path.read_bytes()[:-9])
    assert main("run", "tiny", "--agents", "random", "--seeds", 2, "--out", out) == 2
    assert str(path) in capsys.readouterr().err
    assert len(list(out.rglob("*.run"))) == 2


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "a folder": lambda path: path.mkdir(),
    "a folder, or a link to one": lambda path: path.symlink_to("."),
    "a device": os.mkfifo,
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
@pytest.mark.parametrize(
    ("kind", "where"),
    [*((kind, "random/digits-mlp.0.run") for kind in IN_THE_WAY), *((kind, "random") for kind in IN_THE_WAY if kind != "a folder")],
)
def test_what_is_in_the_way_of_a_run_stops_the_command_before_anything_is_run(
    kind: str, where: str, tmp_path: Path, here: None, capsys: Any
) -> None:
    out = tmp_path / "r"
    command = ["run", "tiny", "--agents", "uniform,random", "--seeds", 1, "--out", out]
    results_folder.claim(out, TINY.title, TINY.digest)
    (out / where).parent.mkdir(exist_ok=True)
    IN_THE_WAY[kind](out / where)
    assert main(*command) == 2
    told = capsys.readouterr().err
    assert f"{out / where} is {kind}" in told
    assert told.count("\n") == 1
    assert not (out / "uniform").exists()
    assert main("report", out, "--out", tmp_path / "report") == 2
    assert f"{out / where} is {kind}" in capsys.readouterr().err
    assert main("validate", out) == 1
    assert f"NOT {where}: 0 of 0" in capsys.readouterr().out


def test_what_a_desktop_leaves_in_a_folder_is_no_result(tmp_path: Path, here: None, capsys: Any) -> None:
    out = tmp_path / "r"
    out.mkdir()
    (out / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    command = ["run", "tiny", "--agents", "random", "--seeds", 1, "--out", out]
    assert main(*command) == 0
    (out / "random" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (out / "random" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    assert main(*command) == 0
    assert "0 runs to make, 2 are there" in capsys.readouterr().out
    assert main("validate", out, "--workers", 1) == 0
    assert "2 of 2 rows ok" in capsys.readouterr().out
    assert main("report", out, "--out", tmp_path / "report", "--no-explain", "--no-figures") == 0


def test_clocks_that_jump_change_nothing(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    years = itertools.cycle([2031, 1999, 2024])

    class Jumping(datetime.datetime):
        """A wall clock that goes on and back by years whenever it is read."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
            return cls(next(years), 1, 1, tzinfo=tz)

    monkeypatch.setattr(execution, "datetime", SimpleNamespace(datetime=Jumping, UTC=datetime.UTC))
    out, begun = tmp_path / "r", time.perf_counter()
    assert main("run", "tiny", "--agents", "random", "--seeds", 1, "--out", out) == 0
    assert main("run", "tiny", "--agents", "random", "--seeds", 2, "--out", out) == 0
    assert "2 runs to make, 2 are there" in capsys.readouterr().out
    elapsed, runs = time.perf_counter() - begun, read_runs(out)
    assert len({run.started[:4] for run in runs}) > 1
    assert all(run.seconds > 0 for run in runs)
    spent = sum(run.seconds for run in runs)
    assert spent < elapsed
    for run in runs:
        assert content(run) == content(made("random", NAMES.index(run.task), run.seed))
    told = {each["what"]: each["values"] for each in what_was_run(Suite(TINY.title, tuple(runs)))}
    dates = sorted(run.started for run in runs)
    assert told["started"] == [[f"{dates[0]} to {dates[-1]}", 4]]
    assert told["time of all runs"] == [[f"{spent:,.0f} s ({spent / 3600:.2f} h)", 4]]
    assert main("validate", out, "--workers", 1) == 0
    assert main("report", out, "--out", tmp_path / "report", "--no-explain", "--no-figures") == 0
