"""Returns for TensorBoard, the same two curves for every agent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from agents.trace import Row, Trace


class TensorBoardLog:
    """Writes ``return/best`` when it improves and ``return/episode`` when an episode ends, over evaluated plans.

    Args:
        folder: where the event file goes.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))
        self._last: Row | None = None

    def __call__(self, trace: Trace, row: Row, improved: bool) -> None:
        """Take note of an evaluated plan."""
        last, self._last = self._last, row
        with _uninterrupted():
            if last is not None and last.episode != row.episode:
                self._writer.add_scalar("return/episode", last.episode_return, last.evaluation)
            if improved:
                self._writer.add_scalar("return/best", row.plan_return, row.evaluation)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._last is not None:
            self._writer.add_scalar("return/episode", self._last.episode_return, self._last.evaluation)
        self._writer.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end: in the middle of a write, TensorBoard's queue would lose count and `close` wait for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C interrupts the main thread alone
        return
    pressed: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if pressed and callable(before):
        before(*pressed[0])
