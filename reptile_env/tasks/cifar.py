"""Published networks on CIFAR-10 (Krizhevsky, 2009): ResNet-20, ResNet-56 and MobileNetV2.

The weights are those of chenyaofo's pytorch-cifar-models (BSD-3-Clause); akamaster's pytorch_resnet_cifar10 can be loaded as well.
Their networks were trained on all 50,000 training images. So validation images are 1,000 of the official test images, and the
remaining 9,000 are for the test; training images serve for recovery and calibration alone. The published weights are those of the
epoch that was best on the test images, so that both flatter the dense network a little.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reptile_env.tasks.download import Resource, fetch, fetch_folder, needed
from reptile_env.tasks.mobilenet import MobileNetV2
from reptile_env.tasks.published import fill, read_pickled
from reptile_env.tasks.resnet import ResNet
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

FOLDER = "cifar10"
BATCHES = "cifar-10-batches-bin"
ARCHIVE = Resource(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    FOLDER,
)
RECORDS = 10_000  # in every file: a label and 3 x 32 x 32 pixels, a byte each
RECORD = 1 + 3 * 32 * 32
TRAIN, VALID = 10_000, 1_000  # of the training images, and of the 10,000 test images
_RELEASES = "https://github.com/chenyaofo/pytorch-cifar-models/releases/download"


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of red, green and blue that a network was trained with, of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


CIFAR = Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Published:
    """A network that chenyaofo published.

    Attributes:
        family: kind of network.
        network: makes it, untrained.
        file: of its weights.
        w: weight of the metric, that of such a network on Fashion-MNIST.
        other: makes the network of the same name that akamaster published.
        sha256: of the file; empty where it is not known for sure, so that the file is not downloaded.
    """

    family: str
    network: Callable[[], nn.Module]
    file: str
    w: float
    other: Callable[[], nn.Module] | None = None
    sha256: str = ""


NETWORKS = {
    "cifar10-resnet20": Published(
        "resnet",
        lambda: ResNet(20, shortcut="B"),
        "resnet/cifar10_resnet20-4118986f.pt",
        0.9,
        lambda: ResNet(20),
        "4118986f0df73003d572b0e397f0ac7b3f60af1f31aff3d2da164536e36f6ec8",
    ),
    "cifar10-resnet56": Published(
        "resnet",
        lambda: ResNet(56, shortcut="B"),
        "resnet/cifar10_resnet56-187c023a.pt",
        0.9,
        lambda: ResNet(56),
        "187c023aee0c9cf3093a682d9447a538cbaf5489f7ae78a7df4edf2246ce380b",
    ),
    "cifar10-mobilenetv2": Published("mobilenet", MobileNetV2, "mobilenetv2/cifar10_mobilenetv2_x1_0-fe6a5b48.pt", 0.9),
}


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images ``(10000, 3, 32, 32)``, uint8, and classes ``(10000,)``, int64, of a file of the binary archive.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another size than the format's, or a label out of range.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; put the archive's file there, or remove the folder, and it is fetched again")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if len(data) != RECORDS * RECORD:
        raise ValueError(
            f"{path} is no file of CIFAR-10's binary archive: it holds {len(data):,} bytes, {RECORDS * RECORD:,} are expected. "
            "Remove it, its folder and its archive, and they are fetched again"
        )
    rows = torch.from_numpy(data.reshape(RECORDS, RECORD).copy())
    classes = rows[:, 0].long()
    if classes.max() > 9:
        raise ValueError(f"{path} holds label {classes.max()}; labels are 0 to 9. Fetch the archive again")
    return rows[:, 1:].reshape(-1, 3, 32, 32), classes


def splits(normalisation: Normalisation = CIFAR, folder: Path | None = None) -> tuple[Split, Split, Split]:
    """Train, valid and test: 10,000 / 1,000 / 9,000 images ``(n, 3, 32, 32)``, normalised, and their classes.

    Args:
        normalisation: what the network was trained with.
        folder: of the unpacked archive; None: ``cifar10/cifar-10-batches-bin`` in the data folder, downloaded where it is missing.

    Raises:
        ConnectionError, OSError: it can't be downloaded, or lacks a file.
        ValueError: see `read_batch`.
    """
    folder = folder or fetch_folder(ARCHIVE, f"{FOLDER}/{BATCHES}", BATCHES)
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in (normalisation.mean, normalisation.deviation))

    def read(names: list[str], part: slice | Tensor) -> Split:
        images, classes = (torch.cat(arrays) for arrays in zip(*(read_batch(folder / name) for name in names), strict=True))
        return Split((images[part].float().div(255) - mean) / deviation, classes[part])

    order = torch.from_numpy(np.random.default_rng(0).permutation(RECORDS))
    train = read([f"data_batch_{number}.bin" for number in range(1, 6)], slice(0, None, 5 * RECORDS // TRAIN))
    return train, read(["test_batch.bin"], order[:VALID]), read(["test_batch.bin"], order[VALID:])


def published(name: str, weights: Path | None = None) -> tuple[nn.Module, Normalisation]:
    """A network with published weights, and what its images are normalised by.

    Args:
        name: one of `NETWORKS`.
        weights: a file of chenyaofo's or akamaster's; None: chenyaofo's in ``cifar10`` of the data folder, downloaded where it is
            missing.

    Raises:
        ConnectionError, OSError: they can't be downloaded, or are not there.
        ValueError: a damaged file, or one of another network.
    """
    known = NETWORKS[name]
    path = weights or _weights(known)
    tensors = read_pickled(path)
    with torch.random.fork_rng(devices=[]):
        if known.other is not None and "linear.weight" in tensors:  # its last layer goes by this name
            return fill(known.other(), tensors, path), IMAGENET
        renamed = {re.sub(r"^fc\.", "linear.", key): tensor for key, tensor in tensors.items()}
        return fill(known.network(), renamed, path), CIFAR


def _weights(known: Published) -> Path:
    file, url = known.file.rpartition("/")[2], f"{_RELEASES}/{known.file}"
    if known.sha256:
        return fetch(Resource(file, url, known.sha256, FOLDER))
    return needed(FOLDER, file, f"published weights, from {url}")


def task(name: str, weights: Path | None = None) -> Task:
    """A published network with its data, measured by accuracy.

    Args:
        name: one of `NETWORKS`.
        weights: see `published`, as for errors.
    """
    model, normalisation = published(name, weights)
    known = NETWORKS[name]
    return Task(model, *splits(normalisation), name=name, family=known.family, w=known.w)
