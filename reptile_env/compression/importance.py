"""Which channels of a group matter: one score a channel, the least important goes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reptile_env.compression.consumers import Consumer
from reptile_env.compression.groups import Structure
from reptile_env.compression.moments import Moments
from reptile_env.compression.producers import TRANSPOSED
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task


@dataclass
class Scorer:
    """What importances are computed from.

    Attributes:
        structure: the network and its groups.
        state: its parameters and buffers.
        moments: gives second moments of every layer's inputs; costs a pass over the calibration examples at the first call.
        task: gives the loss.
        calibration: training examples.
        modules: layers by name.
    """

    structure: Structure
    state: Mapping[str, Tensor]
    moments: Callable[[], Mapping[Consumer, Moments]]
    task: Task
    calibration: Split
    modules: dict[str, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.modules = dict(self.structure.model.named_modules())

    def channels(self, name: str, group: int) -> Tensor:
        """Scores ``(channels,)``, float64, of a group."""
        return CHANNEL_IMPORTANCES[name](self, group)

    def weights(self, name: str, tensor: str) -> Tensor:
        """Scores of the shape of a weight, float64; `tensor` is its full name (``"conv1.weight"``, ``"rnn.weight_ih_l0"``)."""
        return WEIGHT_IMPORTANCES[name](self, tensor)


ChannelImportance = Callable[[Scorer, int], Tensor]
WeightImportance = Callable[[Scorer, str], Tensor]


def _filter_norms(order: int) -> ChannelImportance:
    def score(scorer: Scorer, group: int) -> Tensor:
        structure, members = scorer.structure, scorer.structure.groups[group]
        total = torch.zeros(members.size, dtype=torch.float64)
        for (name, dim), axis in structure.axes.items():
            layer, _, leaf = name.rpartition(".")
            # Rows that the channels' own layers write: output filters, gates, heads. What reads them is left out.
            if layer not in members.producers or not leaf.startswith("weight") or dim != _output_dim(scorer.modules[layer]):
                continue
            filters = scorer.state[name].transpose(0, dim).flatten(1).double()
            norms = torch.linalg.vector_norm(filters, ord=order, dim=1)
            mine = torch.from_numpy(axis.group == group)
            # Coupled producers differ in scale; each one's norms are taken relative to their own mean.
            norms = norms[mine] / norms[mine].mean().clamp_min(1e-30)
            total.index_add_(0, torch.from_numpy(axis.channel)[mine], norms)
        return total

    return score


def _output_dim(layer: nn.Module) -> int:
    return 1 if isinstance(layer, TRANSPOSED) else 0


# name -> score; L1: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
CHANNEL_IMPORTANCES: dict[str, ChannelImportance] = {"l1": _filter_norms(1), "l2": _filter_norms(2)}


def _magnitude(scorer: Scorer, tensor: str) -> Tensor:
    return scorer.state[tensor].double().abs()


WEIGHT_IMPORTANCES: dict[str, WeightImportance] = {"l1": _magnitude, "l2": _magnitude}
