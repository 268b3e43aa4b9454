"""Rows of the quality table: a method, its plan, and what the network measures."""

from __future__ import annotations

import copy
import json
import math
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn

from agents.outputs import write
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import make_settings
from reptile_env.tasks.task import Task

RATE_STEP = 0.005  # of the search for the uniform rate that meets a cost


@dataclass(frozen=True)
class Method:
    """One way to compress: settings of the evaluator, and the plan that it carries out."""

    name: str
    plan: Callable[[LiveEvaluator], Plan]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table; costs are relative to the dense network's, `error` is a traceback in place of numbers."""

    network: str
    method: str
    settings: dict[str, Any]
    valid: float = math.nan
    test: float = math.nan
    params: float = math.nan
    macs: float = math.nan
    bytes: float = math.nan
    seconds: float = math.nan
    plan: str = ""
    error: str = ""


def uniform(rate: float, bits: int = 32, rank: float = 1.0) -> Callable[[LiveEvaluator], Plan]:
    """The same rate, bits and rank for every group."""

    def plan(evaluator: LiveEvaluator) -> Plan:
        made = evaluator.dense
        for group, size in enumerate(evaluator.sizes):
            made = evaluator.cut(made, group, removal_count(size, rate)).replace(group, bits=bits, rank=rank)
        return made

    return plan


def uniform_to(cost: Callable[[LiveEvaluator, Plan], float], share: float, **levels: Any) -> Callable[[LiveEvaluator], Plan]:
    """The smallest uniform rate that brings a cost, relative to dense, down to `share`."""

    def plan(evaluator: LiveEvaluator) -> Plan:
        for rate in np.arange(0, 0.95, RATE_STEP):
            made = uniform(float(rate), **levels)(evaluator)
            if cost(evaluator, made) <= share:
                return made
        raise ValueError(f"no uniform rate of {evaluator.name} brings its cost to {share:.0%}")

    return plan


def macs_share(evaluator: LiveEvaluator, plan: Plan) -> float:
    """MACs of a plan relative to dense."""
    return float(evaluator.costs.cost("macs", *plan.levels)) / float(evaluator.costs.cost("macs", *evaluator.dense.levels))


def rows(task: Task, methods: list[Method]) -> Iterator[Row]:
    """Measure each method on the validation and the test split; a method that fails is a row with its traceback."""
    for method in methods:
        start = time.perf_counter()
        try:
            evaluator = live_evaluator(task, make_settings(**method.settings))
            plan = method.plan(evaluator)
            valid, test = evaluator.measure(plan), evaluator.test(plan)
            dense = evaluator.costs.all(*evaluator.dense.levels)
            shares = {cost: float(valid.cost(cost)) / dense[cost] for cost in ("params", "macs", "bytes")}
            yield Row(
                task.name,
                method.name,
                method.settings,
                valid.metric,
                test.metric,
                **shares,
                seconds=time.perf_counter() - start,
                plan=repr(plan),
            )
        except (ValueError, TypeError, RuntimeError):
            yield Row(task.name, method.name, method.settings, error=traceback.format_exc())


def torch_pruning_row(task: Task, share: float) -> Row:
    """torch-pruning's own magnitude pruner at the same MACs, batch norms recalibrated on the same calibration examples."""
    start = time.perf_counter()
    example, dense_macs = task.valid[:1].inputs, 0.0
    low, high = 0.0, 0.95
    pruned = task.model
    for _ in range(12):
        ratio = (low + high) / 2
        network = copy.deepcopy(task.model).requires_grad_(True)
        dense_macs = dense_macs or float(torch_pruning.utils.count_ops_and_params(network, example)[0])
        outputs = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        pruner = torch_pruning.pruner.MagnitudePruner(network, example, importance, pruning_ratio=ratio, ignored_layers=outputs)
        pruner.step()
        if torch_pruning.utils.count_ops_and_params(network, example)[0] <= share * dense_macs:
            high, pruned = ratio, network
        else:
            low = ratio
    macs, params = torch_pruning.utils.count_ops_and_params(pruned, example)
    _recalibrate(pruned, task)
    valid, test = (task.score(task.outputs(pruned, split), split)[0] for split in (task.valid, task.test_split()))
    dense_params = sum(p.numel() for p in task.model.parameters())
    held, before = (sum(t.nbytes for t in model.state_dict().values()) for model in (pruned, task.model))
    took = time.perf_counter() - start
    name = "torch-pruning magnitude, recalibrated"
    return Row(task.name, name, {}, valid, test, params / dense_params, macs / dense_macs, held / before, took, f"ratio {high:.4f}")


def _recalibrate(network: nn.Module, task: Task) -> None:
    """The same statistics from the same examples as our own recalibration: means over two batches of 256."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    spread = np.linspace(0, len(task.train) - 1, 512).round().astype(np.int64)
    with torch.no_grad():
        for batch in task.train[torch.from_numpy(spread)].batches(256):
            network(batch.inputs)
    network.eval()


def save(folder: Path, done: list[Row], checks: list[dict[str, Any]]) -> None:
    """Write what is there so far: rows, goals and the machine."""
    machine = {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    record = {"machine": machine, "rows": [asdict(row) for row in done], "goals": checks}
    write(folder / "quality.json", json.dumps(record, indent=1))
    write(folder / "quality.md", markdown(done, checks))


def markdown(done: list[Row], checks: list[dict[str, Any]]) -> str:
    """The tables, one a network, and the goals."""
    lines = []
    for network in dict.fromkeys(row.network for row in done):
        lines += [f"## {network}", "", "| method | valid | test | params | MACs | bytes |", "|---|---|---|---|---|---|"]
        for row in (r for r in done if r.network == network):
            if row.error:
                lines.append(f"| {row.method} | failed: {row.error.strip().splitlines()[-1]} | | | | |")
            else:
                costs = " | ".join(f"{100 * value:.1f} %" for value in (row.params, row.macs, row.bytes))
                lines.append(f"| {row.method} | {row.valid:.4f} | {row.test:.4f} | {costs} |")
        lines.append("")
    if checks:
        lines += ["## Goals", "", "| what | measured | goal | met |", "|---|---|---|---|"]
        lines += [f"| {c['what']} | {c['measured']:.3f} | {c['goal']} | {'yes' if c['met'] else 'no'} |" for c in checks]
    return "\n".join(lines) + "\n"
