"""Policies saved as a training goes."""

from __future__ import annotations

from pathlib import Path

from agents.base import Recorder

PARTS = 10  # of a run, after each of which its policy is saved
FOLDER = "checkpoints"


class Checkpoints:
    """Says when a policy is due to be saved, and where: after every tenth of the evaluations.

    Args:
        env: the recorder of the run.
        out: the run's folder; without one nothing is due.
        file: name of the saved policy, such as ``sac.zip``.
    """

    def __init__(self, env: Recorder, out: Path | None, file: str) -> None:
        self._env, self._file = env, Path(file)
        self._folder = None if out is None else out / FOLDER
        self._done = self._part()

    def due(self) -> Path | None:
        """Where to save the policy now, ``checkpoints/sac-200.zip`` after 200 evaluations; None between two checkpoints."""
        part = self._part()
        if self._folder is None or part == self._done:
            return None
        self._done = part
        self._folder.mkdir(exist_ok=True)
        return self._folder / f"{self._file.stem}-{len(self._env.trace.rows)}{self._file.suffix}"

    def _part(self) -> int:
        return len(self._env.trace.rows) * PARTS // self._env.trace.evaluations
