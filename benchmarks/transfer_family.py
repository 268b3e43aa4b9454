"""``python -m benchmarks transfer-family``: trains and calibrates the networks of the transfer family, one after the other.

What is done is kept: an interrupted run goes on with the first network that lacks a checkpoint, or a reference that was found with
as many evaluations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from filelock import FileLock

from agents.cli import BadArgumentError
from agents.outputs import write
from benchmarks.calibration import calibrate
from benchmarks.weights import choose, survey
from reptile_env.errors import unknown
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks import registry
from reptile_env.tasks.checkpoints import has_checkpoint, save_checkpoint
from reptile_env.tasks.transfer import members
from reptile_env.tasks.transfer.task import train_network

REFERENCES = Path(members.__file__).with_name("references.json")
SURVEYED = 400  # random plans that a weight is chosen by
EVALUATIONS = 2500  # of each of the two searches for the best known plan
ATTEMPTS = 4  # weights that are tried


def transfer_family(
    names: Annotated[list[str] | None, typer.Argument(help="networks; all of them when left out")] = None,
    train_again: Annotated[bool, typer.Option("--train-again", help="also those that are trained")] = False,
    calibrate_again: Annotated[bool, typer.Option("--calibrate-again", help="also those that are calibrated so")] = False,
    train_only: Annotated[bool, typer.Option("--train-only", help="calibrate none")] = False,
    evaluations: Annotated[int, typer.Option(help="of each search for the best known plan")] = EVALUATIONS,
) -> None:
    """Train the networks of the transfer family, choose the weights of their metrics, and calibrate them."""
    if evaluations < 1:
        raise BadArgumentError(f"--evaluations {evaluations}: give at least 1")
    for name in names or ():
        if name not in members.MEMBERS:
            raise BadArgumentError(str(unknown("network of the family", name, members.MEMBERS)))
    torch.set_num_threads(1)  # so that any machine gives the shipped weights
    failed = []
    for name in names or members.MEMBERS:
        checkpoint = f"{members.SUITE}/{name}"
        start, known = time.perf_counter(), registry.references().get(name)
        if train_again or not has_checkpoint(checkpoint):
            save_checkpoint(checkpoint, train_network(name))
            write_member(name, None)
            print(f"{name}: trained in {time.perf_counter() - start:.0f} s", flush=True)
        done = registry.references().get(name, {}).get("evaluations", 0) >= evaluations
        if train_only or (done and not calibrate_again):
            continue
        try:
            write_member(name, calibrated(name, evaluations, known))
        except ValueError as error:
            failed.append(name)
            print(error, flush=True)
            continue
        print(f"{name}: {_told(registry.references()[name])}, {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        print(f"to be redesigned: {', '.join(failed)}")
        raise typer.Exit(1)


def calibrated(name: str, evaluations: int, known: dict[str, Any] | None) -> dict[str, Any]:
    """The reference of a network whose checkpoint is there, with the first weight of its metric that makes it a benchmark.

    Args:
        name: of the network.
        evaluations: of each search.
        known: its reference so far. The weight there is tried first, without a survey: runs on the network stay comparable.

    Raises:
        ValueError: no weight does.
    """
    refused = None
    command = f"python -m benchmarks transfer-family {name} --calibrate-again --evaluations {evaluations}"
    for w in _weights(name, known):
        try:
            entry = calibrate(name, evaluations=evaluations, w=w, budgets=(), known=known, command=command)
        except ValueError as error:
            refused = refused or error
            continue
        return entry | {"evaluations": evaluations}
    assert refused is not None
    raise refused


def _weights(name: str, known: dict[str, Any] | None) -> Iterator[float]:
    """The weight that a network has, then those that separate best in a survey."""
    if known is not None:
        yield known["w"]
    choices = survey(live_evaluator(registry.make_task(name), Settings()), SURVEYED)
    for attempt in range(ATTEMPTS):
        try:
            choice = choose(choices)
        except ValueError as error:
            if attempt or known is not None:
                return  # why those before were refused says more
            raise ValueError(f"task {name!r}: {error}") from error
        choices.remove(choice)
        yield choice.w


def _told(entry: dict[str, Any]) -> str:
    drawn, best = entry["random"], entry["best_known"]
    return (
        f"{entry['groups']} groups, {entry['params']:,} params, valid {entry['dense']['valid']:.3f}, w {entry['w']:g}, "
        f"random {drawn['mean']:.2f} / {drawn['best_of_200']:.2f}, best {best['return']:.2f}"
    )


def write_member(name: str, entry: dict[str, Any] | None, before: dict[str, Any] | None = None) -> bool:
    """Replace one entry of the family's references, or take it out; a network a line. Several processes may write.

    Args:
        name: of the network.
        entry: the new one; None takes it out.
        before: the one that it follows from; None: whatever there is goes.

    Returns:
        Whether it was written; not where another process has changed the entry since.
    """
    with FileLock(REFERENCES.with_suffix(".lock")):
        known: dict[str, Any] = json.loads(REFERENCES.read_text(encoding="utf-8"))
        if before is not None and known.get(name) != before:
            return False
        known.pop(name, None)
        if entry is not None:
            known[name] = entry
        ordered = [each for each in members.MEMBERS if each in known]
        lines = ",\n".join(f" {json.dumps(each)}: {json.dumps(known[each], separators=(',', ':'))}" for each in ordered)
        write(REFERENCES, f"{{\n{lines}\n}}\n")
    registry.forget()
    return True
