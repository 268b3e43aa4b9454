"""Networks of every kind and their plans of few bits, for the tests of quantization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Inputs, Split
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, first, made
from tests.compression.networks import CASES, build

ROUNDINGS = ("nearest", "data-aware")
COUNT = 40


class GroupedUp(nn.Module):
    """A depthwise convolution with a batch norm, a transposed one, and a transposed one in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm, self.up = nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 12, 2, stride=2)
        self.grouped_up, self.head = nn.ConvTranspose2d(12, 6, 2, groups=2), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm(self.depthwise(relu(self.stem(x)))))
        return self.head(input=relu(self.grouped_up(input=relu(self.up(x)))).mean((2, 3)))


NETWORKS = (*KINDS, "grouped up", *CASES)


def network(name: str, count: int = COUNT) -> tuple[nn.Module, Inputs]:
    generator = torch.Generator().manual_seed(3)
    if name in CASES:
        return build(CASES[name]), CASES[name].inputs(count, generator)
    if name in KINDS:
        return made(name)[0], torch.randn(count, *KINDS[name][1], generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GroupedUp().eval().requires_grad_(False), torch.randn(count, 3, 6, 6, generator=generator)


def evaluator_of(name: str, rounding: str, count: int = COUNT, **settings: Any) -> LiveEvaluator:
    model, inputs = network(name, count)
    data, half = Split(inputs, torch.zeros(count)), count // 2
    task = Task(
        model, data[:half], data[half:], metric=lambda o, t: 1 / (1 + first(o).square().mean()), loss=lambda o, t: first(o).mean()
    )
    return LiveEvaluator(task, Settings(**{"recovery": "none", "rounding": rounding, **settings}))


def uniform(evaluator: LiveEvaluator, bits: int, rank: float = 1.0) -> Plan:
    groups = len(evaluator.sizes)
    return Plan(evaluator.group_names, evaluator.dense.keep, bits=[bits] * groups, ranks=[rank] * groups)
