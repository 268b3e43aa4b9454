"""Which channels of a group matter: one score a channel, the least important has the lowest."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from reptile_env.compression import surgeon, weight_importance
from reptile_env.compression.evidence import Evidence

ChannelImportance = Callable[[Evidence, int], Tensor]


def l1(evidence: Evidence, group: int) -> Tensor:
    """Sum of the magnitudes of the channel's own weights (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""
    return _of_filters(evidence, group, lambda filters: filters.abs().sum(1))


def l2(evidence: Evidence, group: int) -> Tensor:
    """Euclidean norm of the channel's own weights."""
    return _of_filters(evidence, group, lambda filters: torch.linalg.vector_norm(filters, dim=1))


def random(evidence: Evidence, group: int) -> Tensor:
    """Uniform numbers from a generator that the group's name seeds."""
    size, name = evidence.structure.groups[group].size, evidence.structure.names[group]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand(size, dtype=torch.float64, generator=generator)


def taylor(evidence: Evidence, group: int) -> Tensor:
    """First-order change of the loss when the channel goes, squared (Molchanov et al., Importance Estimation, CVPR 2019).

    The paper's gate, ``(sum of gradient * weight)²``, mean over batches, stands where the channel is read: behind its batch
    norm and activation, and before whichever weights read it. In a ReLU network without batch norm that sum is the same as
    the sum over the channel's own weights and bias. A channel that no weight reads is scored by its own weights.
    """

    def gates(gradients: dict[str, Tensor]) -> dict[int, Tensor]:
        return {index: _gate(evidence, index, gradients) for index in range(len(evidence.structure.groups))}

    return evidence.mean_squares("channels", gates)[group]


def _gate(evidence: Evidence, group: int, gradients: dict[str, Tensor]) -> Tensor:
    total = torch.zeros(evidence.structure.groups[group].size, dtype=torch.float64)
    for name, dim in list(evidence.readers(group)) or list(evidence.makers(group)):
        total += evidence.by_channel(evidence.state[name].double() * gradients[name], name, dim, group).sum(1)
    return total


def fpgm(evidence: Evidence, group: int) -> Tensor:
    """Sum of the distances to all other channels of the layer (He et al., Filter Pruning via Geometric Median, CVPR 2019)."""
    mode = "donot_use_mm_for_euclid_dist"  # the other way gives equal filters a distance
    return _of_filters(evidence, group, lambda filters: torch.cdist(filters, filters, compute_mode=mode).sum(1))


def lamp(evidence: Evidence, group: int) -> Tensor:
    """Squared `l2` as a share of those that are no smaller (Lee et al., Layer-Adaptive Sparsity, ICLR 2021).

    Within a group the order is that of `l2`; what it adds is that scores of different groups can be compared.
    """
    return weight_importance.share_of_larger(l2(evidence, group).square())


def wanda(evidence: Evidence, group: int) -> Tensor:
    """Magnitudes of the weights that read the channel, each times the norm of its input (Sun et al., Wanda, ICLR 2024).

    Where no weight with measured inputs reads it: those of its own weights, times the norms of their inputs.
    """
    total = torch.zeros(evidence.structure.groups[group].size, dtype=torch.float64)
    readers = list(evidence.measured_readers(group))
    for reader in readers:
        norms = weight_importance.input_norms(reader.moments)[..., None]
        total += _relative((reader.moments.dense.abs() * norms).sum((0, 2))[reader.features].sum(1))
    for name, dim in [] if readers else evidence.makers(group):
        total += _relative(evidence.by_channel(weight_importance.wanda(evidence, name), name, dim, group).sum(1))
    return total


def obs(evidence: Evidence, group: int) -> Tensor:
    """Error of what reads the channels by the time that this one goes, each cut refitted (`surgeon.order`).

    Where no weight with measured inputs reads the channels: `wanda`.
    """
    readers = list(evidence.measured_readers(group))
    return surgeon.order(readers, evidence.structure.groups[group].size) if readers else wanda(evidence, group)


def _of_filters(evidence: Evidence, group: int, norm: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(evidence.structure.groups[group].size, dtype=torch.float64)
    for name, dim in evidence.makers(group):
        total += _relative(norm(evidence.by_channel(evidence.state[name].double(), name, dim, group)))
    return total


def _relative(scores: Tensor) -> Tensor:
    """Coupled layers differ in scale; each one's scores are taken relative to their own mean."""
    return scores / scores.mean().clamp_min(1e-30)


CHANNEL_IMPORTANCES: dict[str, ChannelImportance] = {
    "l1": l1,
    "l2": l2,
    "random": random,
    "taylor": taylor,
    "fpgm": fpgm,
    "lamp": lamp,
    "wanda": wanda,
    "obs": obs,
}
