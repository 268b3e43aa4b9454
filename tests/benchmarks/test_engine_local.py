"""Jobs in processes of this machine: each is done once, whatever dies, and no process outlives whoever wanted it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.engine import Lost
from benchmarks.engine_local import LocalEngine
from tests.chores import Chore, dies_always, dies_once, is_alive, process, raises, sleeps, wait_for
from tests.helpers import ROOT


def chores(folder: Path, count: int = 4, families: int = 1) -> list[Chore]:
    return [Chore(number, folder, f"family {number % families}") for number in range(count)]


@pytest.mark.parametrize(("age", "families"), [(0.0, 1), (3600.0, 2)])
def test_every_job_is_done_once_by_processes_of_one_thread(tmp_path: Path, age: float, families: int) -> None:
    found = list(LocalEngine(1, age).run(process, sorted(chores(tmp_path, 6, 2), key=lambda chore: chore.family)))
    assert sorted(job.number for job, _ in found) == list(range(6))
    assert {threads for _, (_, threads) in found} == {"1"}
    by_process: dict[int, set[str]] = {}
    for job, (number, _) in found:
        by_process.setdefault(number, set()).add(job.family)
    assert [len(served) for served in by_process.values()] == [families] * (2 // families)
    assert os.getpid() not in by_process


def test_a_worker_that_dies_costs_no_job(tmp_path: Path) -> None:
    found = {job.number: result for job, result in LocalEngine(2).run(dies_once, chores(tmp_path))}
    assert found == {0: 0, 1: 2, 2: 4, 3: 6}


def test_a_job_that_kills_every_worker_is_given_up_and_told_of(tmp_path: Path) -> None:
    found = {job.number: result for job, result in LocalEngine(1).run(dies_always, chores(tmp_path, 3))}
    assert (found[0], found[2]) == (0, 4)
    assert found[1] == Lost("its worker died 3 times, at last with signal SIGKILL")


def test_work_that_raises_is_told_of(tmp_path: Path) -> None:
    found = {job.number: result for job, result in LocalEngine(1).run(raises, chores(tmp_path, 3))}
    assert (found[0], found[2]) == (0, 4)
    assert "ArithmeticError: one is not a number" in found[1].reason


def pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


def test_workers_end_when_nobody_wants_more(tmp_path: Path) -> None:
    results = LocalEngine(2).run(sleeps, chores(tmp_path))
    assert next(results)[0].number == 0
    workers = pids(tmp_path)
    assert len(workers) >= 2
    results.close()
    assert not any(map(is_alive, workers))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from benchmarks.engine_local import LocalEngine
        from tests.chores import Chore, sleeps
        if __name__ == "__main__":
            list(LocalEngine(2).run(sleeps, [Chore(number, Path({str(tmp_path)!r})) for number in (1, 2)]))
    """
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(code))
    with subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as parent:
        try:
            wait_for(lambda: len(pids(tmp_path)) == 2)
        finally:
            parent.kill()
    wait_for(lambda: not any(map(is_alive, pids(tmp_path))))
