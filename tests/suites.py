"""A suite and work for the tests of the runner: small enough for seconds, and what goes wrong on purpose."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from agents.cli import run as run_app
from benchmarks.__main__ import app
from benchmarks.derived_columns import DERIVED, with_derived
from benchmarks.engine import Lost
from benchmarks.execution import Job, execute
from benchmarks.results import Run, from_bytes, head_of
from benchmarks.suites import SUITES, Case, Suite

TABLE = (("evaluator", "table"),)
TINY = Suite(
    "tiny",
    1,
    "for tests",
    (
        Case("digits-mlp", "digits-mlp", 40, TABLE),
        Case("digits-mlp@0.6", "digits-mlp", 40, (*TABLE, ("budget", 0.6))),
    ),
    seeds=3,
)
NAMES = [case.name for case in TINY.cases]
# Nothing can be that small: making the environment fails.
BROKEN = Suite("broken", 1, "fails", (*TINY.cases[:1], Case("too-small", "digits-mlp", 40, (*TABLE, ("budget", 1e-6)))), seeds=2)
# What differs between two runs of the same job.
PASSING = {"started", "seconds", "machine", "git", "versions", "columns"}


def main(*arguments: object) -> int:
    """``python -m benchmarks`` in this process; returns what the process would exit with."""
    return run_app(app, "python -m benchmarks", "a command", [str(argument) for argument in arguments])


def add_suites(monkeypatch: pytest.MonkeyPatch, *suites: Suite) -> None:
    """Suites of the tests beside those of the package."""
    for suite in suites:
        monkeypatch.setitem(SUITES, suite.title, suite)


def made(agent: str, case: int = 0, seed: int = 0, suite: Suite = TINY, evaluations: int | None = None) -> Run:
    """A run of a suite, made in this process."""
    chosen = suite.cases[case]
    if evaluations is not None:
        chosen = dataclasses.replace(chosen, evaluations=evaluations)
    finished = execute(Job(suite, agent, (chosen,), seed))
    assert finished.error is None, finished.error
    return from_bytes(finished.files[chosen.name])


def content(run: Run) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All that two runs of the same job have in common, comparable with ``==`` to the last bit."""
    head = {field.name: getattr(run, field.name) for field in dataclasses.fields(run) if field.name not in PASSING}
    head |= {name: repr(value) for name, value in head.items() if isinstance(value, float)}  # NaN equals itself
    return head, {name: column.tobytes() for name, column in run.columns.items()}


def changed(run: Run, column: str, row: int, value: Any) -> Run:
    """The run with another number in one place."""
    columns = dict(run.columns)
    columns[column] = np.array(columns[column])
    columns[column][row] = value
    return dataclasses.replace(run, columns=columns)


def recomputed(run: Run) -> Run:
    """What follows from a changed column follows from it: a careful forger."""
    columns = {name: column for name, column in run.columns.items() if name not in DERIVED}
    return dataclasses.replace(run, columns=with_derived(head_of(run), columns))


class Here:
    """An engine that carries jobs out in this process."""

    workers = 1

    def run(self, work: Any, jobs: Any) -> Any:
        """Each job with what came of it."""
        for job in jobs:
            yield job, work(job)


class Losing(Here):
    """An engine whose workers die."""

    def run(self, work: Any, jobs: Any) -> Any:
        """Each job, and that it is lost."""
        yield from ((job, Lost("its worker died")) for job in jobs)
