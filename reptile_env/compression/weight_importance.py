"""Which single weights of a tensor matter: one score a weight, the least important has the lowest."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from reptile_env.compression import consumers
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.evidence import Evidence
from reptile_env.compression.moments import Moments

WeightImportance = Callable[[Evidence, str], Tensor]


def magnitude(evidence: Evidence, tensor: str) -> Tensor:
    """Magnitude of the weight (Han et al., Learning both Weights and Connections, NIPS 2015)."""
    return evidence.state[tensor].double().abs()


def random(evidence: Evidence, tensor: str) -> Tensor:
    """Uniform numbers from a generator that the tensor's name seeds."""
    generator = torch.Generator().manual_seed(zlib.crc32(tensor.encode()))
    return torch.rand(evidence.state[tensor].shape, dtype=torch.float64, generator=generator)


def taylor(evidence: Evidence, tensor: str) -> Tensor:
    """First-order change of the loss when the weight goes, squared (Molchanov et al., Importance Estimation, CVPR 2019).

    ``(gradient * weight)²``, mean over batches.
    """

    def products(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: evidence.state[name].double() * gradient for name, gradient in gradients.items()}

    return evidence.mean_squares("weights", products)[tensor]


def fpgm(evidence: Evidence, tensor: str) -> Tensor:
    """Refused: it is a property of whole channels."""
    raise ValueError("importance 'fpgm' compares whole filters; use it with granularity='structured'")


def lamp(evidence: Evidence, tensor: str) -> Tensor:
    """Squared weight as a share of those that are no smaller (Lee et al., Layer-Adaptive Sparsity, ICLR 2021).

    Within a tensor the order is that of the magnitudes; what it adds is that scores of different tensors can be compared.
    """
    return share_of_larger(magnitude(evidence, tensor).square())


def share_of_larger(scores: Tensor) -> Tensor:
    """Each score over the sum of all that are no smaller; equal scores give equal shares."""
    ascending = scores.flatten().sort().values
    sums = ascending.flip(0).cumsum(0).flip(0)
    return scores / sums[torch.searchsorted(ascending, scores.flatten())].view_as(scores).clamp_min(1e-300)


def wanda(evidence: Evidence, tensor: str) -> Tensor:
    """Magnitude of the weight times the norm of its input (Sun et al., Wanda, ICLR 2024).

    The magnitude alone where inputs are not seen, as inside a recurrent layer of several layers that could not be taken apart.
    """
    found = measured(evidence, tensor)
    if found is None:
        return magnitude(evidence, tensor)
    consumer, moments = found
    weights = weights_of(moments)
    return _in_place(evidence, consumer, weights.abs() * input_norms(moments)[:, : weights.shape[1], None])


def obs(evidence: Evidence, tensor: str) -> Tensor:
    """Rise of the layer's squared error when the weight goes and what stays of its output's weights is refitted.

    ``w² / (2 [G⁻¹]_jj)``, Optimal Brain Surgeon (Hassibi and Stork, NIPS 1993) layer by layer (Dong et al., NIPS 2017). Half the
    squared magnitude where inputs are not seen (see `wanda`).
    """
    found = measured(evidence, tensor)
    if found is None:
        return magnitude(evidence, tensor).square() / 2
    consumer, moments = found
    weights = weights_of(moments)
    diagonal = evidence.inverse(consumer).diagonal(dim1=-2, dim2=-1)[:, : weights.shape[1], None]
    return _in_place(evidence, consumer, weights.square() / (2 * diagonal))


def measured(evidence: Evidence, tensor: str) -> tuple[Consumer, Moments] | None:
    """Second moments of what a weight multiplies; None: not measured."""
    return next(((consumer, moments) for consumer, moments in evidence.moments().items() if consumer.weight == tensor), None)


def weights_of(moments: Moments) -> Tensor:
    """Dense weights ``(groups, features, outputs)`` without the constant."""
    return moments.dense[:, :-1] if moments.constant else moments.dense


def input_norms(moments: Moments) -> Tensor:
    """Root mean square of each feature, ``(groups, features)``; of a constant 1."""
    return moments.gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def _in_place(evidence: Evidence, consumer: Consumer, scores: Tensor) -> Tensor:
    """Scores ``(groups, features, outputs)`` in the shape of the weight."""
    return consumers.weight_of(consumer, evidence.modules[consumer.layer], scores, evidence.state[consumer.weight].double())


WEIGHT_IMPORTANCES: dict[str, WeightImportance] = {
    "l1": magnitude,
    "l2": magnitude,
    "random": random,
    "taylor": taylor,
    "fpgm": fpgm,
    "lamp": lamp,
    "wanda": wanda,
    "obs": obs,
}
