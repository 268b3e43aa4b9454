"""Data of the transfer family: small sets that packages bring or make, each in several arrangements.

The digits are those of `reptile_env.tasks.digits`, the signals those of `reptile_env.tasks.mnist1d`; pairs, noisy digits and
synthetic points are made from a seed. Validation splits are small, so that a measurement takes milliseconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, make_classification, make_hastie_10_2
from torch import Tensor

from reptile_env.tasks import digits, mnist1d
from reptile_env.tasks.splits import Split

VALID = 250  # examples of a validation split, at most
POINTS = (6000, VALID, 500)  # train, valid and test examples of synthetic sets
PAIRS = (4000, VALID, 500)
NOISE = 0.25  # standard deviation, where pixels are in [0, 1]

Splits = tuple[Split, Split, Split]


def _digits() -> Splits:
    """Grey images ``(1, 8, 8)`` of ten digits."""
    train, valid, test = digits.splits()
    return train, valid[:VALID], test


def _digits_parity() -> Splits:
    """Is the digit odd?"""
    train, valid, test = (Split(s.inputs, s.targets % 2) for s in _digits())
    return train, valid, test


def _digits_noisy() -> Splits:
    """Digits with Gaussian noise on every pixel."""
    generator = torch.Generator().manual_seed(0)
    train, valid, test = (Split(_noisy(_images(s), generator), s.targets) for s in _digits())
    return train, valid, test


def _digits_pairs() -> Splits:
    """Two digits side by side, ``(1, 8, 16)``: the larger of them. Pairs of one split have no image of another's."""
    generator = torch.Generator().manual_seed(0)
    train, valid, test = (_paired(s, count, generator) for s, count in zip(digits.splits(), PAIRS, strict=True))
    return train, valid, test


def _mnist1d() -> Splits:
    """Signals ``(1, 40)`` of ten classes."""
    train, valid, test = mnist1d.splits()
    return train, valid[:VALID], test


def _breast_cancer() -> Splits:
    """UCI breast cancer (Wisconsin, diagnostic): 30 features, standardised; malignant or benign."""
    bunch = load_breast_cancer()
    return _drawn(bunch.data, bunch.target, (269, 200, 100))


def _clusters() -> Splits:
    """Twenty features, twelve of which tell six classes of two clusters each (Guyon, the design of the NIPS 2003 sets)."""
    features, targets = make_classification(
        sum(POINTS), 20, n_informative=12, n_redundant=4, n_classes=6, n_clusters_per_class=2, flip_y=0.0, random_state=0
    )
    return _drawn(features, targets, POINTS)


def _hastie() -> Splits:
    """Ten Gaussian features: is their sum of squares above 9.34? (Hastie et al., Elements of Statistical Learning, 10.2)."""
    features, targets = make_hastie_10_2(sum(POINTS), random_state=0)
    return _drawn(features, (targets > 0).astype(np.int64), POINTS)


SETS: dict[str, Callable[[], Splits]] = {
    "digits": _digits,
    "digits-parity": _digits_parity,
    "digits-noisy": _digits_noisy,
    "digits-pairs": _digits_pairs,
    "mnist1d": _mnist1d,
    "breast-cancer": _breast_cancer,
    "clusters": _clusters,
    "hastie": _hastie,
}


def plain(inputs: Tensor) -> Tensor:
    """As they are."""
    return inputs


def rows(images: Tensor) -> Tensor:
    """Images ``(n, 1, h, w)`` as sequences ``(n, h, w)``, from the top."""
    return images[:, 0]


def columns(images: Tensor) -> Tensor:
    """Images ``(n, 1, h, w)`` as sequences ``(n, w, h)``, from the left."""
    return images[:, 0].transpose(1, 2).contiguous()


def patches(images: Tensor) -> Tensor:
    """Images ``(n, 1, h, w)`` as sequences ``(n, h w / 4, 4)`` of 2x2 patches."""
    return torch.nn.functional.unfold(images, 2, stride=2).transpose(1, 2).contiguous()


def raster(images: Tensor) -> Tensor:
    """Images ``(n, 1, h, w)`` as signals ``(n, 1, h w)``, row after row."""
    return images.flatten(2)


def lines(images: Tensor) -> Tensor:
    """Images ``(n, 1, h, w)`` as signals ``(n, h, w)``: a channel for each row."""
    return images[:, 0]


def fours(signals: Tensor) -> Tensor:
    """Signals ``(n, 1, 40)`` as sequences ``(n, 10, 4)``."""
    return signals.reshape(len(signals), -1, 4)


def fives(signals: Tensor) -> Tensor:
    """Signals ``(n, 1, 40)`` as sequences ``(n, 8, 5)``."""
    return signals.reshape(len(signals), -1, 5)


def measures(features: Tensor) -> Tensor:
    """The 30 breast cancer features as ten measures ``(n, 10, 3)``: mean, error and worst value of each."""
    return features.reshape(-1, 3, 10).transpose(1, 2).contiguous()


def statistics(features: Tensor) -> Tensor:
    """The 30 breast cancer features as signals ``(n, 3, 10)``: a channel each for mean, error and worst value."""
    return features.reshape(-1, 3, 10)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function for function in (plain, rows, columns, patches, raster, lines, fours, fives, measures, statistics)
}


@functools.cache
def base(data: str) -> Splits:
    """Train, valid and test examples of a set, as they come."""
    return SETS[data]()


@functools.cache
def splits(data: str, view: str) -> Splits:
    """Train, valid and test examples of a set in an arrangement; members that share both share the tensors."""
    train, valid, test = (Split(VIEWS[view](_images(s)), s.targets) for s in base(data))
    return train, valid, test


def training_examples(data: str) -> Split:
    """What networks are trained on: the training split, and for signals what the generator makes beside it."""
    return mnist1d.training_examples() if data == "mnist1d" else base(data)[0]


def classes(data: str) -> int:
    """How many classes a set has."""
    return int(base(data)[0].targets.max()) + 1


def _images(split: Split) -> Tensor:
    assert isinstance(split.inputs, Tensor)
    return split.inputs


def _noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + NOISE * torch.randn(images.shape, generator=generator)


def _paired(split: Split, count: int, generator: torch.Generator) -> Split:
    left, right = torch.randint(len(split), (2, count), generator=generator)
    images = _images(split)
    return Split(torch.cat([images[left], images[right]], 3), torch.maximum(split.targets[left], split.targets[right]))


def _drawn(features: np.ndarray, targets: np.ndarray, counts: tuple[int, int, int]) -> Splits:
    """Disjoint splits in an order of their own, features standardised by the training split."""
    order = np.random.default_rng(0).permutation(len(targets))
    parts = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
    mean, spread = features[parts[0]].mean(0), features[parts[0]].std(0)
    made = [
        Split(torch.from_numpy(((features[p] - mean) / spread).astype(np.float32)), torch.from_numpy(targets[p].astype(np.int64)))
        for p in parts
    ]
    return made[0], made[1], made[2]
