"""Writes a trace to disk as it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from agents.replay import Recorded
from agents.trace import PolicyResult, Row, Trace


class TraceFile:
    """A header, then one line of JSON for each evaluated plan.

    Args:
        file: where to.
        trace: whose header is written at once.
        recorded: what an interrupted run left in the file. It is met line by line, and written on where it ends.

    Raises:
        ReplayError: here or later: the run differs from what is recorded.
    """

    def __init__(self, file: TextIO, trace: Trace, recorded: Recorded | None = None) -> None:
        self._file, self._recorded = file, recorded
        self._write("run", trace.header())

    @property
    def recorded_rows(self) -> list[Row]:
        """The plans that an interrupted run had evaluated."""
        return [] if self._recorded is None else self._recorded.rows

    def came_as_far(self) -> bool:
        """Whether the run has come as far as the interrupted one."""
        return self._recorded is None or self._recorded.all_met

    def row(self, row: Row) -> Row:
        """Append an evaluated plan; the row as it stands in the file, where it may have other seconds."""
        known = self._write("plan", row.to_dict())
        return row if known is None else replace(row, seconds=known["seconds"])

    def policy(self, result: PolicyResult) -> None:
        """Append the deterministic policy's episode."""
        self._write("policy", asdict(result))

    def end(self) -> None:
        """Note that the run has ended by itself.

        Raises:
            ReplayError: before all that is recorded was met.
        """
        if self._recorded is not None:
            self._recorded.check_all_met()

    def _write(self, kind: str, data: dict[str, Any]) -> dict[str, Any] | None:
        """Append a record; where it was there already, what was there."""
        record = {"type": kind} | data
        known = self._recorded.meet(record) if self._recorded is not None else None
        if known is None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        return known


@contextmanager
def open_trace(path: Path, trace: Trace, resume: bool) -> Iterator[TraceFile]:
    """The file of a trace, closed in the end.

    Args:
        path: a file that does not exist yet, or, to resume, the one of an interrupted run.
        trace: what is written.
        resume: go on with what is there.

    Raises:
        FileExistsError: the file is there already and is not to be resumed; a run never writes over another.
        ReplayError: see `TraceFile`.
    """
    recorded = Recorded(path) if resume and path.exists() else None
    # Line buffering: a crash loses nothing that was evaluated before it.
    with path.open("x" if recorded is None else "a", encoding="utf-8", buffering=1) as file:
        yield TraceFile(file, trace, recorded)
