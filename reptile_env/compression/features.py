"""What observations tell of a group that no plan changes."""

from __future__ import annotations

from typing import Any

from torch import nn

from reptile_env.compression.cost import Costs
from reptile_env.compression.producers import CONVS


def features(kind: str, layer: Any, inputs: int, outputs: int, costs: Costs, sizes: tuple[int, ...], index: int) -> dict[str, Any]:
    """The static description of a group (see `observations.GROUP_FEATURES`).

    Args:
        kind: as `Group.kind`.
        layer: the group's first layer.
        inputs: channels or features that it reads.
        outputs: those that it makes.
        costs: cost model of the network.
        sizes: dense widths of all groups.
        index: of the group.
    """
    dense, gone = costs.all(sizes), costs.all([0 if i == index else size for i, size in enumerate(sizes)])
    convolution = isinstance(layer, CONVS)
    return {
        "kind": kind,
        "in": inputs,
        "out": outputs,
        "kernel": layer.kernel_size[0] if convolution else 1,
        "stride": layer.stride[0] if convolution else 1,
        "params": (dense["params"] - gone["params"]) / dense["params"],
        "macs": (dense["macs"] - gone["macs"]) / max(dense["macs"], 1),
    }


def inputs_of(layer: nn.Module) -> int:
    """Channels or features that a layer reads."""
    named: Any = layer
    if isinstance(layer, CONVS):
        return int(named.in_channels)
    if isinstance(layer, nn.Embedding):
        return int(named.num_embeddings)
    return int(named.input_size if isinstance(layer, nn.RNNBase) else named.in_features)
