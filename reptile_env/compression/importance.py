"""Which channels of a group matter: one score a channel, the least important goes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from reptile_env.compression.groups import Group, Structure
from reptile_env.compression.producers import TRANSPOSED

Importance = Callable[[Group, int, Mapping[str, Tensor], Structure, Mapping[str, nn.Module]], Tensor]


def _filter_norms(order: int) -> Importance:
    def score(
        group: Group, index: int, state: Mapping[str, Tensor], structure: Structure, modules: Mapping[str, nn.Module]
    ) -> Tensor:
        total = torch.zeros(group.size, dtype=torch.float64)
        for (name, dim), axis in structure.axes.items():
            layer, _, leaf = name.rpartition(".")
            # Rows that the channels' own layers write: output filters, gates, heads. What reads them is left out.
            if layer not in group.producers or not leaf.startswith("weight") or dim != _output_dim(modules[layer]):
                continue
            filters = state[name].transpose(0, dim).flatten(1).double()
            norms = torch.linalg.vector_norm(filters, ord=order, dim=1)
            mine = torch.from_numpy(axis.group == index)
            # Coupled producers differ in scale; each one's norms are taken relative to their own mean.
            norms = norms[mine] / norms[mine].mean().clamp_min(1e-30)
            total.index_add_(0, torch.from_numpy(axis.channel)[mine], norms)
        return total

    return score


def _output_dim(layer: nn.Module) -> int:
    return 1 if isinstance(layer, TRANSPOSED) else 0


# name -> score; L1: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
IMPORTANCES: dict[str, Importance] = {"l1": _filter_norms(1), "l2": _filter_norms(2)}
