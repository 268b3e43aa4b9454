"""How far a suite is: a bar on a terminal, a line now and then elsewhere. Written to stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benchmarks.estimate import duration, expected_seconds, total_seconds
from benchmarks.execution import Finished, Job

PAUSE = 30.0  # seconds between two lines, at least


class RunProgress:
    """Shows finished runs, failures and the time left.

    The time left is what the remaining runs are expected to take, at the speed of those that are finished. Clocks that are put
    forward or back don't matter.

    Args:
        jobs: to be made.
        console: where to; default stderr.
    """

    def __init__(self, jobs: Sequence[Job], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._count, self._expected = len(jobs), total_seconds(jobs)
        self._start, self._silent_until = time.monotonic(), PAUSE
        self._done, self._failed, self._worked = 0, 0, 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=self._console)
            self._task = self._bar.add_task(self.text, total=self._expected)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, job: Job, finished: Finished) -> None:
        """Take note of a finished run."""
        self._done, self._failed = self._done + 1, self._failed + (finished.error is not None)
        self._worked += expected_seconds(job)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._worked, description=self.text)
            return
        spent = time.monotonic() - self._start
        if self._done == self._count or spent > self._silent_until:
            self._silent_until = spent + PAUSE
            self._console.print(self.text, highlight=False, soft_wrap=True)

    @property
    def text(self) -> str:
        """Such as ``12 of 40 runs, 1 failed, 3 min, 7 min left``."""
        spent = time.monotonic() - self._start
        failed = f", {self._failed} failed" if self._failed else ""
        left = f", {duration(spent * (self._expected - self._worked) / self._worked)} left" if self._worked else ""
        return f"{self._done:,} of {self._count:,} runs{failed}, {duration(spent)}{left}"
