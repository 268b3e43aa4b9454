"""``python -m benchmarks better-plans``: plans of a benchmark's runs that beat the best known ones go into references.json."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import typer

from agents.cli import BadArgumentError
from benchmarks.budgets import described, inner_of
from benchmarks.leaderboard import Validated
from benchmarks.plans import cut_to
from benchmarks.results import Run
from benchmarks.task_commands import REFERENCES, write_reference
from benchmarks.trained import Trained, is_trained, read_trained, with_trained
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry
from reptile_env.tasks.transfer.members import MEMBERS

TRIED = 5  # claims of a task and cap that are measured, the highest first, until one holds


class Claim(NamedTuple):
    """A plan of a run, and the return that it claims, on the scale of the task's references."""

    claimed: float
    run: Run
    row: int

    @property
    def widths(self) -> list[int]:
        """Of its groups."""
        return [int(width) for width in self.run.columns["widths"][self.row]]

    @property
    def found_by(self) -> str:
        """Which evaluation of which run."""
        run = self.run
        where = f"of {run.suite}" if run.task == run.settings["task"] else f"of {run.suite}, {run.task}"
        return f"{run.agent}, {self.row + 1} of {run.evaluations} evaluations, seed {run.seed} {where}"

    @property
    def command(self) -> str:
        """What makes that run again."""
        run = self.run
        return f"python -m benchmarks run {run.suite} --agents {run.agent} --tasks {run.task} --seeds {run.seed + 1}"


def better_plans(
    folders: Annotated[list[Path], typer.Argument(help="results that validate has confirmed, or runs of agents train")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what is better, and write nothing")] = False,
) -> None:
    """Measure the best plans of runs here, and make those that beat the best known ones the new best known.

    Runs are those of benchmarks, once validated, and those of ``python -m agents train`` on a built-in task. Older results keep
    what they recorded; reports score all of them against the best plan of today.
    """
    try:
        trained = [read_trained(folder) for folder in folders if is_trained(folder)]
        runs = [run for folder in folders if not is_trained(folder) for run in Validated.read(folder).runs]
    except (ValueError, OSError) as error:
        raise BadArgumentError(str(error)) from error
    if not dry_run and not os.access(REFERENCES.parent, os.W_OK):
        raise BadArgumentError(f"{REFERENCES} can't be written; --dry-run tells what is better")
    torch.set_num_threads(1)
    count, broken = 0, False
    found: dict[str, dict[str, Any]] = {}  # what a dry run would have written
    sources: list[tuple[str, list[Run] | Trained]] = [*_by_task(runs).items(), *((each.task, each) for each in trained)]
    for name, source in sources:
        before = found.get(name, registry.references()[name])
        try:
            entry = with_trained(before, source) if isinstance(source, Trained) else with_better(name, before, source)
        except (ValueError, OSError, ImportError) as error:  # another network, or data that are not here
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
            broken = True
            continue
        if entry == before:
            continue
        if not dry_run and not write_reference(name, entry, before):
            print(f"{name}: left as it is, for another process has changed it meanwhile; run this again", file=sys.stderr)
            broken = True
            continue
        if dry_run:
            found[name] = entry
        for cap, old, new in _gains(before, entry):
            count += 1
            print(f"{name}{cap}: {old:.4f} -> {new['return']:.4f}, {new['found_by']}", flush=True)
        registry.forget()
    print(f"{count} best known plans {'would be replaced' if dry_run else 'replaced in references.json'}")
    if broken:
        raise typer.Exit(1)


def with_better(name: str, entry: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """An entry of ``references.json`` with the best plans of some runs, where they are better.

    Args:
        name: of the task.
        entry: as it is; not changed.
        runs: of the task, with the entry's settings and weight.

    Returns:
        The entry. Plans are held against the known ones as both measure here, whatever was said of them elsewhere.

    Raises:
        ValueError: runs of another network.
        OSError, ImportError: the task's data are not here.
    """
    after = copy.deepcopy(entry)
    inner: ReptilePruneEnv | None = None
    for cap, part in [(math.inf, after), *((float(cap), part) for cap, part in after.get("budgets", {}).items())]:
        known = part["best_known"]
        claims = _claims(runs, entry, cap, known["return"])
        if not claims:
            continue
        inner = inner or inner_of(gym.make("ReptilePrune-v0", task=name, measure="round"))
        here = described(inner, Plan.from_dict(known["plan"]))["return"]
        for claim in claims:
            plan = _plan(inner, claim)
            found = described(inner, plan)
            if found["return"] > here and found["relative_cost"] <= cap:
                part["best_known"] = found | {"found_by": claim.found_by, "command": claim.command}
                if part is after:
                    part["best_known"]["test"] = inner.evaluator.test(plan).metric
                break
    return after


def _by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs whose returns compare with a built-in task's references, by task; told of those that have none."""
    found: dict[str, list[Run]] = {}
    unknown = set()
    for run in runs:
        task = run.settings["task"]
        if run.settings.get("evaluator") == "table" or task in MEMBERS:  # measured elsewhere; one plan each, which nobody searched
            continue
        uncapped = {key: value for key, value in run.settings.items() if key != "budget"}
        if math.isnan(registry.anchors_today(uncapped, run.scale).best):
            unknown.add(task)
            continue
        found.setdefault(task, []).append(run)
    if unknown:
        print(f"no references under these settings: {', '.join(sorted(unknown))}", file=sys.stderr)
    return found


def _claims(runs: Sequence[Run], entry: dict[str, Any], cap: float, known: float) -> list[Claim]:
    """The highest claims above what is known, of plans that meet the cap and that actions can reach; one a run."""
    cost, most = entry["settings"]["cost"], entry["settings"]["max_rate"]
    claims = []
    for run in runs:
        floors = np.array([size - removal_count(size, most) for size in run.sizes])
        returns = run.columns["plan_return"] * (float(run.scale["scale"]) / float(entry["scale"]))
        allowed = (run.columns[cost] <= cap * run.dense[cost]) & (run.columns["widths"] >= floors).all(axis=1)
        returns = np.where(allowed & np.isfinite(returns), returns, -np.inf)
        if len(returns) and returns.max() > known:
            claims.append(Claim(float(returns.max()), run, int(np.argmax(returns))))
    return sorted(claims, key=lambda claim: -claim.claimed)[:TRIED]


def _plan(inner: ReptilePruneEnv, claim: Claim) -> Plan:
    if (claim.run.groups, claim.run.sizes) != (tuple(inner.groups), tuple(inner.evaluator.sizes)):
        raise ValueError(f"the run of {claim.found_by} was of another network: groups {claim.run.groups} of {claim.run.sizes}")
    return cut_to(inner.evaluator, claim.widths)


def _gains(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """What got better: under which cap, the return before, and what is known now."""
    caps = {"": (before, after)}
    for cap, known in before.get("budgets", {}).items():
        caps[f" at {float(cap):.0%} of the MACs"] = known, after["budgets"][cap]
    for cap, (old, new) in caps.items():
        if old["best_known"] != new["best_known"]:
            yield cap, old["best_known"]["return"], new["best_known"]
