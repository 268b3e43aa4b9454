"""Costs against counters that know nothing of the cost model."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import call
from reptile_env.tasks.task import Task
from tests.compression.networks import CASES, task_of
from tests.helpers import random_plan, small_task


def counted(model: nn.Module, task: Task) -> dict[str, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        call(model, task.valid[:1].inputs)
    file = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    (header,) = struct.unpack("<Q", file[:8])
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "macs": flops.get_total_flops() // 2,
        "bytes": len(file) - 8 - header,
    }


@pytest.mark.parametrize("recovery", ["none", "reconstruct"])
@pytest.mark.parametrize("name", [*CASES, "digits-cnn", "digits-mlp"])
def test_costs_are_those_of_the_shrunk_network(name: str, recovery: str) -> None:
    task = task_of(name) if name in CASES else make_task(name)
    evaluator = LiveEvaluator(task, Settings(recovery))
    generator = np.random.default_rng(2)
    for plan in [evaluator.dense, *(random_plan(evaluator.group_names, evaluator.sizes, generator) for _ in range(6))]:
        measured = evaluator.measure(plan)
        found = {cost: measured.cost(cost) for cost in ("params", "macs", "bytes")}
        assert found == counted(evaluator.compressed_model(plan), task)


def test_rows_of_widths_cost_what_each_costs_alone(builtin: str) -> None:
    evaluator = LiveEvaluator(make_task(builtin), Settings("none"))
    rows = np.random.default_rng(0).integers(1, np.array(evaluator.sizes) + 1, (4, 5, len(evaluator.sizes)))
    for cost in ("params", "macs", "bytes"):
        together = evaluator.costs.cost(cost, rows)
        assert together.shape == (4, 5)
        assert together[3, 2] == evaluator.costs.all(rows[3, 2])[cost]


class Multiplies(nn.Module):
    """A product of activations, which shrinks with its channels and lies in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.head(x / (1 + x[:, None] @ x[:, :, None])[:, 0])


class Outer(nn.Module):
    """A product of the activations of two groups: its multiply-accumulates are those of neither alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(8, 12), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        outer = torch.relu(self.first(x))[:, :, None] @ torch.relu(self.second(x))[:, None]
        return self.head(outer.sum(2))


def test_products_of_activations_are_counted() -> None:
    task = small_task("multiplies", model=Multiplies().eval())
    evaluator = LiveEvaluator(task, Settings("none"))
    for kept in (16, 5):
        measured = evaluator.measure(Plan(["first"], [range(kept)]))
        assert measured.macs == 8 * kept + kept + 4 * kept


def test_a_network_whose_macs_are_not_followed_is_refused() -> None:
    task = small_task("outer", model=Outer().eval())
    with pytest.raises(ValueError, match="multiply-accumulates"):
        LiveEvaluator(task, Settings("none"))


def test_shared_parameters_count_once() -> None:
    task = task_of("reused")
    evaluator = LiveEvaluator(task, Settings("none"))
    measured = evaluator.measure(evaluator.dense)
    assert measured.params == (8 * 16 + 16) + (16 * 16 + 16) + (16 * 4 + 4)
    assert measured.macs == 8 * 16 + 2 * 16 * 16 + 16 * 4
