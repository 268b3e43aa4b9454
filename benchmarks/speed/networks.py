"""Networks and data of the speed benchmark: speed needs shapes, not a real data set, so images are drawn from a seed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.tasks.registry import make_task
from reptile_env.tasks.resnet import ResNet
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train

CLASSES = 10
NOISE = 1.5  # deviation of the noise on images of deviation 1: hard enough that a cut shows in the accuracy
WEIGHT = 0.2  # of the metric in the utility: low, so that also an untrained network gains by a cut


def images(count: int, size: int, channels: int = 3, seed: int = 0) -> Split:
    """Smooth patterns, one a class, shifted by a draw, with noise on them; their classes."""
    patterns = torch.randn(CLASSES, channels, 4, 4, generator=torch.Generator().manual_seed(99))
    smooth = functional.interpolate(patterns, size=(size, size), mode="bicubic")
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    shifts = torch.randint(-size // 8, size // 8 + 1, (count, 2), generator=generator).tolist()
    shown = torch.stack([torch.roll(smooth[c], shift, (1, 2)) for c, shift in zip(classes.tolist(), shifts, strict=True)])
    return Split(shown + NOISE * torch.randn(shown.shape, generator=generator), classes)


@functools.cache
def resnet(depth: int, size: int, valid: int, calibration: int = 512, epochs: int = 0) -> Task:
    """A ResNet on images of `size`, trained for some epochs; untrained, what it says itself is taken for the truth.

    Args:
        depth: of the network.
        size: height and width of the images.
        valid: validation images.
        calibration: training images.
        epochs: of training on the training images, made four times as many for it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(depth)
    given, shown = images(calibration, size, seed=1), images(valid, size, seed=2)
    if epochs:
        train(network, images(4 * calibration, size, seed=3), epochs=epochs, loss=functional.cross_entropy, lr=5e-3)
    else:
        _settle(network, given)
        shown = Split(shown.inputs, _classes(network, shown))
    return Task(network, given, shown, name=f"resnet{depth}-{size}", family="cnn", w=WEIGHT)


@functools.cache
def chain(groups: int, valid: int, channels: int = 16, size: int = 8) -> Task:
    """`groups` equal convolutions one after the other and a linear layer: the same work a group, however many there are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for index in range(groups):
            layers += [nn.Conv2d(channels if index else 3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    given, shown = images(256, size, seed=1), images(valid, size, seed=2)
    _settle(network, given)
    shown = Split(shown.inputs, _classes(network, shown))
    return Task(network, given, shown, name=f"chain{groups}-{valid}", family="cnn", w=WEIGHT)


def _settle(network: nn.Module, data: Split) -> None:
    """Batch-norm statistics from data, so that untrained activations keep their size."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train()(data.inputs)
    network.eval()


def _classes(network: nn.Module, data: Split) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network(batch.inputs) for batch in data.batches(256)]).argmax(1).clone()


# name -> (task in full size, task for a quick look)
TASKS: dict[str, tuple[Callable[[], Task], Callable[[], Task]]] = {
    "resnet20": (lambda: resnet(20, 32, 1000, epochs=3), lambda: resnet(8, 16, 100, 128)),
    "resnet56": (lambda: resnet(56, 32, 5000), lambda: resnet(14, 8, 200, 128)),
    "digits-cnn": (lambda: make_task("digits-cnn"), lambda: make_task("digits-cnn")),
}


def task_of(name: str, quick: bool) -> Task:
    """A task by name, small where `quick`; nothing measured on it so far is remembered."""
    task = TASKS[name][quick]()
    task.kept.clear()
    return task
