"""The report's command, and suites of made-up runs, for the tests of the report."""

from __future__ import annotations

from agents.cli import run as run_command
from benchmarks.__main__ import app
from benchmarks.report.cases import Suite, by_suite
from benchmarks.results import Run


def report(*arguments: object) -> int:
    """Exit status of the command."""
    return run_command(app, "python -m benchmarks", "report", ["report", *map(str, arguments)])


def suite_of(*runs: Run) -> Suite:
    """The suite that the runs belong to."""
    (suite,) = by_suite(runs)
    return suite
