"""ResNet-20 and a small MobileNetV2 on Fashion-MNIST (Xiao et al., 2017; MIT licence): 70,000 grey images of 28x28, 10 classes.

ResNet-20 reaches a test accuracy of .931 after eight passes, the MobileNetV2 (.33 million parameters) .926 after ten. The authors'
list of results that others sent in has .949 for a ResNet-18 and .950 for a MobileNet, networks of many times their size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.tasks.download import data_folder
from reptile_env.tasks.idx import fetch_idx, read_labelled
from reptile_env.tasks.mobilenet import MobileNetV2
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.resnet import ResNet
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

FOLDER = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
TRAINED = 55_000  # of the 60,000 training images; the rest was not trained on
VALID = 2_000  # of the rest: as many as a task measures
MEAN, DEVIATION = 0.2860, 0.3530
BATCH = 128


def _mobilenet() -> nn.Module:
    # Of the paper's seven stages the first five, with fewer blocks, at 14x14, 7x7 and 4x4.
    stages = ((1, 16, 1, 2), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 2, 1), (6, 96, 2, 2))
    return MobileNetV2(channels=1, stem=16, stages=stages, last=320)


RECIPES = {
    "fashion-resnet20": Recipe("resnet", lambda: ResNet(20, channels=1), 0.9, {"epochs": 8, "rate": 0.2}),
    "fashion-mobilenetv2": Recipe("mobilenet", _mobilenet, 0.65, {"epochs": 10, "rate": 0.1}),
}


def find() -> Path:
    """The folder of the data: in the data folder, of the Debian package, or downloaded to the first.

    Raises:
        ConnectionError: it can't be downloaded; see `reptile_env.tasks.download.fetch`, as for other errors.
    """
    # Locks and parts of a download that failed are no data.
    own = [*(data_folder() / FOLDER).glob("t*-ubyte"), *(data_folder() / FOLDER).glob("t*-ubyte.gz")]
    if DEBIAN.is_dir() and not own:
        return DEBIAN
    return fetch_idx(FOLDER, ADDRESS, FILES)


def splits(folder: Path, valid: int = VALID) -> tuple[Split, Split, Split]:
    """Train, validation and test images ``(n, 1, 28, 28)``, normalised, and their classes.

    Args:
        folder: of the official files.
        valid: how many of the training images that are not trained on are for validation.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a damaged file, or a label out of range.
    """

    def read(part: str) -> Split:
        images, classes = read_labelled(folder, part, classes=10)
        pixels = (torch.from_numpy(images).float().div(255)[:, None] - MEAN) / DEVIATION
        return Split(pixels, torch.from_numpy(classes).long())

    whole = read("train")
    if len(whole) < TRAINED + valid:
        raise ValueError(f"{folder} holds {len(whole):,} training images, {TRAINED + valid:,} are needed; fetch them again")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(whole)))
    return whole[order[:TRAINED]], whole[order[TRAINED : TRAINED + valid]], read("t10k")


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train a network from its seed on the training split alone; `progress` is told the fraction done.

    ResNet-20 takes about twenty minutes on one core that is free, MobileNetV2 a quarter of an hour.
    """
    recipe = RECIPES[name]
    return train(recipe.untrained(), splits(find())[0], progress=progress, **recipe.training)


def train(model: nn.Module, data: Split, *, epochs: int, rate: float, progress: Progress = lambda done: None) -> nn.Module:
    """Train in place with SGD, one cycle of the learning rate, label smoothing, flips, and shifts by two pixels.

    Args:
        model: untrained; its random layers draw from a seed, and the global generator is left as it was.
        data: what it is trained on.
        epochs: passes over the data.
        rate: the highest learning rate.
        progress: told the fraction done after each step.

    Returns:
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(0)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(data) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=rate / 2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.2)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for epoch in range(epochs):
            order = torch.randperm(len(data), generator=generator)
            for step in range(steps):
                batch = data[order[step * BATCH : (step + 1) * BATCH]]
                assert isinstance(batch.inputs, Tensor)
                logits = model(_varied(batch.inputs, generator))
                loss = functional.cross_entropy(logits, batch.targets, label_smoothing=0.05)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                progress((epoch * steps + step + 1) / (epochs * steps))
    return model.eval()


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch mirrored with probability 1/2 and rolled by up to two pixels, all images alike."""
    if torch.rand(1, generator=generator) < 0.5:
        images = images.flip(3)
    down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), (2, 3)).contiguous(memory_format=torch.channels_last)


def task(name: str, folder: Path | None = None, valid: int = VALID) -> Task:
    """A trained network with its data.

    Args:
        name: one of `RECIPES`.
        folder: of the data; None: where `find` finds it.
        valid: validation images.

    Raises:
        ValueError: see `splits`, as for other errors.
    """
    return RECIPES[name].task(name, splits(folder or find(), valid))
