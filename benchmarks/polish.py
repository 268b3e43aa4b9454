"""``python -m benchmarks polish``: the best known plans are changed one group at a time, until no group alone can be bettered."""

from __future__ import annotations

import copy
import functools
import math
import sys
from collections.abc import Callable
from typing import Annotated, Any

import gymnasium as gym
import torch
import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agents.cli import BadArgumentError
from benchmarks.budgets import described, inner_of, share_best
from benchmarks.plans import cut_to
from benchmarks.task_commands import write_reference
from benchmarks.transfer_family import write_member
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry
from reptile_env.tasks.transfer.members import MEMBERS


def polished(
    inner: ReptilePruneEnv, plan: Plan, max_rate: float, cap: float = math.inf, tell: Callable[[str], None] = print
) -> Plan:
    """A plan near another from which no change of one group's channels leads to a better one.

    One group after the other gets the width of the largest return, all widths tried, until a round over the groups changes nothing
    (coordinate ascent; Bertsekas, Nonlinear Programming, 1999, section 2.7). A few thousand measurements.

    Args:
        inner: the environment that measures; its own budget is not looked at.
        plan: to begin with, float and of whole channels.
        max_rate: most that may be cut of a group.
        cap: on the cost, relative to dense.
        tell: told of each round.

    Raises:
        ValueError: the plan does not meet the cap.
    """
    evaluator, reference = inner.evaluator, inner.reference
    widths, start = [int(width) for width in plan.widths], inner.measure(plan)
    best, share = reference.return_of(start), start.cost(reference.cost) / reference.dense_cost
    if share > cap:
        raise ValueError(
            f"the plan has {share:.3f} of the {reference.cost}, and at most {cap:g} are allowed; begin with one that has"
        )
    changed, rounds = True, 0
    while changed:
        changed, rounds = False, rounds + 1
        for group, size in enumerate(evaluator.sizes):
            for width in range(size - removal_count(size, max_rate), size + 1):
                tried = [*widths[:group], width, *widths[group + 1 :]]
                measured = inner.measure(cut_to(evaluator, tried))
                value = reference.return_of(measured)
                if value > best and measured.cost(reference.cost) / reference.dense_cost <= cap:
                    best, widths, changed = value, tried, True
        tell(f"round {rounds}, return {best:.4f}")
    return cut_to(evaluator, widths)


def with_polished(name: str, entry: dict[str, Any], tell: Callable[[str], None] = print) -> dict[str, Any]:
    """An entry of ``references.json`` whose best plans, without and under each cap, are polished.

    Args:
        name: of the task.
        entry: as it is; not changed.
        tell: told of each round.

    Raises:
        ValueError: its best plan is of another network.
        OSError, ImportError: the task's data are not here.
    """
    after = copy.deepcopy(entry)
    inner = inner_of(gym.make("ReptilePrune-v0", task=name, measure="round"))
    command = f"python -m benchmarks polish {name}"
    for cap, part in [(math.inf, after), *((float(cap), part) for cap, part in after.get("budgets", {}).items())]:
        known = part["best_known"]
        before = Plan.from_dict(known["plan"])
        plan = polished(inner, before, entry["settings"]["max_rate"], cap, tell)
        found = described(inner, plan)
        if found["return"] <= inner.reference.return_of(inner.measure(before)):
            continue
        known |= found | {"found_by": f"{known['found_by'].removesuffix(', polished')}, polished"}
        if "command" in known and command not in known["command"]:
            known["command"] += f"; {command}"
        if part is after:
            known["test"] = inner.evaluator.test(plan).metric
    if after != entry:
        share_best(after, lambda better: inner.evaluator.test(better).metric)
    return after


def polish(
    names: Annotated[list[str] | None, typer.Argument(help="tasks with references; the core tasks when left out")] = None,
) -> None:
    """Change the best known plans one group at a time until no group alone can be bettered; better ones go into references.json."""
    core = [row["name"] for row in registry.tasks() if row["suite"] == "core"]
    known = registry.references()
    for name in names or ():
        if name not in known or "budgets" not in known[name]:
            raise BadArgumentError(f"{name}: references.json has no plan of such a task; `checkpoints {name}` makes one")
    torch.set_num_threads(1)
    broken = False
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("", total=len(names or core))
        for name in names or core:
            tell = functools.partial(_show, progress, bar, name)
            try:
                after = with_polished(name, known[name], tell)
            except (ValueError, OSError, ImportError) as error:
                print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
                broken = True
                continue
            finally:
                progress.advance(bar)
            write = write_member if name in MEMBERS else write_reference
            if after != known[name] and not write(name, after, known[name]):
                print(f"{name}: left as it is, for another process has changed it meanwhile; run this again", file=sys.stderr)
                broken = True
                continue
            progress.console.print(f"{name}: {known[name]['best_known']['return']:.4f} -> {after['best_known']['return']:.4f}")
    registry.forget()
    if broken:
        raise typer.Exit(1)


def _show(progress: Progress, bar: TaskID, name: str, text: str) -> None:
    progress.update(bar, description=f"{name}: {text}")
