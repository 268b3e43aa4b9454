"""Building a table: every plan of a grid, measured by the running network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.outputs import versions
from reptile_env.compression.cost import CostModel
from reptile_env.compression.latency_file import machine
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.grid import Grid, make_grid
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.table_head import Further, Head

# The uniform settings that returns are scaled by, for every max_rate: multiples of 0.05 below 1.
UNIFORM_RATES = [round(0.05 * k, 2) for k in range(1, 20)]

Columns = dict[str, NDArray[Any]]


def make_head(evaluator: LiveEvaluator, rates: Sequence[float]) -> Head:
    """Everything of a table but its columns; measures the uniform settings.

    Args:
        evaluator: runs the network.
        rates: of the levels of every group.

    Raises:
        ValueError: settings that no table can hold.
    """
    grid = make_grid(evaluator, rates, UNIFORM_RATES)
    assert isinstance(evaluator.costs, CostModel)  # the grid takes structured pruning alone
    further = [Further(widths, measure(evaluator, grid.plan_of(widths))) for widths in sorted(grid.exact, reverse=True)]
    return Head(
        task=evaluator.name,
        settings=evaluator.settings,
        grid=grid,
        features=evaluator.features,
        rankable=evaluator.rankable,
        sensitivity=evaluator.sensitivity(),
        metric_name=evaluator.metric_name,
        higher_is_better=evaluator.higher_is_better,
        w=evaluator.w,
        chosen=evaluator.chosen,
        costs=evaluator.costs,
        further=tuple(further),
        weights=weights_hash(evaluator),
        made_by={"versions": versions(), "machine": machine(), "threads": torch.get_num_threads()},
    )


def measure(evaluator: LiveEvaluator, plan: Plan) -> dict[str, float]:
    """What a row of a table holds of a plan, by column."""
    valid = evaluator.measure(plan)
    values = {"metric": valid.metric, "loss": valid.loss}
    if evaluator.task.has_test:
        test = evaluator.test(plan)
        values |= {"test_metric": test.metric, "test_loss": test.loss}
    if valid.train_loss is not None:
        values["train_loss"] = valid.train_loss
    return values | {"seconds": rounded(valid.seconds)}


def rounded(seconds: float) -> float:
    """Three significant digits in single precision: more would be noise, and noise can't be compressed."""
    return float(np.float32(f"{seconds:.3g}"))


def measure_rows(evaluator: LiveEvaluator, grid: Grid, rows: Iterable[int]) -> Columns:
    """The columns of some rows, in order."""
    measured = [measure(evaluator, grid.plan(row)) for row in rows]
    kinds = {name: np.float32 if name == "seconds" else np.float64 for name in measured[0]}
    return {name: np.array([values[name] for values in measured], kind) for name, kind in kinds.items()}


def weights_hash(evaluator: LiveEvaluator) -> str:
    """SHA-256 of the dense network's tensors."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(evaluator.task.model.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return hashed.hexdigest()
