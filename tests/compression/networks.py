"""Networks of every shape that is cut, each with the layers whose outputs carry each group's channels.

The last is the independent reference: zeroing those outputs is what removing the channels must equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reptile_env.tasks.splits import Inputs, Split, call
from reptile_env.tasks.task import Task


class Residual(nn.Module):
    """A stem, two residual blocks on it, pooling, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(10, 14, 3, padding=1), nn.BatchNorm2d(14), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(14, 10, 1), nn.BatchNorm2d(10))
        self.third = nn.Sequential(nn.Conv2d(10, 10, 3, padding=1), nn.BatchNorm2d(10))
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.second(self.first(x)))
        x = torch.relu(x + self.third(x))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Two branches, concatenated, normalised together, flattened with their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 10, 1)
        self.norm = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 8, 3, stride=2)
        self.hidden = nn.Linear(8 * 9, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        x = torch.relu(self.down(x))
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class Depthwise(nn.Module):
    """Expand, depthwise, project, transposed; PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.PReLU(12))
        self.project = nn.Sequential(nn.Conv2d(12, 7, 1), nn.BatchNorm2d(7))
        self.up = nn.ConvTranspose2d(7, 9, 2, stride=2)
        self.head = nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.up(self.project(self.depthwise(self.expand(x))))))


class Signal(nn.Module):
    """1-d convolutions with dilation and stride; a linear layer along the last dimension; a dict of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, padding=4, dilation=2)
        self.second = nn.Conv1d(8, 6, 3, stride=2, padding=1, bias=False)
        self.mix = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, wave: Tensor, gain: Tensor) -> Tensor:
        x = torch.relu(self.first(wave * gain[:, None, None]))
        x = torch.relu(self.second(x)).transpose(1, 2)
        return self.head(torch.relu(self.mix(x)).mean(1))


class Reused(nn.Module):
    """One layer called twice; a tuple of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = torch.relu(self.first(x + y))
        return self.head(torch.relu(self.again(torch.relu(self.again(x)))))


@dataclass(frozen=True)
class Case:
    """A network, its inputs, and for each group in order the layers whose outputs to zero (with their channels' place)."""

    network: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Inputs]
    groups: dict[str, dict[str, slice]]
    sizes: tuple[int, ...]


def _images(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=generator)


def _signals(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"wave": torch.randn(count, 2, 20, generator=generator), "gain": torch.rand(count, generator=generator) + 0.5}


def _pairs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 8, generator=generator), torch.randn(count, 8, generator=generator)


ALL = slice(None)
CASES = {
    "residual": Case(
        Residual, _images, {"stem.0": {"stem": ALL, "second": ALL, "third": ALL}, "first.0": {"first": ALL}}, (10, 14)
    ),
    "concatenated": Case(
        Concatenated,
        _images,
        {"left": {"norm": slice(0, 6)}, "right": {"norm": slice(6, 16)}, "down": {"down": ALL}, "hidden": {"hidden": ALL}},
        (6, 10, 8, 12),
    ),
    "depthwise": Case(
        Depthwise,
        _images,
        {"expand.0": {"expand": ALL, "depthwise": ALL}, "project.0": {"project": ALL}, "up": {"up": ALL}},
        (12, 7, 9),
    ),
    "signal": Case(Signal, _signals, {"first": {"first": ALL}, "second": {"second": ALL}, "mix": {"mix": ALL}}, (8, 6, 5)),
    "reused": Case(Reused, _pairs, {"first": {"first": ALL, "again": ALL}}, (16,)),
}


def build(case: Case, seed: int = 0) -> nn.Module:
    """The network with random weights and batch-norm statistics that are far from the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = case.network().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return model.requires_grad_(False)


def task_of(name: str, examples: int = 64) -> Task:
    """A task on a case: its targets are what the network answers, so that the dense metric is 1."""
    case = CASES[name]
    model = build(case)
    inputs = case.inputs(examples, torch.Generator().manual_seed(1))
    data = Split(inputs, torch.zeros(examples, dtype=torch.long))
    with torch.no_grad():
        data = Split(inputs, call(model, inputs).argmax(1))
    half = examples // 2
    return Task(model, data[:half], data[half:], name=f"case-{name}", w=0.5)
