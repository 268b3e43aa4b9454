"""Published networks on MNIST (LeCun et al., 1998): a LeNet-5, the generator of a GAN and a variational autoencoder.

The weights are those of csinva's gan-vae-pretrained-pytorch (MIT). LeNet-5 reaches a test accuracy of .991, as its publisher
reports; the autoencoder a negative evidence bound of 103.2 nats with drawn latent variables, and of 94.9 with their mean, which
the task measures.

The networks were trained on all 60,000 training images. So validation images are 2,000 of the official test images, and the
remaining 8,000 are for the test; training images serve for recovery and calibration alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.tasks.download import needed
from reptile_env.tasks.generative import FrechetDistance
from reptile_env.tasks.idx import fetch_idx, read_labelled
from reptile_env.tasks.published import fill, read_safetensors
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

FOLDER = "mnist"
ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist"
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
TRAIN, VALID = 10_000, 2_000  # of the training images, and of the 10,000 test images
LATENTS, GENERATED = 64, 1_000  # of the generator: latent variables, and images in each split: a dozen for every feature
# Calibrated weights of the metrics.
W = {"mnist-lenet5": 0.95, "mnist-gan": 0.6, "mnist-vae": 0.53}


class LeNet5(nn.Module):
    """LeNet-5 with rectified units and largest values pooled (after LeCun et al., Proceedings of the IEEE 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict({"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)})
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def features(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 32, 32)`` to the 84 features before the last layer."""
        for name in ("c1", "c3"):
            x = functional.max_pool2d(torch.relu(self.convnet[name](x)), 2)
        x = torch.relu(self.convnet["c5"](x)).flatten(1)
        return torch.relu(self.fc["f6"](x))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 32, 32)`` in [0, 1] to logits ``(n, 10)``."""
        logits: Tensor = self.fc["f7"](self.features(x))
        return logits


class DigitFeatures(nn.Module):
    """What LeNet-5 makes of digits as the generator makes them."""

    def __init__(self, lenet: LeNet5) -> None:
        super().__init__()
        self.lenet = lenet

    def forward(self, x: Tensor) -> Tensor:
        """Pixels ``(n, 784)`` in [-1, 1] to features ``(n, 84)``."""
        return self.lenet.features(enlarged((x.reshape(-1, 1, 28, 28) + 1) / 2))


class VAE(nn.Module):
    """A fully connected variational autoencoder that decodes the mean of its latent variables.

    It works out their divergence itself, so that they can be cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels ``(n, 784)`` in [0, 1] to reconstructed ones and the divergence ``(n,)`` in nats."""
        hidden = torch.relu(self.fc1(x))
        mean, log_variance = self.fc21(hidden), self.fc22(hidden)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(mean)))), divergence


def generator() -> nn.Module:
    """Latent variables ``(n, 64)`` to pixels ``(n, 784)`` in [-1, 1]; untrained."""
    first, second = [nn.Linear(LATENTS, 256), nn.ReLU()], [nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.Linear(256, 784), nn.Tanh())


def enlarged(images: Tensor) -> Tensor:
    """Images ``(n, 1, 28, 28)`` at the 32x32 that LeNet-5 was published for."""
    return functional.interpolate(images, (32, 32), mode="bilinear")


def splits(folder: Path | None = None) -> tuple[Split, Split, Split]:
    """Train, valid and test: 10,000 / 2,000 / 8,000 images ``(n, 1, 28, 28)`` in [0, 1] and their digits.

    The order of the training file does not matter: copies of it differ there.

    Args:
        folder: of the official files; None: ``mnist`` in the data folder, downloaded where they are missing.

    Raises:
        ConnectionError, OSError: they can't be downloaded.
        ValueError: a damaged file, or a label out of range.
    """
    folder = folder or fetch_idx(FOLDER, ADDRESS, FILES)
    train, test = (_read(folder, part, count) for part, count in (("train", TRAIN), ("t10k", VALID + 1)))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(test)))
    return _sorted(train)[:TRAIN], test[order[:VALID]], test[order[VALID:]]


def _read(folder: Path, part: str, wanted: int) -> Split:
    images, digits = read_labelled(folder, part, classes=10)
    if len(images) < wanted or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{folder}: {part} holds images of shape {images.shape} where at least {wanted:,} of 28x28 are expected; "
            "fetch the official files"
        )
    return Split(torch.from_numpy(images).float().div(255)[:, None], torch.from_numpy(digits).long())


def _sorted(split: Split) -> Split:
    """Examples by a hash of their pixels: any order, but always the same."""
    assert isinstance(split.inputs, Tensor)
    hashes = [hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in split.inputs]
    return split[torch.tensor(sorted(range(len(split)), key=hashes.__getitem__))]


def published(name: str, model: nn.Module) -> nn.Module:
    """A network with its published weights, from ``checkpoints`` in the data folder.

    Raises:
        FileNotFoundError: they are not there.
        ValueError: the file is damaged, or of another network.
    """
    origin = f"published weights of {type(model).__name__}, of github.com/csinva/gan-vae-pretrained-pytorch (MIT), as safetensors"
    path = needed("checkpoints", f"{name}.safetensors", origin)
    return fill(model, read_safetensors(path), path)


def lenet5() -> LeNet5:
    """The published LeNet-5; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model = LeNet5()
    published("mnist_lenet5", model)
    return model


def lenet5_task(name: str) -> Task:
    """LeNet-5, measured by accuracy."""
    return _task(name, lenet5(), "lenet", [_mapped(split, enlarged) for split in splits()])


def vae_task(name: str) -> Task:
    """The autoencoder, measured by its negative evidence lower bound in nats, that of the mean of its latent variables."""
    with torch.random.fork_rng(devices=[]):
        model = published("mnist_vae", VAE())
    images = [_mapped(split, lambda x: x.flatten(1)) for split in splits()]
    data = [Split(split.inputs, split.inputs) for split in images if isinstance(split.inputs, Tensor)]
    return _task(name, model, "vae", data, metric="negative_elbo", loss="negative_elbo")


def gan_task(name: str) -> Task:
    """The generator, measured by the Frechet distance to real digits in the features of LeNet-5."""
    with torch.random.fork_rng(devices=[]):
        model = published("mnist_gan_mlp_generator", generator())
    distance, draws = FrechetDistance(DigitFeatures(lenet5())), np.random.default_rng(1)
    data = []
    for split in splits():
        real = _mapped(split[:GENERATED], lambda x: 2 * x.flatten(1) - 1).inputs
        assert isinstance(real, Tensor)
        data.append(Split(torch.from_numpy(draws.standard_normal((len(real), LATENTS)).astype(np.float32)), real))
    return _task(name, model, "gan", data, metric=distance, loss=distance)


def _mapped(split: Split, function: Any) -> Split:
    return Split(function(split.inputs), split.targets)


def _task(name: str, model: nn.Module, family: str, data: list[Split], **settings: Any) -> Task:
    train, valid, test = data
    return Task(model, train, valid, test, name=name, family=family, w=W[name], **settings)
