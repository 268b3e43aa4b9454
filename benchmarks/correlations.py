"""How far a validation return can be trusted: rank correlations with test data and with what fine-tuning would make of a plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from filelock import FileLock
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from scipy.stats import spearmanr

from agents.cli import BadArgumentError
from benchmarks.held_out import return_on_test
from benchmarks.plans import cut_to, random_plans
from benchmarks.task_commands import left_out_where_it_fails
from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.compression.plan import Request
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.reference import make_reference
from reptile_env.evaluation.settings import Finetune, Settings
from reptile_env.rewards import quality
from reptile_env.tasks import registry
from reptile_env.tasks.registry import make_task

PLANS = 100
FILE = Path(__file__).with_name("correlations.json")
SAME = 0.005  # processors round differently
SHORT = Finetune(steps=100)  # what "a short fine-tune" is


def correlate(
    name: str, plans: int, progress: Callable[[float], None] = lambda done: None, finetune: bool = True
) -> dict[str, Any]:
    """Spearman's rank correlations over random plans of a task, rates drawn as random search draws them.

    Args:
        name: a built-in task with a test split.
        plans: random ones.
        progress: told the fraction that is done.
        finetune: whether to fine-tune the plans; of a large network each takes minutes.

    Returns:
        ``valid_test``: of validation return and test return; ``finetuned_return``: of validation return and the metric on
        validation data after `SHORT`; ``finetuned_metric``: of the metric before and after it, the last two and ``finetune_steps``
        with `finetune` alone. NaN where one of the two is constant.
    """
    task = make_task(name)
    evaluator = live_evaluator(task, Settings())
    tuned = live_evaluator(task, Settings(f"{evaluator.settings.recovery}+finetune", finetune=SHORT)) if finetune else None
    reference = make_reference(evaluator, "macs", [Request(rate) for rate in uniform_rates(DEFAULT_MAX_RATE)], None)
    dense_test = evaluator.test(evaluator.dense)

    def good(metric: float) -> float:
        return quality(metric, reference.dense.metric, evaluator.higher_is_better)

    rows, after = [], []
    for index, plan in enumerate(random_plans(evaluator, plans)):
        valid = evaluator.measure(plan)
        tested = return_on_test(reference, dense_test, evaluator.test(plan))
        rows.append((reference.return_of(valid), tested, good(valid.metric)))
        if tuned:
            after.append(good(tuned.measure(cut_to(tuned, list(plan.widths))).metric))
        progress((index + 1) / plans)
    returns, on_test, before = np.array(rows).T
    found = {"plans": plans, "valid_test": _spearman(returns, on_test)}
    if not tuned:
        return found
    ranks = {"finetuned_return": _spearman(returns, after), "finetuned_metric": _spearman(before, after)}
    return found | ranks | {"finetune_steps": SHORT.steps}


def _spearman(first: Any, second: Any) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return round(float(spearmanr(first, second).statistic), 3)


def correlations(
    names: Annotated[list[str] | None, typer.Argument(help="built-in tasks; all core tasks when left out")] = None,
    plans: Annotated[int, typer.Option(help="random plans of each task")] = PLANS,
    finetune: Annotated[
        bool, typer.Option(help="whether to fine-tune the plans, too; of a large network each takes minutes")
    ] = True,
) -> None:
    """How validation returns rank plans beside test returns, and beside a short fine-tune; kept in benchmarks/correlations.json."""
    if plans < 3:
        raise BadArgumentError(f"--plans {plans}: a rank correlation needs at least 3")
    core = [row["name"] for row in registry.tasks() if row["suite"] == "core"]
    try:
        chosen = [registry.task_spec(name).name for name in names or core]
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:

        def follow(bar: TaskID) -> Callable[[float], None]:
            return lambda done: progress.update(bar, completed=done)

        failed: list[str] = []
        for name in chosen:
            with left_out_where_it_fails(name, failed):
                found = correlate(name, plans, follow(progress.add_task(name, total=1.0)), finetune)
                _write(name, found)
                progress.console.print(name, json.dumps(found))
    if failed:
        raise typer.Exit(1)


def _agree(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and abs(first - second) <= SAME


def _write(name: str, found: dict[str, Any]) -> None:
    with FileLock(FILE.with_suffix(".lock")):
        entries = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
        known = entries.get(name, {})
        # What it says of a fine-tune stays where it is of these plans, and of this network: another one has other test returns.
        if known.get("plans") == found.get("plans") and _agree(known.get("valid_test"), found.get("valid_test")):
            found = known | found
        draft = FILE.with_suffix(".draft")
        draft.write_text(json.dumps(dict(sorted((entries | {name: found}).items())), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, FILE)
