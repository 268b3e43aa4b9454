"""ResNet-20 on Fashion-MNIST (Xiao et al., 2017): the data as Debian packages it, and a network trained on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from reptile_env.tasks.idx import read_idx
from reptile_env.tasks.resnet import ResNet
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
TRAINED = 55_000  # of the 60,000 training images; the rest is for validation
MEAN, DEVIATION = 0.2860, 0.3530
EPOCHS, BATCH, PEAK_RATE = 8, 128, 0.2


def splits(folder: Path) -> tuple[Split, Split, Split]:
    """Train, validation and test images ``(n, 1, 28, 28)``, normalised, and their classes.

    Raises:
        FileNotFoundError: the data is not there.
    """

    def read(name: str) -> np.ndarray:
        found = sorted(folder.glob(f"{name}*"))
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no {name}; install Debian's dataset-fashion-mnist, or name its folder by --data"
            )
        return read_idx(found[0])

    def split(images: np.ndarray, classes: np.ndarray) -> Split:
        pixels = (torch.from_numpy(images).float().div(255)[:, None] - MEAN) / DEVIATION
        return Split(pixels, torch.from_numpy(classes).long())

    whole = split(read("train-images"), read("train-labels"))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(whole)))
    test = split(read("t10k-images"), read("t10k-labels"))
    return whole[order[:TRAINED]], whole[order[TRAINED:]], test


def train(data: Split, progress: Callable[[float], None] = lambda done: None) -> ResNet:
    """A ResNet-20 trained from a seed: SGD, one cycle, label smoothing, flips and shifts by two pixels."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(20, 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(data) // BATCH
    optimizer = torch.optim.SGD(network.parameters(), lr=PEAK_RATE / 2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * steps, pct_start=0.2)
    network.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(data), generator=generator)
        for step in range(steps):
            batch = data[order[step * BATCH : (step + 1) * BATCH]]
            assert isinstance(batch.inputs, Tensor)
            logits = network(_varied(batch.inputs, generator))
            loss = functional.cross_entropy(logits, batch.targets, label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            progress((epoch * steps + step + 1) / (EPOCHS * steps))
    return network.eval()


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch mirrored with probability 1/2 and rolled by up to two pixels, all images alike."""
    if torch.rand(1, generator=generator) < 0.5:
        images = images.flip(3)
    down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), (2, 3)).contiguous(memory_format=torch.channels_last)


def resnet20(train_split: Split, cache: Path, progress: Callable[[float], None] = lambda done: None) -> ResNet:
    """The trained network from the cache folder, trained now (about a quarter of an hour) if it is not there."""
    path = cache / "fashion-resnet20.safetensors"
    if not path.exists():
        trained = train(train_split, progress)
        cache.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        save_file({name: tensor.contiguous() for name, tensor in trained.state_dict().items()}, draft)
        os.replace(draft, path)
    network = ResNet(20, 1)
    network.load_state_dict(load_file(path))
    return network.eval()


def task(folder: Path, cache: Path, progress: Callable[[float], None] = lambda done: None) -> Task:
    """ResNet-20 on Fashion-MNIST."""
    train_split, valid, test = splits(folder)
    network = resnet20(train_split, cache, progress)
    return Task(network, train_split, valid, test, name="fashion-resnet20", family="cnn")
