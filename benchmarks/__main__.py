"""Command line: ``python -m benchmarks COMMAND``; ``--help`` lists the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.cli import BadArgumentError, run
from agents.outputs import free_folder, make_folder
from benchmarks import compression_quality
from benchmarks.better_plans import better_plans
from benchmarks.correlations import correlations
from benchmarks.leaderboard import leaderboard
from benchmarks.polish import polish
from benchmarks.quality_rows import Row
from benchmarks.report.command import report
from benchmarks.run_command import list_suites, run_suite
from benchmarks.speed.run import PARTS, measure
from benchmarks.table_command import table
from benchmarks.task_commands import checkpoints, choose_w, times
from benchmarks.task_page import tasks_page
from benchmarks.transfer_family import transfer_family
from benchmarks.validate import validate
from reptile_env.errors import unknown

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train, calibrate and compare.")


@app.callback()
def main() -> None:
    """Train, calibrate and compare."""


app.command()(checkpoints)
app.command("choose-w")(choose_w)
app.command()(times)
app.command("transfer-family")(transfer_family)
app.command()(correlations)
app.command("tasks-page")(tasks_page)
app.command()(table)
app.command("list")(list_suites)
app.command("run")(run_suite)
app.command()(validate)
app.command()(leaderboard)
app.command()(report)
app.command("better-plans")(better_plans)
app.command()(polish)


@app.command()
def quality(
    networks: Annotated[list[str] | None, typer.Argument(help="fashion-resnet20, minilm; both when left out")] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the data of the one network that is named")] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder for quality.json, quality.md and quality.png")] = None,
) -> None:
    """Compare every way of compressing on real networks; rows are on disk as soon as they are measured."""
    chosen = networks or list(compression_quality.NETWORKS)
    for name in chosen:
        if name not in compression_quality.NETWORKS:
            raise BadArgumentError(str(unknown("network", name, compression_quality.NETWORKS)))
    if data is not None and len(chosen) > 1:
        raise BadArgumentError("--data is the folder of one network; name that network")
    folder = free_folder(out, "quality")
    make_folder(folder)
    done: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bars: dict[str, Any] = {}

        def show(step: str, part: float) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=1.0)
            progress.update(bars[step], completed=part)

        for name in chosen:
            try:
                compression_quality.measure(name, data, folder, done, show)
            except (FileNotFoundError, ConnectionError) as error:
                raise BadArgumentError(str(error)) from error
    print((folder / "quality.md").read_text(encoding="utf-8"), end="")
    if any(row.error for row in done):
        raise typer.Exit(1)


@app.command()
def speed(
    parts: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(PARTS)}; all of them when left out")] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder for speed.json, speed.md and speed.png")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small networks, few repetitions: whether it runs, not how fast")] = False,
) -> None:
    """Measure the program's own speed against its goals; rows are on disk as soon as they are measured."""
    for part in parts or ():
        if part not in PARTS:
            raise BadArgumentError(str(unknown("part", part, PARTS)))
    folder = free_folder(out, "speed")
    make_folder(folder)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bars = {part: progress.add_task(part, total=1.0, start=False) for part in parts or PARTS}

        def show(part: str, fraction: float) -> None:
            if fraction == 0:
                progress.start_task(bars[part])
            progress.update(bars[part], completed=fraction)

        measured = measure(list(bars), folder, quick, show)
    print((folder / "speed.md").read_text(encoding="utf-8"), end="")
    if any(row.error for row in measured):
        raise typer.Exit(1)


if __name__ == "__main__":
    commands = (
        "run, list, validate, report, leaderboard, better-plans, polish, checkpoints, choose-w, times, transfer-family, "
        "tasks-page, table, correlations, quality or speed"
    )
    sys.exit(run(app, "python -m benchmarks", commands))
