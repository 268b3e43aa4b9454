"""Work for the tests of engines. Imports nothing heavy: every worker imports it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Chore:
    """A job of nothing but a number."""

    number: int
    folder: Path
    family: str = "chores"


def doubled(chore: Chore) -> int:
    """Honest work."""
    return 2 * chore.number


def dies_once(chore: Chore) -> int:
    """Number 1 takes its worker with it, the first time."""
    mark = chore.folder / "died"
    if chore.number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(chore)


def dies_always(chore: Chore) -> int:
    """Number 1 takes every worker with it."""
    if chore.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(chore)


def raises(chore: Chore) -> int:
    """Number 1 raises."""
    if chore.number == 1:
        raise ArithmeticError("one is not a number")
    return doubled(chore)


def sleeps(chore: Chore) -> int:
    """Leaves its process id, and takes long; number 0 waits for the others to do so."""
    (chore.folder / f"{os.getpid()}.pid").touch()
    if chore.number == 0:
        wait_for(lambda: len(list(chore.folder.glob("*.pid"))) > 1)
    else:
        time.sleep(600)
    return 0


def is_alive(process: int) -> bool:
    """Whether a process runs (one that nobody waits for has ended too)."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


def process(chore: Chore) -> tuple[int, str | None]:
    """Which process works, and how many threads it is allowed."""
    return os.getpid(), os.environ.get("OMP_NUM_THREADS")


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Until a condition holds; a machine that is busy with other tests takes its time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)
