"""How the network of a built-in task comes to be: what it is, how it is trained, and the calibrated weight of its metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Recipe:
    """A network, its training and its place in a benchmark.

    Attributes:
        family: kind of network.
        network: makes the network, untrained.
        w: calibrated weight of the metric in the utility, in (0, 1).
        training: arguments of `training.train`, ``epochs`` among them.
        loss: what is trained on, ``(outputs, targets) -> scalar``.
    """

    family: str
    network: Callable[[], nn.Module]
    w: float
    training: dict[str, Any]
    loss: Callable[..., Tensor] = nn.functional.cross_entropy

    def untrained(self) -> nn.Module:
        """The network as it is before training; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return self.network()

    def trained(self, data: Split, progress: Progress = lambda done: None) -> nn.Module:
        """The network trained on `data`, anew from its seed; `progress` is told the fraction done."""
        epochs = self.training["epochs"]
        return train(
            self.untrained(), data, loss=self.loss, progress=lambda epoch, _: progress((epoch + 1) / epochs), **self.training
        )

    def task(self, name: str, splits: tuple[Split, Split, Split], **settings: Any) -> Task:
        """The task on the network that ships under `name`; `settings` are further arguments of `Task`."""
        model = self.untrained()
        model.load_state_dict(load_checkpoint(name))
        return Task(model, *splits, name=name, family=self.family, w=self.w, **settings)
