"""``python -m benchmarks table``: a table of a task, from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.arguments import resolve_task
from agents.cli import BadArgumentError
from benchmarks.table_build import Job, build, estimate, parts_folder
from reptile_env.evaluation.grid import check_settings, grid_rates
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table import VARIABLE
from reptile_env.evaluation.table_file import SUFFIX


def table(
    task: Annotated[str, typer.Argument(help="a built-in task, or module:function that returns a reptile_env.Task")],
    levels: Annotated[int, typer.Option(help="widths of each group, dense included; rows are their product")] = 6,
    recovery: Annotated[str, typer.Option(help="what follows a cut")] = "reconstruct",
    importance: Annotated[str, typer.Option(help="which channels go first")] = "l1",
    train_loss: Annotated[bool, typer.Option("--train-loss", help="measure it too: reward 'loss' needs it")] = False,
    workers: Annotated[int, typer.Option(help="processes, each of one thread")] = 2,
    out: Annotated[Path | None, typer.Option(help="the file; default: NAME.table in this folder")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace a file that is there")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell how many rows, and about how long they take")] = False,
) -> None:
    """Measure every plan of a grid. Killed, it goes on where it was when the same command is given again."""
    torch.set_num_threads(1)
    job, name = _job(task, levels, recovery, importance, train_loss, workers)
    file = _file(out, name, replace)
    if dry_run:
        rows, seconds = estimate(job)
        print(f"{name}: {rows:,} rows, about {_duration(seconds / workers)} with workers={workers}; {file}")
        return
    try:
        with Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
            bar = progress.add_task(name, total=None)

            def show(done: int, rows: int, found: int) -> None:
                progress.update(bar, total=rows - found, completed=done - found)

            begun = time.perf_counter()
            build(job, file, workers, show)
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {parts_folder(file)}, and the same command goes on from there")
        raise typer.Exit(1) from None
    print(f"{file}: {file.stat().st_size:,} bytes, {_duration(time.perf_counter() - begun)}")
    print(f"with {VARIABLE}={file.parent}: gym.make('ReptilePrune-v0', task={name!r}, evaluator='table')")


def _job(task: str, levels: int, recovery: str, importance: str, train_loss: bool, workers: int) -> tuple[Job, str]:
    if workers < 1:
        raise BadArgumentError(f"--workers {workers}: give at least 1")
    try:
        settings = Settings(recovery, importance, train_loss=train_loss)
        check_settings(settings)
        return Job(task, settings, tuple(grid_rates(levels))), resolve_task(task).name
    except ValueError as error:
        raise BadArgumentError(str(error)) from error


def _file(out: Path | None, name: str, replace: bool) -> Path:
    file = Path(f"{name}{SUFFIX}") if out is None else out
    if file.suffix != SUFFIX or file.name.removesuffix(SUFFIX).split("@")[0] != name:
        raise BadArgumentError(
            f"--out {file}: environments find the table by its name; call it {name}{SUFFIX} or {name}@ANYTHING{SUFFIX}"
        )
    if not file.parent.is_dir():
        raise BadArgumentError(f"--out {file}: there is no folder {file.parent}; make it first")
    if file.exists() and not replace:
        raise BadArgumentError(f"--out {file} exists; name another file, or say --replace")
    return file


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
