"""Best plans of ``python -m agents train``, which resumes searches of hours after a kill, as best known plans."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from agents.arguments import Options
from agents.cli import BadArgumentError
from agents.resume import RUN, options_of, read_run
from benchmarks.budgets import described, inner_of
from benchmarks.plans import cut_to
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.resources import Resources
from reptile_env.tasks import registry
from reptile_env.tasks.transfer.members import MEMBERS

BEST = "best_plan.json"
# Arguments of the environment that say how it measures and not what.
RESOURCES = tuple(field.name for field in fields(Resources))


class Trained(NamedTuple):
    """The best plan of a run.

    Attributes:
        task: a built-in one, which has references.
        plan: the plan.
        found_by: which evaluation of which agent.
        command: what makes the run again.
    """

    task: str
    plan: Plan
    found_by: str
    command: str


def is_trained(folder: Path) -> bool:
    """Whether a folder is one that ``agents train`` wrote."""
    return (folder / RUN).is_file()


def read_trained(folder: Path) -> Trained:
    """The best plan of a run, be the run through or not.

    Raises:
        BadArgumentError: the folder is none of ``agents train``, or damaged.
        ValueError: a damaged run, a task without references, a run on a table, settings that no command names, or no plan yet.
    """
    run = read_run(folder)
    try:
        options, agent = options_of(run), run["agent"]
    except BadArgumentError as error:  # several folders may have been given
        raise BadArgumentError(f"{folder}: {error}") from error
    if options.task not in registry.references():
        raise ValueError(f"{folder}: {options.task} has no references; only calibrated built-in tasks have a best known plan")
    if options.task in MEMBERS:
        raise ValueError(f"{folder}: best plans of the transfer family come from `python -m benchmarks transfer-family` alone")
    if options.evaluator != "live":
        raise ValueError(f"{folder}: this run looked plans up in a table; give one of the running network (--evaluator live)")
    if options.others.keys() - RESOURCES or options.hyperparameters:
        raise ValueError(
            f"{folder}: this run had --hyperparameters, or --set of more than {', '.join(RESOURCES)}; give one with the "
            "settings that are shipped"
        )
    try:
        best = json.loads((folder / BEST).read_text(encoding="utf-8"))
        plan, evaluation = Plan.from_dict(best["plan"]), int(best["evaluation"])
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {BEST}: no plan within the budget was measured yet") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / BEST} is damaged: {error}; `agents train --resume {folder}` writes it anew") from error
    by = f"{agent}, {evaluation} of {options.steps} evaluations, seed {options.seed}"
    return Trained(options.task, plan, by, _command(agent, options))


def _command(agent: str, options: Options) -> str:
    asked = [f"--task {options.task} --steps {options.steps} --seed {options.seed}"]
    for field in fields(Options):
        value = getattr(options, field.name)
        if field.name not in ("task", "steps", "seed", "others", "hyperparameters") and value != field.default:
            asked.append(f"--{field.name} {value}")
    asked += [f"--set {name}={value}" for name, value in options.others.items() if name == "device"]
    return f"python -m agents train {agent} {' '.join(asked)}"


def with_trained(entry: dict[str, Any], found: Trained) -> dict[str, Any]:
    """An entry of ``references.json`` with the best plan of a run, where that is better and meets the cap.

    Args:
        entry: as it is; not changed.
        found: a plan of that task.

    Returns:
        The entry. The plan is held against the known ones as both measure here, whatever was said of them elsewhere.

    Raises:
        ValueError: a plan that the actions of the calibrated environment don't reach: of another network, deeper than `max_rate`,
            with bits, ranks or single weights, or cut after another importance.
        OSError, ImportError: the task's data are not here.
    """
    inner = inner_of(gym.make("ReptilePrune-v0", task=found.task, measure="round"))
    evaluator, most, plan = inner.evaluator, entry["settings"]["max_rate"], found.plan
    if plan.names != tuple(inner.groups):
        raise ValueError(f"the plan of {found.found_by} is of another network: its groups are {', '.join(plan.names)}")
    floors = [size - removal_count(size, most) for size in evaluator.sizes]
    if any(width < floor for width, floor in zip(plan.widths, floors, strict=True)) or cut_to(evaluator, [*plan.widths]) != plan:
        raise ValueError(f"no actions of this task's calibrated environment lead to the plan of {found.found_by}; see its settings")
    after, better = copy.deepcopy(entry), described(inner, plan)
    for cap, part in [(math.inf, after), *((float(cap), part) for cap, part in after.get("budgets", {}).items())]:
        known = described(inner, Plan.from_dict(part["best_known"]["plan"]))
        if better["return"] > known["return"] and better["relative_cost"] <= cap:
            part["best_known"] = better | {"found_by": found.found_by, "command": found.command}
            if part is after:
                part["best_known"]["test"] = evaluator.test(plan).metric
    return after
