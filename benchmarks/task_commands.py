"""``python -m benchmarks checkpoints | choose-w | times``: what a built-in task needs before it ships."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn, track
from rich.table import Table

from agents.arguments import resolve_task
from agents.cli import BadArgumentError
from benchmarks.calibration import SEARCH_EVALUATIONS, calibrate
from benchmarks.times import measured_times
from benchmarks.transfer_family import calibrated, write_member
from benchmarks.weights import choose, survey
from reptile_env.compression.cost import COSTS
from reptile_env.errors import unknown
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks import registry
from reptile_env.tasks.checkpoints import save_checkpoint
from reptile_env.tasks.transfer.members import MEMBERS, SUITE

REFERENCES = Path(registry.__file__).with_name("references.json")


def _bars() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def _teller(progress: Progress, name: str) -> Callable[[str, float], None]:
    """Shows each step of a task as a bar of its own."""
    bars: dict[str, Any] = {}

    def show(step: str, done: float) -> None:
        if step not in bars:
            bars[step] = progress.add_task(f"{name}: {step}", total=1.0)
        progress.update(bars[step], completed=done)

    return show


@contextlib.contextmanager
def left_out_where_it_fails(name: str, failed: list[str]) -> Iterator[None]:
    """A task that can't be made or shows too little is told of and noted in `failed`; those behind it are done all the same."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
        failed.append(name)


def checkpoints(
    names: Annotated[list[str] | None, typer.Argument(help="tasks; all that are trained here when left out")] = None,
    calibrate_only: Annotated[bool, typer.Option("--calibrate-only", help="keep the shipped checkpoints")] = False,
    train_only: Annotated[bool, typer.Option("--train-only", help="keep the references")] = False,
    evaluations: Annotated[int, typer.Option(help="of each search for the best known plan")] = SEARCH_EVALUATIONS,
) -> None:
    """Train the networks of built-in tasks from their seeds, calibrate them, and write checkpoints and references.json."""
    if calibrate_only and train_only:
        raise BadArgumentError("--calibrate-only and --train-only leave nothing to do; give one of them")
    if evaluations < 1:
        raise BadArgumentError(f"--evaluations {evaluations}: give at least 1")
    try:
        chosen = names or [row["name"] for row in registry.tasks() if registry.task_spec(row["name"]).trainer]
        specs = [registry.task_spec(name) for name in chosen]
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    if train_only and (published := [spec.name for spec in specs if not spec.trainer]):
        raise BadArgumentError(f"--train-only: the weights of {', '.join(published)} are published ones, nothing here trains them")
    torch.set_num_threads(1)  # so that any machine gives the shipped weights
    failed: list[str] = []
    with _bars() as progress:
        for spec in specs:
            with left_out_where_it_fails(spec.name, failed):
                show = _teller(progress, spec.name)
                if not calibrate_only and spec.trainer:
                    trained = registry.resolve(spec.trainer)(spec.name, lambda done, show=show: show("training", done))
                    save_checkpoint(f"{SUITE}/{spec.name}" if spec.name in MEMBERS else spec.name, trained)
                    registry.forget()
                if not train_only:
                    _calibrate(spec.name, evaluations, show)
    if failed:
        raise typer.Exit(1)


def _calibrate(name: str, evaluations: int, show: Callable[[str, float], None]) -> None:
    """Measure the references of a task and write them."""
    if name in MEMBERS:  # as `transfer-family` does it
        write_member(name, calibrated(name, evaluations, registry.references().get(name)))
    else:
        write_reference(name, calibrate(name, show, evaluations, known=registry.references().get(name)))
        registry.forget()


def choose_w(
    task: Annotated[str, typer.Argument(help="a built-in task, or module:function that returns a reptile_env.Task")],
    plans: Annotated[int, typer.Option(help="random plans to measure")] = 2000,
    cost: Annotated[str, typer.Option(help="what the utility weighs")] = "macs",
) -> None:
    """Measure random plans once and show what every weight of the metric makes of them."""
    if cost not in (weighable := [known for known in COSTS if known != "latency"]):  # latency needs a device, which none names here
        raise BadArgumentError(str(unknown("cost", cost, weighable)))
    torch.set_num_threads(1)
    made = resolve_task(task)
    try:
        evaluator = live_evaluator(made, Settings())
        with _bars() as progress:
            show = _teller(progress, task)
            choices = survey(evaluator, plans, cost=cost, progress=lambda done: show("random plans", done))
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    table = Table("w", "best uniform rate", "scale", "mean random", "best of 200", f"best of {plans}", "separates")
    for c in choices:
        numbers = (f"{value:.3f}" for value in (c.scale, c.mean, c.best_of_200, c.best))
        table.add_row(f"{c.w:g}", f"{c.uniform_rate:g}", *numbers, "yes" if c.separates else "no")
    Console().print(table)
    try:
        print(f"w={choose(choices).w:g} separates best")
    except ValueError as error:
        print(f"{task}: {error}")
        raise typer.Exit(1) from None


def times(
    names: Annotated[list[str] | None, typer.Argument(help="calibrated tasks; all of them when left out")] = None,
) -> None:
    """Measure again what a plan and a step take on this machine, which should be idle; the rest of the references stays."""
    torch.set_num_threads(1)
    known = registry.references()
    chosen = names or list(known)
    for name in chosen:
        if name not in known:
            raise BadArgumentError(str(unknown("calibrated task", name, known)))
    failed: list[str] = []
    for name in track(chosen, "times"):
        with left_out_where_it_fails(name, failed):
            write = write_member if name in MEMBERS else write_reference
            before = registry.references()[name]
            if not write(name, before | measured_times(name), before):
                raise ValueError("another process has changed its references meanwhile; run this again")
            registry.forget()
    if failed:
        raise typer.Exit(1)


def write_reference(name: str, entry: dict[str, Any], before: dict[str, Any] | None = None) -> bool:
    """Replace one entry of references.json, whole or not at all; several processes may write.

    Args:
        name: of the task.
        entry: the new one.
        before: the one that it follows from; None: whatever there is goes.

    Returns:
        Whether it was written; not where another process has changed the entry since.
    """
    with FileLock(REFERENCES.with_suffix(".lock")):
        entries = json.loads(REFERENCES.read_text(encoding="utf-8"))
        if before is not None and entries.get(name) != before:
            return False
        entries[name] = entry
        draft = REFERENCES.with_suffix(".draft")
        draft.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, REFERENCES)
    return True
