"""All parts of the speed benchmark, one after the other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.speed.growth import growth
from benchmarks.speed.live import digits, live, round_episode
from benchmarks.speed.measure import machine
from benchmarks.speed.picture import draw
from benchmarks.speed.processes import import_time, memory, workers
from benchmarks.speed.profile import step_profile
from benchmarks.speed.rows import Progress, Row, failed, save
from benchmarks.speed.tables import table

Part = Callable[[bool, Progress], Iterator[Row]]
PARTS: dict[str, Part] = {
    "import": import_time,
    "digits": digits,
    "live": live,
    "round": round_episode,
    "table": table,
    "growth": growth,
    "workers": workers,
    "memory": memory,
    "profile": step_profile,
}


def measure(parts: Sequence[str], folder: Path, quick: bool, progress: Callable[[str, float], None]) -> list[Row]:
    """Measure some parts; rows are on disk as soon as they are there, and a part that fails is a row with its traceback.

    Args:
        parts: some of `PARTS`.
        folder: for speed.json, speed.md and speed.png.
        quick: few repetitions on small networks: whether it runs, not how fast.
        progress: told the part and the fraction of it that is done.
    """
    facts = machine() | ({"note": "a quick look: its numbers mean nothing"} if quick else {})
    done: list[Row] = []

    def note(row: Row) -> None:
        done.append(row)
        save(folder, done, facts)
        draw(folder / "speed.png", done)

    for part in parts:
        progress(part, 0.0)
        try:
            for row in PARTS[part](quick, lambda fraction, part=part: progress(part, fraction)):  # type: ignore[misc]
                note(row)
        except Exception:  # whatever it is, the other parts are still worth measuring
            note(failed(part, part, traceback.format_exc()))
        progress(part, 1.0)
    return done
