"""Units that gate one another are removed together."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.compression import prune
from reptile_env.compression.groups import tensors_of
from reptile_env.compression.macs import count_macs
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import call
from reptile_env.tasks.task import Task
from tests.helpers import random_plan


class TwoLayers(nn.Module):
    """SwiGLU as Llama has it: gate and value by layers of their own, in a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate, self.up = nn.LayerNorm(8), nn.Linear(8, 20, bias=False), nn.Linear(8, 20, bias=False)
        self.down, self.head = nn.Linear(20, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        return self.head(x + self.down(functional.silu(self.gate(normal)) * self.up(normal)))


class OneLayer(nn.Module):
    """GEGLU: both halves by one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.down, self.head = nn.Linear(8, 40), nn.Linear(20, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, -1)
        return self.head(x + self.down(value * functional.gelu(gate)))


class Convolutional(nn.Module):
    """A gated convolution: batch norm over both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.norm, self.after = nn.Conv1d(1, 24, 3, padding=1), nn.BatchNorm1d(24), nn.Conv1d(12, 6, 3)
        self.glu, self.head = nn.GLU(1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.glu(self.norm(self.both(x[:, None])))).relu().mean(2))


@pytest.mark.parametrize(
    ("network", "sizes", "makers"),
    [
        (TwoLayers, {"gate": 20}, {"gate", "up"}),
        (OneLayer, {"both": 20}, {"both"}),
        (Convolutional, {"both": 12, "after": 6}, {"both"}),
    ],
)
def test_gated_units_are_cut_exactly_counted_and_refitted(
    network: Callable[[], nn.Module], sizes: dict[str, int], makers: set[str]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = network().eval().requires_grad_(False), torch.randn(300, 8)
    y = model(x)
    task = Task(model, (x[:200], y[:200]), (x[200:], y[200:]), metric="mse", loss="mse")
    evaluator = LiveEvaluator(task, Settings("none"))
    assert dict(zip(evaluator.group_names, evaluator.sizes, strict=True)) == sizes
    assert set(evaluator.structure.groups[0].producers) == makers
    rng = np.random.default_rng(0)
    for _ in range(4):
        plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
        cut, zeroed = evaluator.compressed_model(plan), copy.deepcopy(evaluator.structure.model)
        prune.install(zeroed, prune.zeroed(tensors_of(zeroed), evaluator.structure, plan))
        torch.testing.assert_close(call(cut, x), call(zeroed, x), atol=1e-5, rtol=0)
        assert evaluator.costs.all(plan.widths)["params"] == sum(p.numel() for p in cut.parameters())
        assert evaluator.costs.all(plan.widths)["macs"] == count_macs(cut, task.valid[:1].inputs)
    plan = evaluator.cut(evaluator.dense, 0, evaluator.sizes[0] // 4)
    assert LiveEvaluator(task, Settings("reconstruct")).measure(plan).loss < 0.9 * evaluator.measure(plan).loss
