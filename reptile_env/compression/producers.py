"""Layers whose outputs can be cut: which positions of their own tensors belong to each channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.compression.layers import RECURRENT

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
# Names under which attention layers of other libraries keep their projections and their number of heads.
_PROJECTIONS = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads")

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Slot:
    """Positions along one dimension of one tensor, and the channel that owns each."""

    tensor: str
    dim: int
    positions: Positions
    channels: Positions


@dataclass(frozen=True)
class Producer:
    """A layer whose outputs can be cut.

    Attributes:
        name: name of the group that it makes.
        kind: as `Group.kind`.
        layers: layers whose own tensors are cut.
        tap: layer whose output carries the channels.
        outputs: for each output feature of `tap` its channel.
        slots: own tensors.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    tap: str
    outputs: Positions
    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """Number of channels."""
        return int(self.outputs.max()) + 1


def is_depthwise(layer: nn.Module) -> bool:
    """A convolution with one input channel a group."""
    return isinstance(layer, CONVS) and layer.groups > 1 and layer.groups == layer.in_channels


def heads_of(module: nn.Module) -> tuple[tuple[str, str, str], int, int] | None:
    """Names of query, key and value projections, number of heads, and their width; None: no attention layer."""
    count = next((getattr(module, name) for name in HEAD_COUNTS if isinstance(getattr(module, name, None), int)), None)
    for names in _PROJECTIONS:
        layers = [getattr(module, name, None) for name in names]
        if count and all(isinstance(layer, nn.Linear) for layer in layers):
            widths = {layer.out_features for layer in layers if isinstance(layer, nn.Linear)}
            if len(widths) == 1 and not (width := widths.pop()) % count:
                return names, count, width // count
    return None


def special_producers(modules: dict[str, nn.Module]) -> Iterator[Producer]:
    """Hidden units of recurrent layers and heads of attention layers, which a dependency graph of layers can't follow."""
    for name, module in modules.items():
        if type(module) in RECURRENT and not module.proj_size:
            yield _recurrent(name, module)
        elif (found := heads_of(module)) is not None:
            yield _attention(name, modules, *found)


def plain_producers(modules: dict[str, nn.Module], embeddings: bool = False) -> Iterator[Producer]:
    """Output channels of convolutions and linear layers, and on request those of embeddings."""
    for name, module in modules.items():
        if isinstance(module, (*CONVS, nn.Linear)) and not is_depthwise(module):
            yield _plain(name, module)
        elif embeddings and isinstance(module, nn.Embedding):
            # A linear layer of one-hot inputs.
            channels = np.arange(module.embedding_dim)
            yield Producer(name, "linear", (name,), name, channels, (Slot(f"{name}.weight".lstrip("."), 1, channels, channels),))


def _plain(name: str, layer: Any) -> Producer:
    linear = isinstance(layer, nn.Linear)
    width = layer.out_features if linear else layer.out_channels
    channels = np.arange(width)
    slots = []
    if isinstance(layer, TRANSPOSED):
        # Weight (in, out / groups, ...): a position of the second dimension serves that output of every group.
        each = width // layer.groups
        slots.append(Slot(f"{name}.weight".lstrip("."), 1, np.arange(each), np.arange(each)))
    else:
        slots.append(Slot(f"{name}.weight".lstrip("."), 0, channels, channels))
    if layer.bias is not None:
        slots.append(Slot(f"{name}.bias".lstrip("."), 0, channels, channels))
    return Producer(name, "linear" if linear else "conv", (name,), name, channels, tuple(slots))


def _recurrent(name: str, layer: Any) -> Producer:
    hidden = np.arange(layer.hidden_size)
    gates = layer.weight_hh_l0.shape[0] // layer.hidden_size
    stacked = np.arange(gates * layer.hidden_size)
    slots = []
    for tensor in layer._flat_weights_names:
        full = f"{name}.{tensor}".lstrip(".")
        slots.append(Slot(full, 0, stacked, stacked % layer.hidden_size))
        if "weight_hh" in tensor:
            slots.append(Slot(full, 1, hidden, hidden))
    outputs = np.tile(hidden, 1 + layer.bidirectional)
    return Producer(name, "recurrent", (name,), name, outputs, tuple(slots))


def _attention(name: str, modules: dict[str, nn.Module], projections: tuple[str, ...], heads: int, width: int) -> Producer:
    layers = tuple(f"{name}.{projection}".lstrip(".") for projection in projections)
    positions = np.arange(heads * width)
    slots = []
    for layer in layers:
        slots.append(Slot(f"{layer}.weight", 0, positions, positions // width))
        if isinstance(modules[layer].bias, Tensor):
            slots.append(Slot(f"{layer}.bias", 0, positions, positions // width))
    return Producer(name, "attention", layers, layers[2], positions // width, tuple(slots))
