"""``python -m benchmarks validate``: results are replayed in fresh processes, and each row is marked ok or not."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.cli import BadArgumentError
from agents.outputs import versions
from benchmarks.checks import Problem, problems_of
from benchmarks.engine import Lost
from benchmarks.engine_local import LocalEngine
from benchmarks.execution import git_revision, now
from benchmarks.results import Run, from_bytes, read_run
from benchmarks.results_folder import VALIDATION_FILE, check_claim, claimed, files_of, write_over
from benchmarks.suites import SUITES, Suite
from reptile_env.compression.latency_file import machine

FORMAT = 1
SAMPLE = 20  # runs that are checked where nothing else is asked for
ROWS = 30  # plans of a run that a sample measures again
SHOWN = 5  # problems of a row that are printed


@dataclass(frozen=True)
class Check:
    """A run that is to be checked.

    Attributes:
        path: its file.
        suite: that it should be of.
        rows: how many of its plans are measured again; None: all.
        seed: of their choice.
        family: its task.
    """

    path: Path
    suite: Suite
    rows: int | None
    seed: int
    family: str


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        ok: whether everything was confirmed.
        sha256: of the file that was checked.
        checked: plans that were measured again.
        evaluated: plans of the run.
        problems: what was not confirmed, each with what was expected and what was received.
    """

    ok: bool
    sha256: str
    checked: int
    evaluated: int
    problems: tuple[Problem, ...]


def check(job: Check) -> Verdict:
    """Check a run; what engines carry out."""
    torch.set_num_threads(job.suite.threads)
    data = job.path.read_bytes()
    run = from_bytes(data)
    rows = chosen_rows(run, job.rows, job.seed)
    problems = problems_of(run, job.suite, rows)
    return Verdict(not problems, hashlib.sha256(data).hexdigest(), len(rows), run.evaluated, tuple(problems))


def chosen_rows(run: Run, count: int | None, seed: int) -> list[int]:
    """Indices of the plans to measure again: the best, the policy's and the last one, and others by chance."""
    rows = run.evaluated
    if count is None or rows <= count:
        return list(range(rows))
    scored = np.where(run.columns["within_budget"], run.columns["plan_return"], -np.inf)
    first = {int(np.argmax(scored)), rows - 1}
    if run.policy_evaluation is not None and run.policy_evaluation <= rows:
        first.add(run.policy_evaluation - 1)
    others = [row for row in range(rows) if row not in first]
    return sorted(first | set(random.Random(seed).sample(others, count - len(first))))


def validate_folder(
    folder: Path, sample: int | None, seed: int, workers: int, progress: Callable[[int, int], None] = lambda done, count: None
) -> dict[str, Any]:
    """Check the runs of a folder.

    Args:
        folder: of results.
        sample: runs to check, of each a sample of its plans; None: all plans of all runs.
        seed: of the sample.
        workers: processes.
        progress: told of the runs that are checked, and of how many.

    Returns:
        The content of ``validation.json``: ``rows`` holds for each file that was checked, and each that is no run, its `Verdict`.

    Raises:
        ValueError: the folder holds no results, or those of a suite that this version does not have.
    """
    title, _ = claimed(folder)
    if title not in SUITES:
        raise ValueError(f"{folder} holds results of {title}, and this version of the program knows {', '.join(SUITES)}")
    suite = SUITES[title]
    check_claim(folder, title, digest=suite.digest)
    jobs, rows, failed = _sorted_out(folder, suite, sample, seed)
    progress(0, len(jobs))
    for done, (job, result) in enumerate(LocalEngine(workers).run(check, jobs), start=1):
        rows[_name(folder, job.path)] = _lost(job.path, result) if isinstance(result, Lost) else result
        progress(done, len(jobs))
    return {
        "format": FORMAT,
        "suite": title,
        "validated": now(),
        "sample": "all" if sample is None else f"{ROWS} plans of each of {len(jobs)} runs, seed {seed}",
        "versions": versions(),
        "machine": machine(),
        "git": git_revision(),
        "failed": failed,
        "rows": {name: asdict(rows[name]) for name in sorted(rows)},
    }


def _sorted_out(folder: Path, suite: Suite, sample: int | None, seed: int) -> tuple[list[Check], dict[str, Verdict], list[str]]:
    """The checks to make, the verdicts on what is no run, and the runs that failed, of which there is nothing to check."""
    checks, rows, failed = [], {}, []
    for path in files_of(folder):
        try:
            run = read_run(path)
        except ValueError as error:
            rows[_name(folder, path)] = _unreadable(path, str(error))
            continue
        if run.error is not None:
            failed.append(_name(folder, path))
        else:
            checks.append(Check(path, suite, None if sample is None else ROWS, seed, run.task))
    if sample is not None and sample < len(checks):
        checks = random.Random(seed).sample(checks, sample)
    return sorted(checks, key=lambda check: check.family), rows, failed


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _unreadable(path: Path, reason: str) -> Verdict:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Verdict(False, digest, 0, 0, (Problem(None, "file", "a run of the suite", reason),))


def _lost(path: Path, lost: Lost) -> Verdict:
    return _unreadable(path, f"the replay ended without a result: {lost.reason}")


def validate(
    folder: Annotated[Path, typer.Argument(help="a folder of results", show_default=False)],
    all_: Annotated[bool, typer.Option("--all", help="all plans of all runs, instead of a sample")] = False,
    sample: Annotated[int | None, typer.Option(help=f"runs to check, {ROWS} plans of each; default: {SAMPLE}")] = None,
    seed: Annotated[int, typer.Option(help="of the sample")] = 0,
    workers: Annotated[int, typer.Option(help="processes, each of one thread")] = 2,
) -> None:
    """Replay results in fresh processes and mark each row ok or not, with what was expected and received."""
    if all_ and sample is not None:
        raise BadArgumentError(f"--all checks every run, and --sample {sample} some: give one of them")
    sample = SAMPLE if sample is None else sample
    if sample < 1 or workers < 1:
        raise BadArgumentError(f"{'--sample' if sample < 1 else '--workers'} {min(sample, workers)}: give at least 1")
    columns = (TextColumn("replayed"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=None, visible=False)

            def show(done: int, count: int) -> None:
                bar.update(task, completed=done, total=count, visible=True)

            found = validate_folder(folder, None if all_ else sample, seed, workers, show)
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    except OSError as error:
        raise BadArgumentError(f"{folder} can't be read: {error.strerror or error}") from error
    print("\n".join(_told(found)))
    kept = _kept(folder, found)
    if not kept or not all(row["ok"] for row in found["rows"].values()):
        raise typer.Exit(1)


def _kept(folder: Path, found: dict[str, Any]) -> bool:
    """Write ``validation.json``; says so where that can't be done."""
    try:
        write_over(folder / VALIDATION_FILE, (json.dumps(found, indent=1) + "\n").encode())
    except OSError as error:
        print(f"{folder / VALIDATION_FILE} can't be written, so the verdicts are not kept: {error.strerror}", file=sys.stderr)
        return False
    return True


def _told(found: dict[str, Any]) -> Iterator[str]:
    """The verdicts for a terminal: a line a row, and what is wrong with it below."""
    for name, row in found["rows"].items():
        mark = "ok " if row["ok"] else "NOT"
        yield f"{mark} {name}: {row['checked']:,} of {row['evaluated']:,} plans replayed"
        yield from _explained(row["problems"])
    good = sum(row["ok"] for row in found["rows"].values())
    failed = f"; {len(found['failed']):,} failed runs have nothing to replay" if found["failed"] else ""
    yield f"{good:,} of {len(found['rows']):,} rows ok{failed}"


def _explained(problems: Sequence[dict[str, Any]]) -> Iterator[str]:
    for problem in problems[:SHOWN]:
        where = "" if problem["evaluation"] is None else f"plan {problem['evaluation']}, "
        yield f"      {where}{problem['what']}: expected {problem['expected']!r:.200}, received {problem['received']!r:.200}"
    if len(problems) > SHOWN:
        kinds = Counter(problem["what"] for problem in problems[SHOWN:])
        yield f"      and {len(problems) - SHOWN:,} more: {', '.join(f'{what} ({count:,})' for what, count in kinds.items())}"
