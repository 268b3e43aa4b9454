"""Networks whose single weights go, and plans for them, for the tests of holes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.tasks.splits import Split
from tests.compression.kinds import made

BOTH = pytest.mark.parametrize("granularity", ["unstructured", "2:4"])


class Mixed(nn.Module):
    """A depthwise, a grouped, a transposed and a grouped transposed convolution, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped, self.up = nn.Conv2d(8, 16, 1, groups=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.grouped_up, self.head = nn.ConvTranspose2d(8, 6, 2, groups=2), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.depthwise(torch.relu(self.stem(x))))))
        return self.head(torch.relu(self.grouped_up(torch.relu(self.up(x)))).mean((2, 3)))


def mixed() -> tuple[nn.Module, Split]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Mixed().eval().requires_grad_(False)
        x = torch.randn(12, 3, 6, 6)
    return model, Split(x, model(x).argmax(1))


def network(name: str) -> tuple[nn.Module, Split]:
    return mixed() if name == "mixed" else made(name)[:2]


def uniform(evaluator: LiveEvaluator, rate: float) -> Plan:
    return Plan(evaluator.group_names, [size - removal_count(size, rate) for size in evaluator.sizes])
