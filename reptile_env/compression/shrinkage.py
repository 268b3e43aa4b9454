"""Refits from few rows: least squares pulled towards the dense weights as far as the rows themselves ask for."""

from __future__ import annotations

import torch
from torch import Tensor

FEW_ROWS = 4  # a feature; with more, plain least squares loses at most a third to noise
_RIDGES = torch.logspace(-6, 2, 33, dtype=torch.float64)  # relative to the mean variance of the features
_UNSEEN = 1e-13  # variances that are rounding errors, relative to the largest


def solve(gram: Tensor, cross: Tensor, prior: Tensor, power: Tensor, rows: int, constant: bool) -> Tensor:
    """As `moments.solve`, with the ridge of least generalised cross-validation (Golub, Heath and Wahba, Technometrics 1979).

    With as many rows as features least squares follows what is no function of the features, and is worse than no refit at all.

    Args:
        gram: second moments of the features, ``(groups, features, features)``, float64.
        cross: of features and outputs, ``(groups, features, outputs)``.
        prior: weights to be near to, ``(groups, features, outputs)``.
        power: mean of the squared outputs, summed over them, ``(groups,)``.
        rows: that these are means of.
        constant: whether the last feature is a 1; its weight is not pulled.
    """
    if constant:
        mean, outputs = gram[:, -1:, :-1], cross[:, -1:]
        spread, shared = gram[:, :-1, :-1] - mean.mT @ mean, cross[:, :-1] - mean.mT @ outputs
        weights = _shrunk(spread, shared, prior[:, :-1], power - outputs.square().sum((1, 2)), rows, 1)
        return torch.cat([weights, outputs - mean @ weights], dim=1)
    return _shrunk(gram, cross, prior, power, rows, 0)


def _shrunk(gram: Tensor, cross: Tensor, prior: Tensor, power: Tensor, rows: int, used: int) -> Tensor:
    sizes, directions = torch.linalg.eigh(gram)
    sizes = sizes.clamp_min(0)
    missed = directions.mT @ (cross - gram @ prior)  # what the prior leaves of the outputs, along each direction
    seen = sizes > _UNSEEN * sizes[:, -1:]
    gain = torch.where(seen, missed.square().sum(2) / torch.where(seen, sizes, 1), 0)
    beyond = (power - (prior * (2 * cross - gram @ prior)).sum((1, 2)) - gain.sum(1)).clamp_min(0)  # no function of the features
    ridges = (sizes.mean(1, keepdim=True) * _RIDGES).clamp_min(1e-12)
    # The part of each direction that is left out, (groups, ridges, features).
    share = ridges[..., None] / (sizes[:, None] + ridges[..., None])
    left = beyond[:, None] + (gain[:, None] * share.square()).sum(2)
    freedom = rows - used - sizes.shape[1] + share.sum(2)
    best = ridges[torch.arange(len(ridges)), (left / freedom.square()).argmin(1)]
    weights: Tensor = prior + directions @ (missed / (sizes + best[:, None])[..., None])
    return weights
