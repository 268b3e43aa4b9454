"""The report's command, and suites of made-up runs, for the tests of the report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agents.cli import run as run_command
from benchmarks.__main__ import app
from benchmarks.report.cases import Suite, by_suite
from benchmarks.results import Run, run_path
from benchmarks.results_folder import VALIDATION_FILE

CHECK = {
    "validated": "2026-01-02T03:04:05+00:00",
    "sample": "30 plans of each run",
    "machine": "a machine",
    "git": None,
    "versions": {},
}


def report(*arguments: object) -> int:
    """Exit status of the command."""
    return run_command(app, "python -m benchmarks", "report", ["report", *map(str, arguments)])


def suite_of(*runs: Run) -> Suite:
    """The suite that the runs belong to."""
    (suite,) = by_suite(runs)
    return suite


def _row_of(folder: Path, run: Run, **replaced: Any) -> dict[str, Any]:
    """A verdict on a run that lies in a folder."""
    data = run_path(folder, run.agent, run.task, run.seed).read_bytes()
    row = {"ok": True, "sha256": hashlib.sha256(data).hexdigest(), "checked": 30, "evaluated": run.evaluated}
    return row | {"problems": [], "check": 0, "test": None} | replaced


def validated(folder: Path, rows: dict[Run, dict[str, Any]]) -> Path:
    """Results that were validated with these verdicts."""
    content = {run_path(Path(), run.agent, run.task, run.seed).as_posix(): _row_of(folder, run, **row) for run, row in rows.items()}
    data = {"format": 2, "suite": "made-v1", "failed": [], "checks": [CHECK], "rows": content}
    (folder / VALIDATION_FILE).write_text(json.dumps(data), encoding="utf-8")
    return folder
