"""Layers that read prunable channels, each as a plain linear map: rows of features times a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from reptile_env.compression import hooks
from reptile_env.compression.groups import Structure
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.producers import CONVS, TRANSPOSED, is_depthwise
from reptile_env.tasks.splits import Inputs, call


@dataclass(frozen=True)
class Consumer:
    """One weight tensor that reads prunable channels.

    Attributes:
        layer: name of the layer.
        weight: name of the tensor.
        into: its dimension that counts inputs.
        out: its dimension that counts outputs.
        shift: tensor that takes a constant added to the outputs: the layer's bias, or the running mean of the batch norm
            that follows, or None.
        sign: 1 for a bias, -1 for a running mean.
        hidden: direction of a recurrent layer whose own earlier outputs are read (0 forward, 1 backward), else None.
    """

    layer: str
    weight: str
    into: int
    out: int
    shift: str | None
    sign: int = 1
    hidden: int | None = None


def find_consumers(structure: Structure, inputs: Inputs) -> list[Consumer]:
    """The weights that plans change, in the order in which they run: those that read or make prunable channels, or have holes."""
    modules = dict(structure.model.named_modules())
    followers, order = watch(structure.model, inputs)
    weights = structure.tensors
    names = sorted({tensor.rpartition(".")[0] for tensor in weights}, key=lambda n: (order.get(n, len(order)), n))
    found = []
    for name in names:
        # Cut channels change how many groups a depthwise convolution has, which no refit of a fixed number follows; holes don't.
        for consumer in of_layer(name, modules[name], depthwise=bool(structure.weights)):
            grouped = isinstance(modules[name], TRANSPOSED) and groups_of(modules[name]) > 1  # their inputs are not one dimension's
            if consumer.weight not in weights or grouped:
                continue
            if consumer.shift is None and consumer.hidden is None and name in followers:
                consumer = replace(consumer, shift=f"{followers[name]}.running_mean", sign=-1)
            found.append(consumer)
    return found


def of_layer(name: str, layer: Any, depthwise: bool = True) -> Iterator[Consumer]:
    """The weights of a layer that are plain linear maps of what is seen.

    Args:
        name: of the layer.
        layer: of any kind.
        depthwise: depthwise convolutions too.
    """
    if isinstance(layer, RECURRENT):
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            # States are seen where they are the layer's outputs.
            seen = layer.num_layers == 1 and not layer.proj_size
            for part, hidden in (("ih", None), ("hh", int(bool(suffix))))[: 1 + seen]:
                bias = f"{name}.bias_{part}_l0{suffix}".lstrip(".") if layer.bias else None
                yield Consumer(name, f"{name}.weight_{part}_l0{suffix}".lstrip("."), 1, 0, bias, hidden=hidden)
    elif isinstance(layer, (*CONVS, nn.Linear)) and (depthwise or not is_depthwise(layer)):
        swapped = isinstance(layer, TRANSPOSED)
        bias = f"{name}.bias".lstrip(".") if layer.bias is not None else None
        yield Consumer(name, f"{name}.weight".lstrip("."), int(not swapped), int(swapped), bias)


def watch(model: nn.Module, inputs: Inputs) -> tuple[dict[str, str], dict[str, int]]:
    """For each layer the batch norm that reads its very output, and the order in which layers run."""
    order: dict[str, int] = {}
    made: dict[int, tuple[str, Tensor]] = {}
    followers: dict[str, str] = {}

    def hook_of(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            order.setdefault(name, len(order))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                source = made.get(id(given))
                if source is not None:
                    followers[source[0]] = name
            if isinstance(output, Tensor) and isinstance(module, (*CONVS, nn.Linear)):
                made[id(output)] = (name, output)  # kept alive, so that its id stays its own

        return hook

    handles = [hooks.after(module, hook_of(name)) for name, module in model.named_modules()]
    with torch.no_grad(), hooks.attached(handles):
        call(model, inputs)
    return followers, order


def groups_of(layer: nn.Module) -> int:
    """Groups of a convolution, 1 for every other layer."""
    return int(layer.groups) if isinstance(layer, CONVS) else 1


def matrix(consumer: Consumer, layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight as ``(groups, features of a group, outputs of a group)``; features are channel-major."""
    groups = groups_of(layer)
    if isinstance(layer, TRANSPOSED):
        # As the weight of the ordinary convolution that does the same.
        weight = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(list(range(2, weight.dim())))
    return torch.unflatten(weight.flatten(1), 0, (groups, -1)).transpose(1, 2)


def weight_of(consumer: Consumer, layer: nn.Module, solution: Tensor, dense: Tensor) -> Tensor:
    """The inverse of `matrix`, for any number of kept inputs and outputs."""
    flat = solution.transpose(1, 2).flatten(0, 1)
    weight = torch.unflatten(flat, 1, (-1, *dense.shape[2:])) if dense.dim() > 2 else flat
    if isinstance(layer, TRANSPOSED):
        weight = torch.unflatten(weight.flip(list(range(2, weight.dim()))), 0, (groups_of(layer), -1)).transpose(1, 2).flatten(0, 1)
    return weight.to(dense.dtype).contiguous()


def rows(consumer: Consumer, layer: Any, inputs: Any, output: Any, picked: Tensor | None = None) -> Tensor:
    """What the weight multiplies: ``(groups, rows, features of a group)``.

    Args:
        consumer: which weight.
        layer: its layer.
        inputs: the layer's first argument.
        output: the layer's result; only hidden states need it.
        picked: numbers of the rows wanted; None: all.
    """
    if isinstance(layer, CONVS):
        columns = patches(layer, inputs, picked)
        return torch.unflatten(columns, 1, (layer.groups, -1)).transpose(0, 1)
    if consumer.hidden is not None:
        flat = _earlier_states(layer, output[0], consumer.hidden)
    else:
        flat = inputs.data if isinstance(inputs, PackedSequence) else inputs
        flat = flat.reshape(-1, flat.shape[-1])
    return (flat if picked is None else flat[picked])[None]


def row_count(consumer: Consumer, layer: Any, inputs: Any, output: Any) -> int:
    """How many rows `rows` would give."""
    if isinstance(layer, CONVS):
        return int(math.prod(output.shape[2:])) * len(output)
    data = inputs.data if isinstance(inputs, PackedSequence) else inputs
    return int(math.prod(data.shape[:-1]))


def patches(layer: Any, inputs: Tensor, picked: Tensor | None = None) -> Tensor:
    """Patches that a convolution's kernel sees: ``(rows, in_channels * kernel)``, channel-major, no full unfold of the unpicked."""
    if isinstance(layer, TRANSPOSED):
        padded, strides = _spread(layer, inputs), [1] * len(layer.kernel_size)
    else:
        # _reversed_padding_repeated_twice is what the layer itself hands to F.pad, also for padding="same".
        padding = list(layer._reversed_padding_repeated_twice)
        padded = functional.pad(inputs, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        strides = list(layer.stride)
    sizes = zip(padded.shape[2:], layer.kernel_size, layer.dilation, strides, strict=True)
    positions = [(size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, dilation, stride in sizes]
    dims = len(positions)
    if picked is None:
        for i, (kernel, dilation, stride) in enumerate(zip(layer.kernel_size, layer.dilation, strides, strict=True)):
            padded = padded.unfold(2 + i, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        columns = padded.permute([0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)])
        return columns.reshape(-1, inputs.shape[1] * math.prod(layer.kernel_size))
    example, *places = np.unravel_index(picked.numpy(), (len(inputs), *positions))
    if dims == 2 and padded.is_contiguous(memory_format=torch.channels_last):
        return _gathered(layer, padded, strides, torch.from_numpy(example), [torch.from_numpy(place) for place in places])
    index: list[Any] = [torch.from_numpy(example).view(-1, 1, *[1] * dims), torch.arange(inputs.shape[1]).view(1, -1, *[1] * dims)]
    for i, place in enumerate(places):
        taps = torch.arange(layer.kernel_size[i]) * layer.dilation[i]
        shape = [1] * (dims + 2)
        shape[2 + i] = -1
        index.append(torch.from_numpy(place).view(-1, 1, *[1] * dims) * strides[i] + taps.view(shape))
    return padded[tuple(index)].flatten(1)


def _gathered(layer: Any, padded: Tensor, strides: list[int], example: Tensor, places: list[Tensor]) -> Tensor:
    """Some patches of images whose channels lie side by side in memory: each pixel is one copy."""
    _, channels, height, width = padded.shape
    pixels = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    first = (example * height + places[0] * strides[0]) * width + places[1] * strides[1]
    (rows, columns), (down, across) = layer.kernel_size, layer.dilation
    taps = (torch.arange(rows)[:, None] * down * width + torch.arange(columns) * across).flatten()
    seen = pixels.index_select(0, (first[:, None] + taps).flatten())
    return seen.view(len(first), len(taps), channels).transpose(1, 2).reshape(len(first), -1)


def _spread(layer: Any, inputs: Tensor) -> Tensor:
    """The input of a transposed convolution with its stride's zeros put in, so that an ordinary one gives the same result."""
    dims = len(layer.kernel_size)
    spread = inputs.new_zeros(*inputs.shape[:2], *((n - 1) * s + 1 for n, s in zip(inputs.shape[2:], layer.stride, strict=True)))
    every: tuple[Any, ...] = (..., *(slice(None, None, s) for s in layer.stride))
    spread[every] = inputs
    padding: list[int] = []
    for i in reversed(range(dims)):
        edge = layer.dilation[i] * (layer.kernel_size[i] - 1) - layer.padding[i]
        padding += [edge, edge + layer.output_padding[i]]
    return functional.pad(spread, padding)


def _earlier_states(layer: Any, outputs: Any, direction: int) -> Tensor:
    """The hidden state before every step: zero at the first, the output of the step before at every other."""
    lengths = None
    if isinstance(outputs, PackedSequence):
        outputs, lengths = pad_packed_sequence(outputs, batch_first=True)
    elif not layer.batch_first:
        outputs = outputs.transpose(0, 1)
    width = layer.hidden_size
    states = outputs[..., direction * width : (direction + 1) * width]
    steps = states.shape[1]
    blank = torch.zeros_like(states[:, :1])
    earlier = torch.cat([states[:, 1:], blank], 1) if direction else torch.cat([blank, states[:, :-1]], 1)
    if lengths is None:
        return earlier.reshape(-1, width)
    valid = torch.arange(steps)[None] < lengths[:, None]
    if direction:
        last = torch.arange(steps)[None] == lengths[:, None] - 1
        earlier = earlier.masked_fill(last[..., None], 0.0)
    return earlier[valid]
