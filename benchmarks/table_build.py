"""Building a table in parts, by several processes, so that a kill costs one part of each and no more."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.arguments import resolve_task
from benchmarks.table import Columns, make_head, measure_rows
from reptile_env.evaluation.grid import Grid
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table_file import SUFFIX, write_table, write_whole
from reptile_env.evaluation.table_head import Head

ROWS_A_PART = 1024  # at most: seconds of work
SAMPLES, ROWS_A_SAMPLE = 4, 32  # of the estimate

# Told of the rows that are done, of all rows, and how many of the first were found on disk.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Job:
    """What is to be built.

    Attributes:
        task: name of a built-in task, or ``module:function``.
        settings: of the evaluator.
        rates: of the levels of every group.
        rows_a_part: rows that are written at once, at most.
    """

    task: str
    settings: Settings
    rates: tuple[float, ...]
    rows_a_part: int = ROWS_A_PART


@functools.cache
def evaluator_of(job: Job) -> LiveEvaluator:
    """The running network; one a process, also where a user's function makes a task anew at each call."""
    return live_evaluator(resolve_task(job.task), job.settings)


def build(job: Job, out: Path, workers: int = 1, progress: Progress = lambda done, rows, found: None) -> Path:
    """Measure every row and write the table; what an earlier run of the same job left in ``OUT.parts`` is not measured again.

    Args:
        job: what to build.
        out: the file; what is there is replaced at the end.
        workers: processes, each of one thread; 1 works in this process.
        progress: told of every part.

    Raises:
        ValueError: settings that no table can hold, or the parts of another job.
    """
    head = make_head(evaluator_of(job), job.rates)
    folder = parts_folder(out)
    _claim(folder, head)
    ranges = _ranges(head.grid, job.rows_a_part)
    open_ = [number for number, rows in enumerate(ranges) if _read_part(folder, number, len(rows)) is None]
    found = done = head.grid.rows - sum(len(ranges[number]) for number in open_)
    progress(done, head.grid.rows, found)
    for number in _measured(job, folder, ranges, open_, workers):
        done += len(ranges[number])
        progress(done, head.grid.rows, found)
    parts = [_read_part(folder, number, len(rows)) for number, rows in enumerate(ranges)]
    names = parts[0] or {}
    write_table(out, head.to_json(), {name: np.concatenate([part[name] for part in parts if part]) for name in names})
    shutil.rmtree(folder)
    return out


def estimate(job: Job) -> tuple[int, float]:
    """Number of rows, and seconds that one process needs for them, from a few of them."""
    evaluator = evaluator_of(job)
    head = make_head(evaluator, job.rates)
    rows = head.grid.rows
    count = min(ROWS_A_SAMPLE, rows)
    starts = np.linspace(0, rows - count, SAMPLES).astype(int)
    begun = time.perf_counter()
    for start in starts:
        measure_rows(evaluator, head.grid, range(start, start + count))
    return rows, (time.perf_counter() - begun) / (len(starts) * count) * rows


def parts_folder(out: Path) -> Path:
    """Where the parts of a table lie while it is built."""
    return out.with_name(out.name.removesuffix(SUFFIX) + ".parts")


def _claim(folder: Path, head: Head) -> None:
    """Make the folder this table's; refuse that of another."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "head.json"
    ours = _comparable(json.loads(json.dumps(head.to_json())))
    if file.exists() and _comparable(json.loads(file.read_text(encoding="utf-8"))) != ours:
        raise ValueError(
            f"{folder} holds parts of a table of other settings, weights or versions, or of another machine; delete it, or name "
            "another file"
        )
    if not file.exists():
        write_whole(file, json.dumps(head.to_json()).encode())


def _comparable(data: dict[str, Any]) -> dict[str, Any]:
    """Without times, which differ from run to run."""
    for each in data["further"]:
        del each["values"]["seconds"]
    return data


def _ranges(grid: Grid, most: int) -> list[range]:
    """Rows of the parts: all that share the levels of the first groups, so that parts share little work."""
    size = max([stride for stride in (grid.rows, *grid.strides) if stride <= most], default=1)
    return [range(start, start + size) for start in range(0, grid.rows, size)]


def _measured(job: Job, folder: Path, ranges: Sequence[range], numbers: Sequence[int], workers: int) -> Iterator[int]:
    """Measure the parts of these numbers; yields each as soon as it is on disk."""
    if workers == 1 or len(numbers) < 2:
        for number in numbers:
            yield _measure_part(job, folder, number, ranges[number])
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(numbers)), context, initializer=_start_worker) as pool:
        try:
            futures = [pool.submit(_measure_part, job, folder, number, ranges[number]) for number in numbers]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # a worker whose parent was killed would wait for work for ever

    threading.Thread(target=watch, daemon=True).start()


def _measure_part(job: Job, folder: Path, number: int, rows: range) -> int:
    evaluator = evaluator_of(job)
    grid = Head.from_json(json.loads((folder / "head.json").read_text(encoding="utf-8"))).grid
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **measure_rows(evaluator, grid, rows))
    write_whole(_part(folder, number), buffer.getvalue())
    return number


def _read_part(folder: Path, number: int, rows: int) -> Columns | None:
    """The columns of a part; None where it has not been measured, or is damaged."""
    try:
        with np.load(_part(folder, number), allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return columns if columns and all(len(column) == rows for column in columns.values()) else None


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.npz"
