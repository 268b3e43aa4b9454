"""``python -m benchmarks validate``: results are replayed in fresh processes, and each row is marked ok or not."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.cli import BadArgumentError
from agents.outputs import versions
from benchmarks.checks import Problem
from benchmarks.engine import Lost
from benchmarks.engine_local import LocalEngine
from benchmarks.execution import git_revision, now
from benchmarks.results import read_run
from benchmarks.results_folder import VALIDATION_FILE, check_claim, claimed, files_of, write_over
from benchmarks.suites import SUITES, Suite
from benchmarks.verdicts import FORMAT, ROWS, Check, Validation, Verdict, check, merged, read_validation, unchanged
from reptile_env.compression.latency_file import machine

SAMPLE = 20  # runs that are checked where nothing else is asked for
SHOWN = 5  # problems of a row that are printed
SAVED = 30.0  # seconds after which verdicts are written, so that an interruption costs no more


def validate_folder(
    folder: Path,
    sample: int | None,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, count: None,
    *,
    new: bool = False,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> Validation:
    """Check the runs of a folder.

    Args:
        folder: of results.
        sample: runs to check, of each a sample of its plans; None: all plans of all runs.
        seed: of the sample.
        workers: processes.
        progress: told of the runs that are checked, and of how many.
        new: leave out the runs that were confirmed before, by as many plans, and have not changed since.
        keep: told of what was found so far every half minute, at the end, and when an exception ends it.

    Returns:
        Verdicts of before stay in its content where their files have not changed.

    Raises:
        ValueError: the folder holds no results, or those of a suite that this version does not have, or its ``validation.json``
            is damaged.
    """
    title, _ = claimed(folder)
    if title not in SUITES:
        raise ValueError(f"{folder} holds results of {title}, and this version of the program knows {', '.join(SUITES)}")
    suite = SUITES[title]
    check_claim(folder, title, digest=suite.digest)
    before = read_validation(folder, title)
    before["rows"] = unchanged(folder, before["rows"])
    jobs, rows, failed = _sorted_out(folder, suite, sample, seed, before["rows"] if new else {})
    entry = {
        "validated": now(),
        "sample": "all plans" if sample is None else f"{ROWS} plans of each run, seed {seed}",
        "versions": versions(),
        "machine": machine(),
        "git": git_revision(),
    }

    def found() -> dict[str, Any]:
        return {"format": FORMAT, "suite": title, "failed": failed} | merged(before, entry, rows)

    progress(0, len(jobs))
    saved = time.monotonic()
    try:
        for done, (job, result) in enumerate(LocalEngine(workers).run(check, jobs), start=1):
            rows[_name(folder, job.path)] = _lost(job.path, result) if isinstance(result, Lost) else result
            progress(done, len(jobs))
            if time.monotonic() - saved > SAVED:
                keep(found())
                saved = time.monotonic()
    finally:
        keep(found())
    return Validation(rows, found())


def _sorted_out(
    folder: Path, suite: Suite, sample: int | None, seed: int, known: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Check], dict[str, Verdict], list[str]]:
    """The checks to make, the verdicts on what is no run, and the runs that failed, of which there is nothing to check."""
    checks, rows, failed = [], {}, []
    for path in files_of(folder):
        name = _name(folder, path)
        try:
            run = read_run(path)
        except ValueError as error:
            rows[name] = _unreadable(path, str(error))
            continue
        if run.error is not None:
            failed.append(name)
            continue
        wanted = run.evaluated if sample is None else min(ROWS, run.evaluated)
        if name in known and known[name]["ok"] and known[name]["checked"] >= wanted:
            continue
        checks.append(Check(path, suite, None if sample is None else ROWS, seed, run.task))
    if sample is not None and sample < len(checks):
        checks = random.Random(seed).sample(checks, sample)
    return sorted(checks, key=lambda check: check.family), rows, failed


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _unreadable(path: Path, reason: str) -> Verdict:
    digest = hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
    return Verdict(False, digest, 0, 0, (Problem(None, "file", "a run of the suite", reason),))


def _lost(path: Path, lost: Lost) -> Verdict:
    return _unreadable(path, f"the replay ended without a result: {lost.reason.strip().splitlines()[-1]}")


def validate(
    folder: Annotated[Path, typer.Argument(help="a folder of results", show_default=False)],
    all_: Annotated[bool, typer.Option("--all", help="all plans of all runs, instead of a sample")] = False,
    sample: Annotated[int | None, typer.Option(help=f"runs to check, {ROWS} plans of each; default: {SAMPLE}")] = None,
    seed: Annotated[int, typer.Option(help="of the sample")] = 0,
    new: Annotated[bool, typer.Option("--new", help="leave out what was confirmed before and has not changed since")] = False,
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

            keeper = _Keeper(folder)
            found = validate_folder(folder, None if all_ else sample, seed, workers, show, new=new, keep=keeper)
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    except OSError as error:
        raise BadArgumentError(f"{folder} can't be read: {error.strerror or error}") from error
    print("\n".join(_told(found)))
    if keeper.refused is not None:
        print(f"{folder / VALIDATION_FILE} can't be written, so the verdicts are not kept: {keeper.refused}", file=sys.stderr)
    rows = found.content["rows"].values()
    lost = not all(verdict.ok for verdict in found.verdicts.values())  # also where an earlier verdict stays
    if keeper.refused is not None or lost or not rows or not all(row["ok"] for row in rows):
        raise typer.Exit(1)


class _Keeper:
    """Writes ``validation.json``, and remembers why that can't be done."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / VALIDATION_FILE
        self.refused: str | None = None

    def __call__(self, found: dict[str, Any]) -> None:
        try:
            write_over(self._file, (json.dumps(found, indent=1) + "\n").encode())
        except OSError as error:
            self.refused = error.strerror or str(error)
        else:
            self.refused = None


def _told(found: Validation) -> Iterator[str]:
    """The verdicts for a terminal: a line a row, and what is wrong with it below; of before, those that were not confirmed."""
    rows = found.content["rows"]
    for name, row in sorted((rows | {name: asdict(verdict) for name, verdict in found.verdicts.items()}).items()):
        if name in found.verdicts or not row["ok"]:
            when = "" if name in found.verdicts else ", before"
            yield f"{'ok ' if row['ok'] else 'NOT'} {name}: {row['checked']:,} of {row['evaluated']:,} plans replayed{when}"
            yield from _explained(row["problems"])
    good, before = sum(row["ok"] for row in rows.values()), len(rows.keys() - found.verdicts.keys())
    failed = f"; {len(found.content['failed']):,} failed runs have nothing to replay" if found.content["failed"] else ""
    nothing = "" if rows else ": nothing could be confirmed"
    yield f"{good:,} of {len(rows):,} rows ok{f', {before:,} of them checked before' if before else ''}{failed}{nothing}"


def _explained(problems: Sequence[dict[str, Any]]) -> Iterator[str]:
    for problem in problems[:SHOWN]:
        where = "" if problem["evaluation"] is None else f"plan {problem['evaluation']}, "
        yield f"      {where}{problem['what']}: expected {problem['expected']!r:.200}, received {problem['received']!r:.200}"
    if len(problems) > SHOWN:
        kinds = Counter(problem["what"] for problem in problems[SHOWN:])
        yield f"      and {len(problems) - SHOWN:,} more: {', '.join(f'{what} ({count:,})' for what, count in kinds.items())}"
