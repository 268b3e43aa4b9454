"""Four networks on MNIST-1D: ten digit-like signals of 40 samples, padded, moved, sheared and noisy, made by the package mnist1d.

Greydanus and Kobak (Scaling Down Deep Learning with MNIST-1D, ICML 2024) report test accuracies of .94 for a convolutional network
and .91 for a GRU, trained on the 4,000 examples of the standard set; .68 for a fully connected network, .96 for people. The test
split here is theirs; the networks reach .990 (convolutional), .982 (LSTM), .969 (GRU) and .973 (Transformer) on it, trained on
`MORE` examples of the same generator too.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.tasks.mnist1d_networks import SignalCNN, SignalGRU, SignalLSTM, SignalTransformer
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.splits import Split, own_generators
from reptile_env.tasks.task import Task

SEED, COUNT = 42, 5000  # the standard set
TRAIN, VALID = 3500, 500  # of its 4,000 training examples; its 1,000 test examples are the test split
MORE_SEED, MORE = 43, 12_000
# Of the standard set and of the further examples, as `_digest` has it.
DIGESTS = {
    SEED: "bac71f9876f2fe089b324192be2c44f4c588886d33a971e9996fafce8a49c233",
    MORE_SEED: "840879773eb597cec240d78a19842fb2ee345e0edd787649bdbf5a9822504734",
}

RECIPES = {
    "mnist1d-cnn": Recipe("cnn-1d", SignalCNN, 0.85, {"epochs": 12, "lr": 4e-3}),
    "mnist1d-gru": Recipe("gru", SignalGRU, 0.85, {"epochs": 14, "lr": 5e-3, "batch_size": 128}),
    "mnist1d-lstm": Recipe("lstm", SignalLSTM, 0.8, {"epochs": 14, "lr": 5e-3, "batch_size": 128}),
    "mnist1d-transformer": Recipe("transformer", SignalTransformer, 0.8, {"epochs": 14, "lr": 3e-3, "batch_size": 128}),
}


@functools.cache
def splits() -> tuple[Split, Split, Split]:
    """Train, valid and test: 3,500 / 500 / 1,000 signals of the standard set, float32 ``(n, 1, 40)``, targets int64 in 0-9.

    Raises:
        ValueError: mnist1d made other signals than those that the networks were trained on.
    """
    data = _made(SEED, COUNT)
    return data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]


def training_examples() -> Split:
    """What the networks are trained on: the train split and `MORE` examples from another seed.

    Raises:
        ValueError: see `splits`.
    """
    train, more = splits()[0], _made(MORE_SEED, MORE)
    assert isinstance(train.inputs, Tensor) and isinstance(more.inputs, Tensor)
    return Split(torch.cat([train.inputs, more.inputs]), torch.cat([train.targets, more.targets]))


def network(name: str) -> nn.Module:
    """An untrained network; the global generator is left as it was."""
    return RECIPES[name].untrained()


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train a network as its recipe says; `progress` is told the fraction done."""
    return RECIPES[name].trained(training_examples(), progress)


def task(name: str) -> Task:
    """A trained network with its data."""
    return RECIPES[name].task(name, splits())


def _made(seed: int, count: int) -> Split:
    """`count` examples from the package's generator, which draws from numpy's global one: that is left as it was."""
    # Imported late: it brings matplotlib and requests along.
    from mnist1d.data import get_dataset_args, make_dataset

    settings: Any = get_dataset_args()
    settings.seed, settings.num_samples = seed, count
    with own_generators():
        made = make_dataset(settings)
    signals = np.concatenate([made["x"], made["x_test"]])
    targets = np.concatenate([made["y"], made["y_test"]])
    if _digest(signals, targets) != DIGESTS[seed]:
        raise ValueError(
            f"mnist1d made other signals from seed {seed} than those that the networks were trained on; "
            "install the version of mnist1d that constraints.txt names"
        )
    inputs = torch.from_numpy(signals.astype(np.float32))[:, None]
    return Split(inputs, torch.from_numpy(targets.astype(np.int64)))


def _digest(signals: NDArray[np.float64], targets: NDArray[np.int64]) -> str:
    """A hash that rounding errors of another machine leave alone."""
    rounded = np.round(signals * 1e4).astype("<i4")
    return hashlib.sha256(rounded.tobytes() + targets.astype("<i4").tobytes()).hexdigest()
