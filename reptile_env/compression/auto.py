"""The importance that suits a group, chosen by the error that its cuts leave on training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reptile_env.compression import consumers, surgeon, weight_importance
from reptile_env.compression.evidence import Evidence, Reader
from reptile_env.compression.plan import removal_count

RATES = (0.25, 0.5, 0.75)
UNMEASURED = "l1"  # chosen where no weight with measured inputs is there to tell


def of_channels(evidence: Evidence, group: int, scores: Mapping[str, Tensor]) -> str:
    """The first of the names whose cuts leave the least error in what reads the group's channels.

    The error of a cut is that of each reader's outputs that stay, as a share of their energy, after a refit where the recovery
    is to make one (`Evidence.refits`); the mean is over rates of 1/4, 1/2 and 3/4 and over readers. Cached second moments are
    all that it needs, no pass of the network. `UNMEASURED` where no weight with measured inputs reads the channels.

    Args:
        evidence: what importances are computed from.
        group: number of the group.
        scores: of its channels by name of an importance.
    """
    readers = list(evidence.measured_readers(group))

    def error(gone: Tensor) -> float:
        return sum(error_of_cut(reader, gone, evidence.refits) for reader in readers)

    return _least(scores, error) if readers else UNMEASURED


def error_of_cut(reader: Reader, gone: Tensor, refits: bool) -> float:
    """Squared error of a reader's outputs without the channels `gone`, as a share of their energy; outputs that go are left out."""
    moments, features = reader.moments, reader.features[gone].flatten()
    if refits:
        lost = surgeon.rise(reader.inverse(), moments.dense, features[None])[:, 0]
    else:
        lost = _energy(moments.dense[:, features], moments.gram[:, features][:, :, features])
    stays = ~torch.isin(reader.outputs, gone)
    whole = (moments.dense * moments.cross).sum(1)
    return float(lost[stays].sum() / whole[stays].sum().clamp_min(1e-30))


def _energy(weights: Tensor, gram: Tensor) -> Tensor:
    """Mean square of each output, ``(groups, outputs)``, of inputs with these second moments."""
    return (weights * (gram @ weights)).sum(1)


def of_weights(evidence: Evidence, tensor: str, scores: Mapping[str, Tensor]) -> str:
    """As `of_channels`, for the single weights of a tensor: the error of the layer's outputs, always without a refit."""
    found = weight_importance.measured(evidence, tensor)
    if found is None:
        return UNMEASURED
    consumer, moments = found
    layer, shape = evidence.modules[consumer.layer], evidence.state[tensor].shape

    def error(gone: Tensor) -> float:
        mask = torch.zeros(shape.numel(), dtype=torch.bool).index_fill(0, gone, True).view(shape)
        lost = consumers.matrix(consumer, layer, mask)
        if moments.constant:
            lost = functional.pad(lost, (0, 0, 0, 1))
        return float(_energy(moments.dense * lost, moments.gram).sum())

    return _least(scores, error)


def _least(scores: Mapping[str, Tensor], error: Callable[[Tensor], float]) -> str:
    known: dict[bytes, float] = {}
    totals = {}
    for name, score in scores.items():
        order = np.argsort(score.flatten().numpy(), kind="stable")
        total = 0.0
        for rate in RATES:
            gone = np.sort(order[: removal_count(len(order), rate)])
            # Importances often agree.
            if gone.tobytes() not in known:
                known[gone.tobytes()] = error(torch.from_numpy(gone)) if len(gone) else 0.0
            total += known[gone.tobytes()]
        totals[name] = total
    return min(totals, key=totals.__getitem__)
