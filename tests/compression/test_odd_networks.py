"""Networks that are written in unusual ways: what can be cut is, what can't is named, and all of it can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import reptile_env
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.task import Task
from tests.helpers import classes


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(input=torch.relu(self.b(input=torch.relu(self.a(input=x)))))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(8, 12), nn.Linear(12, 20), nn.BatchNorm1d(20)
        self.c, self.d = nn.Linear(10, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.norm(self.b(torch.relu(self.a(x)))).chunk(2, 1)
        return self.d(torch.relu(self.c(value * torch.sigmoid(gate))))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.shuffle, self.b, self.head = nn.Conv2d(1, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.shuffle(torch.relu(self.a(x.view(-1, 1, 2, 4)))))).mean((2, 3)))


class WithNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, None]:
        return self.b(torch.relu(self.a(inputs[0]))), None


def normalised(norm: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 12), nn.ReLU(), norm(nn.Linear(12, 10)), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4)
    )


# name -> (network, groups that are cut, a layer that isn't and why)
ODD: dict[str, tuple[nn.Module, list[str], tuple[str, str]]] = {
    "by name": (ByName(), ["a", "b"], ("c", "network's output")),
    "gated": (Gated(), ["a", "b", "c"], ("d", "network's output")),
    "shuffled": (Shuffled(), ["a", "b"], ("head", "network's output")),
    "with nothing": (WithNothing(), ["a"], ("b", "network's output")),
    "weight norm": (normalised(parametrizations.weight_norm), ["4"], ("2", "not a plain parameter")),
    "spectral norm": (normalised(parametrizations.spectral_norm), ["4"], ("0", "not a plain parameter")),
}


def first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
def test_odd_networks(name: str, recovery: str, tmp_path: Path) -> None:
    model, cut, (left, reason) = ODD[name]
    x, y = classes(80)
    metric = lambda outputs, targets: (first(outputs).argmax(1) == targets).double().mean()  # noqa: E731
    loss = lambda outputs, targets: nn.functional.cross_entropy(first(outputs), targets)  # noqa: E731
    task = Task(model, (x[:40], y[:40]), (x[40:], y[40:]), metric=metric, loss=loss)
    evaluator = LiveEvaluator(task, Settings(recovery))
    assert list(evaluator.group_names) == cut
    assert reason in evaluator.structure.skipped[left]
    plan = evaluator.dense
    for group, size in enumerate(evaluator.sizes):
        plan = evaluator.cut(plan, group, size // 2)
    small = reptile_env.compress(task, plan, recovery=recovery)
    assert small.measurement == evaluator.measure(plan)
    assert small.measurement.params == sum(p.numel() for p in small.model.parameters())
    loaded = reptile_env.load(small.save(tmp_path / "network"))
    torch.testing.assert_close(first(loaded.model(x)), first(small.model(x)), atol=1e-5, rtol=0)


def test_a_single_validation_example_is_enough_to_save(tmp_path: Path) -> None:
    x, y = classes(30)
    task = Task(ByName(), (x[:29], y[:29]), (x[29:], y[29:]))
    evaluator = LiveEvaluator(task, Settings())
    small = reptile_env.compress(task, evaluator.cut(evaluator.dense, 0, 5))
    loaded = reptile_env.load(small.save(tmp_path / "network"))
    torch.testing.assert_close(loaded.model(x), small.model(x), atol=1e-5, rtol=0)


def test_old_weight_norm_is_refused_with_the_mend() -> None:
    x, y = classes(30)
    layer = nn.Linear(8, 12)
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(layer)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(12, 4))
    model(x)
    with pytest.raises(ValueError, match=r"remove torch\.nn\.utils\.weight_norm"):
        Task(model, (x[:20], y[:20]), (x[20:], y[20:]))
