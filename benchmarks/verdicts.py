"""Verdicts on runs: made by replaying plans, and kept in ``validation.json`` for as long as their files stay as they were."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.checks import Problem, problems_of
from benchmarks.held_out import held_out
from benchmarks.results import Run, best_row, from_bytes
from benchmarks.results_folder import VALIDATION_FILE
from benchmarks.suites import Suite

FORMAT = 2
ROWS = 30  # plans of a run that a sample measures again


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
        valid: returns that the plans it is scored by have here, see `HeldOut`; None where it was not confirmed.
        test: their returns on the test split; None where there is none.
    """

    ok: bool
    sha256: str
    checked: int
    evaluated: int
    problems: tuple[Problem, ...]
    valid: dict[str, float | None] | None = None
    test: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Validation:
    """What a validation of a folder found.

    Attributes:
        verdicts: by file, of those that were checked now.
        content: of ``validation.json``, verdicts of before among them.
    """

    verdicts: dict[str, Verdict]
    content: dict[str, Any]


def check(job: Check) -> Verdict:
    """Check a run; what engines carry out."""
    torch.set_num_threads(job.suite.threads)
    data = job.path.read_bytes()
    run = from_bytes(data)
    rows = chosen_rows(run, job.rows, job.seed)
    problems = problems_of(run, job.suite, rows)
    digest = hashlib.sha256(data).hexdigest()
    if problems:
        return Verdict(False, digest, len(rows), run.evaluated, tuple(problems))
    found = held_out(run)
    return Verdict(True, digest, len(rows), run.evaluated, (), found.valid, found.test)


def chosen_rows(run: Run, count: int | None, seed: int) -> list[int]:
    """Indices of the plans to measure again: the best, the policy's and the last one, and others by chance."""
    rows = run.evaluated
    if count is None or rows <= count:
        return list(range(rows))
    best = best_row(run)
    first = {rows - 1} if best is None else {best, rows - 1}
    if run.policy_evaluation is not None and run.policy_evaluation <= rows:
        first.add(run.policy_evaluation - 1)
    others = [row for row in range(rows) if row not in first]
    return sorted(first | set(random.Random(seed).sample(others, count - len(first))))


def read_validation(folder: Path, suite: str) -> dict[str, Any]:
    """The content of a folder's ``validation.json``.

    Returns:
        ``checks``: when, by which code and on which machine, and how much was looked at; ``rows``: the verdict on each file, with
        the number of its check; ``failed``: runs that there was nothing to check of. All empty where nothing was validated.

    Raises:
        ValueError: the file is damaged, or of another suite or format.
    """
    file = folder / VALIDATION_FILE
    if not file.is_file():
        return {"format": FORMAT, "suite": suite, "checks": [], "failed": [], "rows": {}}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if (found["format"], found["suite"]) != (FORMAT, suite):
            raise ValueError(f"it is of {found['suite']}, format {found['format']}")
        for row in found["rows"].values():
            row["ok"], row["sha256"], row["checked"], found["checks"][row["check"]]["validated"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}; remove it and run `python -m benchmarks validate {folder}` again") from error
    return found


def unchanged(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the verdicts whose files are still as they were."""
    return {
        name: dict(row)
        for name, row in rows.items()
        if (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == row["sha256"]
    }


def merged(before: Mapping[str, Any], check: Mapping[str, Any], rows: Mapping[str, Verdict]) -> dict[str, Any]:
    """Verdicts of before, and those of a new check.

    Where a file was confirmed by both, the verdict that stands on more plans stays; else the new one counts, unless it comes from a
    machine's fault: a replay that was lost looked at no plan.

    Args:
        before: of files that have not changed since, as `read_validation` gives it.
        check: what is said of the new one.
        rows: its verdicts.

    Returns:
        ``checks`` and ``rows``; checks of before that no row stands on any more are dropped.
    """
    checks, found = [*before["checks"], dict(check)], dict(before["rows"])
    for name, verdict in rows.items():
        old = found.get(name)
        lost = not verdict.ok and not verdict.checked
        if old is None or not old["ok"] or (not verdict.ok and not lost) or (verdict.ok and verdict.checked >= old["checked"]):
            found[name] = asdict(verdict) | {"check": len(checks) - 1}
    used = sorted({row["check"] for row in found.values()} | {len(checks) - 1})
    return {
        "checks": [checks[number] for number in used],
        "rows": {name: found[name] | {"check": used.index(found[name]["check"])} for name in sorted(found)},
    }
