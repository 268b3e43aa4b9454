"""Returns for TensorBoard, the same two curves for every agent."""

from __future__ import annotations

from pathlib import Path

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
        if last is not None and last.episode != row.episode:
            self._writer.add_scalar("return/episode", last.episode_return, last.evaluation)
        if improved:
            self._writer.add_scalar("return/best", row.plan_return, row.evaluation)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._last is not None:
            self._writer.add_scalar("return/episode", self._last.episode_return, self._last.evaluation)
        self._writer.close()
