"""How far a run is: a bar on a terminal, a line every tenth elsewhere. Written to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.trace import Row, Trace

PAUSE = 2.0  # seconds between two lines, at least


@contextmanager
def fraction_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar with the time left for work that prints lines of its own; shown on a terminal alone.

    Args:
        label: what runs.

    Yields:
        What is told of the fraction that is done.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda done: bar.update(task, completed=done)


class ProgressReport:
    """Shows evaluated plans, the best return so far and the time left.

    Args:
        label: what runs.
        evaluations: plans to evaluate.
        console: where to; default stderr.
    """

    def __init__(self, label: str, evaluations: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._label, self._total = label, evaluations
        self._bar: Progress | None = None
        self._silent_until = PAUSE
        self._best = "best return -"

    def __enter__(self) -> ProgressReport:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[best]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(self._label, total=self._total, best=self._best)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, trace: Trace, row: Row, improved: bool) -> None:
        """Take note of an evaluated plan."""
        if trace.best is not None:
            self._best = f"best return {trace.best.plan_return:.3f}"
        done = row.evaluation
        if self._bar is not None:
            self._bar.update(self._task, completed=done, best=self._best)
            return
        spent = row.seconds  # those before an interruption count too
        tenth = done * 10 // self._total > (done - 1) * 10 // self._total
        if done == self._total or (tenth and spent > self._silent_until):
            self._silent_until = spent + PAUSE
            left = spent / done * (self._total - done)
            self._console.print(
                f"{self._label}: {done} of {self._total} plans, {self._best}, {spent:.0f} s, {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )
