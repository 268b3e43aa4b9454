"""Command line: ``python -m benchmarks checkpoints [TASK ...]``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.cli import BadArgumentError, run
from benchmarks.calibration import calibrate
from reptile_env.tasks import registry
from reptile_env.tasks.checkpoints import save_checkpoint

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and calibrate the built-in tasks.")


@app.callback()
def main() -> None:
    """Train and calibrate the built-in tasks."""


@app.command()
def checkpoints(
    names: Annotated[list[str] | None, typer.Argument(help="tasks; all of them when left out")] = None,
    calibrate_only: Annotated[bool, typer.Option("--calibrate-only", help="keep the shipped checkpoints")] = False,
) -> None:
    """Train the networks of built-in tasks from their seeds, calibrate them, and write checkpoints and references.json."""
    try:
        specs = [registry.task_spec(name) for name in names or [str(task["name"]) for task in registry.tasks()]]
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        for spec in specs:
            if not calibrate_only:
                bar = progress.add_task(f"{spec.name}: training", total=1.0)
                trained = registry.resolve(spec.trainer)(spec.name, lambda done, bar=bar: progress.update(bar, completed=done))
                save_checkpoint(spec.name, trained)
                registry.forget()
            bars: dict[str, int] = {}

            def show(step: str, done: float, name: str = spec.name, bars: dict[str, int] = bars) -> None:
                if step not in bars:
                    bars[step] = progress.add_task(f"{name}: {step}", total=1.0)
                progress.update(bars[step], completed=done)  # type: ignore[arg-type]

            _write(spec.name, calibrate(spec.name, show))
            registry.forget()


def _write(name: str, entry: dict[str, object]) -> None:
    """Replace one entry of references.json, whole or not at all."""
    path = Path(registry.__file__).with_name("references.json")
    entries = json.loads(path.read_text(encoding="utf-8")) | {name: entry}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


if __name__ == "__main__":
    sys.exit(run(app, "python -m benchmarks", "checkpoints"))
