"""Four networks on scikit-learn's digits (the test part of UCI optdigits; CC BY 4.0): 1,797 grey images of 8x8.

A support vector machine trained on half of the images recognises .97 of the others in scikit-learn's own example ("Recognizing
hand-written digits"). Here images are split at random, and the same machine reaches .993 on validation and .989 on test images.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from reptile_env.tasks.digits_networks import DigitsCNN, DigitsMLP, DigitsMobileNet, DigitsResNet
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import shift

TRAIN, VALID = 897, 450  # the remaining 450 are the test split

RECIPES = {
    "digits-cnn": Recipe("cnn", DigitsCNN, 0.8, {"epochs": 200, "lr": 2e-3, "augment": shift}),
    "digits-mlp": Recipe("mlp", DigitsMLP, 0.9, {"epochs": 300, "lr": 2e-3, "weight_decay": 0.1}),
    "digits-mobilenet": Recipe("mobilenet", DigitsMobileNet, 0.75, {"epochs": 120, "lr": 4e-3, "augment": shift}),
    "digits-resnet": Recipe("resnet", DigitsResNet, 0.8, {"epochs": 80, "lr": 2e-3, "augment": shift}),
}


def splits() -> tuple[Split, Split, Split]:
    """Train, valid and test: 897 / 450 / 450 images, float32 ``(n, 1, 8, 8)`` in [0, 1], targets int64 in 0-9."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order].astype(np.float32) / 16)[:, None]
    data = Split(images, torch.from_numpy(digits.target[order].astype(np.int64)))
    return data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]


def network(name: str) -> nn.Module:
    """An untrained network; the global generator is left as it was."""
    return RECIPES[name].untrained()


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train a network as its recipe says; `progress` is told the fraction done."""
    return RECIPES[name].trained(splits()[0], progress)


def task(name: str) -> Task:
    """A trained network with its data."""
    return RECIPES[name].task(name, splits())
