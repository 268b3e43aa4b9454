"""Optimal Brain Surgeon for channels: removed one after the other, what stays being refitted, by the error that leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reptile_env.compression.evidence import Reader

ROUNDS = 64  # at most; a bigger group loses several channels a round


def order(readers: Sequence[Reader], size: int) -> Tensor:
    """Error of the readers' outputs by the time that each channel goes, ``(channels,)``, as a share of their energy.

    Hassibi and Stork, NIPS 1993, layer by layer as Dong et al., Layer-wise Optimal Brain Surgeon, NIPS 2017: the channel that costs
    least goes, the rest is refitted, costs are computed anew. So of two channels of which each can stand for the other
    one is worth nothing and one is not. All it needs is the inverse of the second moments, which shrinks along.

    Args:
        readers: what reads the channels, at least one.
        size: number of channels.
    """
    left, at_once = torch.arange(size), -(-size // ROUNDS)
    states = [_State(reader, reader.inverse(), reader.moments.dense, reader.features, reader.energy) for reader in readers]
    scores, reached = torch.zeros(size, dtype=torch.float64), 0.0
    while len(left):
        costs = torch.stack([state.costs(left) for state in states]).sum(0)
        cheapest = costs.argsort(stable=True)[:at_once]
        scores[left[cheapest]] = reached + costs[cheapest].cumsum(0)
        reached = float(scores[left[cheapest[-1]]])
        stays = torch.ones(len(left), dtype=torch.bool).index_fill(0, cheapest, False)
        for state in states:
            state.remove(left, stays)
        left = left[stays]
    return scores


def rise(inverse: Tensor, weights: Tensor, features: Tensor) -> Tensor:
    """Least rise of each output's mean squared error when sets of features are removed and the rest is refitted.

    Args:
        inverse: of the second moments, ``(groups, features, features)``.
        weights: ``(groups, features, outputs)``.
        features: ``(sets, features of one)``.

    Returns:
        ``(groups, sets, outputs)``: ``vᵀ ([G⁻¹]_FF)⁻¹ v`` of each output's weights v of the removed features F.
    """
    factor = torch.linalg.cholesky(inverse[:, features[:, :, None], features[:, None, :]])
    removed: Tensor = torch.linalg.solve_triangular(factor, weights[:, features], upper=False)
    return removed.square().sum(-2)


@dataclass
class _State:
    """A reader as it is when some of its features are gone."""

    reader: Reader
    inverse: Tensor
    weights: Tensor
    features: Tensor  # of the channels that are left
    energy: Tensor

    def costs(self, left: Tensor) -> Tensor:
        # What a channel itself is made of goes with it.
        own = self.reader.outputs[:, None] == left[:, None]
        return rise(self.inverse, self.weights, self.features).masked_fill(own, 0).sum((0, 2)) / self.energy

    def remove(self, left: Tensor, stays: Tensor) -> None:
        gone = self.features[~stays].flatten()
        kept = torch.ones(self.inverse.shape[-1], dtype=torch.bool).index_fill(0, gone, False)
        factor = torch.linalg.cholesky(self.inverse[:, gone][:, :, gone])
        removed = torch.linalg.solve_triangular(factor, self.weights[:, gone], upper=False)
        shared = torch.linalg.solve_triangular(factor, self.inverse[:, gone][:, :, kept], upper=False)
        self.inverse = self.inverse[:, kept][:, :, kept] - shared.transpose(1, 2) @ shared
        outputs = torch.isin(self.reader.outputs, left[~stays])
        self.weights = (self.weights[:, kept] - shared.transpose(1, 2) @ removed).masked_fill(outputs[:, None], 0)
        self.features = (kept.cumsum(0) - 1)[self.features[stays]]
