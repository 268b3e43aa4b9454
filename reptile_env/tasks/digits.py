"""Two networks on scikit-learn's digits (the test part of UCI optdigits; CC BY 4.0): 1,797 grey images of 8x8."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import shift, train

TRAIN, VALID = 897, 450  # the remaining 450 are the test split


def splits() -> tuple[Split, Split, Split]:
    """Train, valid and test: 897 / 450 / 450 images, float32 ``(n, 1, 8, 8)`` in [0, 1], targets int64 in 0-9."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order].astype(np.float32) / 16)[:, None]
    data = Split(images, torch.from_numpy(digits.target[order].astype(np.int64)))
    return data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two 3x3 convolutions and the identity (He et al., Deep Residual Learning, CVPR 2016)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = _conv(channels, hidden, 3)
        self.second = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to the same shape."""
        return torch.relu(x + self.norm(self.second(self.first(x))))


class DigitsCNN(nn.Module):
    """Convolutions of unequal widths and kernels, a residual block and a depthwise layer; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(1, 16, 5)
        self.wide = _conv(16, 48, 3)
        self.pool = nn.MaxPool2d(2)
        self.narrow = _conv(48, 24, 3)
        self.block = Residual(24, 64)
        self.expand = _conv(24, 96, 1)
        self.depthwise = _conv(96, 96, 3, groups=96)
        self.project = _conv(96, 32, 1)
        self.hidden = nn.Linear(32 * 4, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        x = self.pool(self.wide(self.stem(x)))
        x = self.block(self.narrow(x))
        x = self.pool(self.project(self.depthwise(self.expand(x))))
        logits: Tensor = self.head(torch.relu(self.hidden(x.flatten(1))))
        return logits


class DigitsMLP(nn.Module):
    """A fully connected network of unequal widths; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 256, 16, 192, 12, 96]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 10))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        out: Tensor = self.layers(x)
        return out


@dataclass(frozen=True)
class Recipe:
    """How one of the networks came to be, and the calibrated weight `w` of its metric."""

    family: str
    network: type[nn.Module]
    w: float
    training: dict[str, Any]


RECIPES = {
    "digits-cnn": Recipe("cnn", DigitsCNN, 0.8, {"epochs": 200, "lr": 2e-3, "augment": shift}),
    "digits-mlp": Recipe("mlp", DigitsMLP, 0.9, {"epochs": 300, "lr": 2e-3, "weight_decay": 0.1}),
}


def network(name: str) -> nn.Module:
    """An untrained network; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RECIPES[name].network()


def train_network(name: str, progress: Callable[[float], None] = lambda done: None) -> nn.Module:
    """Train a network as its recipe says; `progress` is told the fraction done."""
    settings = RECIPES[name].training
    data, _, _ = splits()
    loss = nn.functional.cross_entropy
    return train(network(name), data, loss=loss, progress=lambda e, _: progress((e + 1) / settings["epochs"]), **settings)


def _task(name: str) -> Task:
    model, recipe = network(name), RECIPES[name]
    model.load_state_dict(load_checkpoint(name))
    return Task(model, *splits(), name=name, family=recipe.family, w=recipe.w)


def digits_cnn() -> Task:
    """The default task."""
    return _task("digits-cnn")


def digits_mlp() -> Task:
    """The fully connected network."""
    return _task("digits-mlp")
