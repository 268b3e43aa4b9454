"""``python -m benchmarks better-plans``: plans of a benchmark's runs that beat the best known ones go into references.json."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import torch
import typer

from agents.cli import BadArgumentError
from benchmarks.budgets import inner_of, share_best
from benchmarks.plans import cut_to
from benchmarks.report.cases import Case, by_suite
from benchmarks.results import Run, read_runs
from benchmarks.results_folder import claimed
from benchmarks.task_commands import write_reference
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry
from reptile_env.tasks.transfer.members import MEMBERS

LEAST_GAIN = 1e-6  # of a return; less is another machine's rounding


def better_plans(
    folders: Annotated[list[Path], typer.Argument(help="results, as run makes them")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what is better, and write nothing")] = False,
) -> None:
    """Measure the best plans of runs here, and make those that beat the best known ones the new best known.

    Older results keep what they recorded; reports score all of them against the best plan of today.
    """
    try:
        runs = [run for folder in folders if claimed(folder) for run in read_runs(folder)]
    except (ValueError, OSError) as error:
        raise BadArgumentError(str(error)) from error
    torch.set_num_threads(1)
    count = 0
    for name, cases in _by_task(runs).items():
        before = registry.references()[name]
        entry = with_better(name, before, cases)
        for cap, old, new in _gains(before, entry):
            count += 1
            print(f"{name}{cap}: {old:.4f} -> {new['return']:.4f}, {new['found_by']}", flush=True)
        if entry != before and not dry_run:
            write_reference(name, entry)
    registry.forget()
    print(f"{count} better plans {'found' if dry_run else 'written to references.json'}")


def with_better(name: str, entry: dict[str, Any], cases: Sequence[Case]) -> dict[str, Any]:
    """An entry of ``references.json`` with the best plans of some runs, where they are better.

    Args:
        name: of the task.
        entry: as it is; not changed.
        cases: the task's, without or with one of the entry's caps, with a scale that compares with the entry's.

    Returns:
        The entry, with returns as they are measured here, whatever the runs say.
    """
    entry = copy.deepcopy(entry)
    inner = inner_of(gym.make("ReptilePrune-v0", task=name, measure="round"))
    commands: dict[str, str] = {}
    for case in cases:
        run, row = _best(case)
        capped = None if case.budget is None else f"{case.budget:g}"
        known = entry["best_known"] if capped is None else entry["budgets"][capped]["best_known"]
        found = _measured(inner, run, row)
        if found["return"] < known["return"] + LEAST_GAIN or found["relative_cost"] > (case.budget or math.inf):
            continue
        command = f"python -m benchmarks run {run.suite} --agents {run.agent} --tasks {run.task} --seeds {run.seed + 1}"
        commands[found["found_by"]] = command
        if capped is not None:
            entry["budgets"][capped]["best_known"] = found
            continue
        test = inner.evaluator.test(cut_to(inner.evaluator, run.columns["widths"][row].tolist())).metric
        entry["best_known"] = found | {"test": test, "command": command}
    if "budgets" in entry:
        share_best(entry, lambda plan: inner.evaluator.test(plan).metric)
        found_by = entry["best_known"]["found_by"].partition(" (")[0]  # a plan under a cap may be the best of all
        entry["best_known"]["command"] = commands.get(found_by, entry["best_known"]["command"])
    return entry


def _by_task(runs: Sequence[Run]) -> dict[str, list[Case]]:
    """The cases whose returns compare with a built-in task's references, by task."""
    found: dict[str, list[Case]] = {}
    for case in (case for suite in by_suite(runs) for case in suite.cases):
        lead = case.lead
        if lead.settings.get("evaluator") == "table" or all(case.best(run) is None for run in case.runs):
            continue
        if lead.settings["task"] in MEMBERS:  # of one plan each, which no search found; their references are the family's own
            continue
        if not math.isnan(registry.anchors_today(lead.settings, lead.scale).best):
            found.setdefault(lead.settings["task"], []).append(case)
    return found


def _best(case: Case) -> tuple[Run, int]:
    """The best plan of any run."""
    found = [(run, row) for run in case.runs if (row := case.best(run)) is not None]
    return max(found, key=lambda each: case.result(each[0], "search"))


def _measured(inner: ReptilePruneEnv, run: Run, row: int) -> dict[str, Any]:
    plan = cut_to(inner.evaluator, run.columns["widths"][row].tolist())
    measured = inner.measure(plan)
    reference = inner.reference
    return {
        "return": reference.return_of(measured),
        "valid": measured.metric,
        "relative_cost": measured.cost(reference.cost) / reference.dense_cost,
        "found_by": f"{run.agent}, {row + 1} of {run.evaluations} evaluations, seed {run.seed} of {run.suite}",
        "plan": plan.to_dict(),
    }


def _gains(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """What got better: under which cap, the return before, and what is known now."""
    caps = {"": (before, after)}
    for cap, known in before.get("budgets", {}).items():
        caps[f" at {float(cap):.0%} of the MACs"] = known, after["budgets"][cap]
    for cap, (old, new) in caps.items():
        if old["best_known"] != new["best_known"]:
            yield cap, old["best_known"]["return"], new["best_known"]
