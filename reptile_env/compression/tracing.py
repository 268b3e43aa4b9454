"""Where the channels of a layer go: found by running the network with some of them marked.

Marked channels are NaN. NaN survives every element-wise operation, pooling, reshape, slice, padding and concatenation, and
is taken out again wherever a layer mixes its inputs, so that what arrives at a layer names the channels that it reads. With a
binary code of the channel numbers, log2 as many runs as channels tell them all apart. This serves where a dependency graph of
layers loses the thread: recurrent layers, attention heads, reshapes, parameter-free shortcuts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from reptile_env.compression import hooks
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.producers import CONVS, PER_CHANNEL, TRANSPOSED, Positions, Producer, Slot, is_depthwise
from reptile_env.tasks.splits import Inputs, call

NOBODY, MANY = -1, -2
_SINKS = (*CONVS, nn.Linear, *RECURRENT)


class UntraceableError(Exception):
    """The channels of a layer can't be told apart where they arrive; the message says where."""


class MixedError(UntraceableError):
    """Several channels arrive at one feature of a layer that has `features` of them: a reshape, perhaps."""

    def __init__(self, layer: str, features: int) -> None:
        super().__init__(f"its channels arrive mixed at {layer}")
        self.features = features


def trace(model: nn.Module, inputs: Inputs, producer: Producer) -> dict[str, Positions]:
    """For every layer that the producer's channels reach the channel of each of its input features (NOBODY: none).

    Args:
        model: the network.
        inputs: a few examples.
        producer: whose channels are followed.

    Raises:
        UntraceableError: channels arrive mixed with one another.
    """
    bits = max(1, math.ceil(math.log2(producer.size)))
    codes = (np.arange(producer.size)[:, None] >> np.arange(bits)) & 1
    seen: dict[str, list[Positions]] = defaultdict(list)
    for bit in range(bits):
        for value in (1, 0):
            marked = codes[:, bit] == value
            arrived = _run(model, inputs, producer, marked[producer.outputs])
            for name, mask in arrived.items():
                seen[name].append(mask)
    reached = {name: _decode(name, np.array(masks), bits) for name, masks in seen.items()}
    return {name: channels for name, channels in reached.items() if (channels != NOBODY).any()}


def _decode(name: str, masks: Positions, bits: int) -> Positions:
    ones, zeros = masks[0::2].astype(bool), masks[1::2].astype(bool)
    if (ones & zeros).any():
        raise MixedError(name, masks.shape[1])
    touched = (ones | zeros).any(axis=0)
    if not (ones | zeros)[:, touched].all():
        raise UntraceableError(f"its channels can't be followed into {name}")
    return np.where(touched, (ones * (1 << np.arange(bits))[:, None]).sum(axis=0), NOBODY)


def _run(model: nn.Module, inputs: Inputs, producer: Producer, marked: Positions) -> dict[str, Positions]:
    """Run once with the marked output features of the producer as NaN; for each layer the input features that were NaN."""
    arrived: dict[str, Positions] = {}
    handles = []

    def note(name: str, mask: Positions) -> None:
        arrived[name] = arrived.get(name, np.zeros_like(mask)) | mask

    def sink(name: str) -> Callable[..., Any]:
        def before(layer: nn.Module, given: Any) -> Any:
            if not isinstance(given, (Tensor, PackedSequence)):
                return None
            note(name, _marks(layer, given))
            return _clean(given)

        return before

    def state(name: str) -> Callable[..., None]:
        def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # The first input is the sequence.
            others = torch.utils._pytree.tree_leaves((args[1:], kwargs if args else list(kwargs.values())[1:]))
            if any(isinstance(t, Tensor) and bool(torch.isnan(t).any()) for t in others):
                raise UntraceableError(f"its channels are the first state of {name}, whose width is that layer's own")

        return before

    def through(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        state: dict[str, Tensor] = {}

        def before(layer: nn.Module, given: Tensor) -> Tensor:
            note(name, _marks(layer, given))
            state["mask"] = torch.isnan(given)
            return torch.nan_to_num(given)

        def after(layer: nn.Module, given: Tensor, output: Tensor) -> Tensor:
            mask = state["mask"]
            if is_depthwise(layer):
                spatial = mask.flatten(2).any(2) if mask.dim() > 2 else mask
                multiplier = output.shape[1] // spatial.shape[1]
                mask = spatial.repeat_interleave(multiplier, 1).view(*spatial.shape[:1], -1, *[1] * (output.dim() - 2))
            return output.masked_fill(mask, math.nan)

        return before, after

    def tap(layer: nn.Module, given: Any, output: Any) -> Any:
        return _mark(layer, output, torch.from_numpy(marked))

    for name, module in model.named_modules():
        if isinstance(module, PER_CHANNEL) or is_depthwise(module):
            before, after = through(name)
            handles += [hooks.before(module, before), hooks.after(module, after)]
        elif isinstance(module, _SINKS):
            handles.append(hooks.before(module, sink(name)))
            if isinstance(module, RECURRENT):
                handles.append(module.register_forward_pre_hook(state(name), with_kwargs=True))
        if name == producer.tap:
            handles.append(hooks.after(module, tap))
    with torch.no_grad(), hooks.attached(handles):
        call(model, inputs)
    return arrived


def _features(layer: nn.Module) -> int:
    """Dimension of a layer's input or output that counts features."""
    return 1 if isinstance(layer, (*CONVS, *PER_CHANNEL)) and not isinstance(layer, nn.LayerNorm) else -1


def _marks(layer: nn.Module, given: Tensor | PackedSequence) -> Positions:
    if isinstance(given, PackedSequence):
        given = given.data
    if not given.is_floating_point():
        return np.zeros(given.shape[_features(layer)], dtype=bool)
    return torch.isnan(given).movedim(_features(layer), 0).flatten(1).any(1).numpy()


def _clean(given: Any) -> Any:
    if isinstance(given, PackedSequence):
        return given._replace(data=torch.nan_to_num(given.data))
    return torch.nan_to_num(given) if given.is_floating_point() else given


def _mark(layer: nn.Module, output: Any, marked: Tensor) -> Any:
    if isinstance(output, PackedSequence):
        return output._replace(data=output.data.masked_fill(marked, math.nan))
    if isinstance(output, Tensor):
        mask = marked.view([-1 if d == _features(layer) % output.dim() else 1 for d in range(output.dim())])
        return output.masked_fill(mask, math.nan)
    sequence, state = output  # a recurrent layer: (outputs, final states), whose states have one direction a row
    width = state[0].shape[-1] if isinstance(state, tuple) else state.shape[-1]
    final = marked[:width]
    states = (
        tuple(s.masked_fill(final, math.nan) for s in state) if isinstance(state, tuple) else state.masked_fill(final, math.nan)
    )
    return _mark(layer, sequence, marked), states


def consumer_slots(name: str, layer: Any, channels: Positions) -> list[Slot]:
    """Slots of a layer whose input features carry `channels`."""
    positions = np.flatnonzero(channels != NOBODY)
    owners = channels[positions]

    def slot(tensor: str, dim: int, at: Positions = positions, by: Positions = owners) -> Slot:
        return Slot(f"{name}.{tensor}".lstrip("."), dim, at, by)

    if isinstance(layer, RECURRENT):
        return [slot(tensor, 1) for tensor in layer._flat_weights_names if "weight_ih" in tensor]
    if isinstance(layer, PER_CHANNEL):
        vectors = [n for n in ("weight", "bias", "running_mean", "running_var") if isinstance(getattr(layer, n, None), Tensor)]
        return [slot(n, getattr(layer, n).dim() - 1) for n in vectors if getattr(layer, n).numel() > 1]
    if is_depthwise(layer):
        multiplier = layer.out_channels // layer.groups
        rows = (positions[:, None] * multiplier + np.arange(multiplier)).ravel()
        by = owners.repeat(multiplier)
        return [slot(n, 0, rows, by) for n in ("weight", "bias") if isinstance(getattr(layer, n), Tensor)]
    groups = getattr(layer, "groups", 1)
    if groups > 1 and not isinstance(layer, TRANSPOSED):
        # Weight (out, in / groups, ...): a position of the second dimension serves that input of every group.
        each = layer.in_channels // groups
        return [slot("weight", 1, positions % each, owners)]
    return [slot("weight", 0 if isinstance(layer, TRANSPOSED) else 1)]


def tied_features(layer: nn.Module) -> list[list[int]]:
    """Input features of a layer that can only be removed together: those at the same place of every group."""
    return _same_place(layer, layer.in_channels) if isinstance(layer, CONVS) else []


def tied_outputs(layer: nn.Module) -> list[list[int]]:
    """Output channels of a layer that can only be removed together: those at the same place of every group."""
    return _same_place(layer, layer.out_channels) if isinstance(layer, CONVS) else []


def _same_place(layer: Any, channels: int) -> list[list[int]]:
    if layer.groups == 1 or is_depthwise(layer):
        return []
    return np.arange(channels).reshape(layer.groups, -1).T.tolist()


class Ties:
    """Union-find over channels of producers: what must be removed together."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._parent = list(range(int(self._offsets[-1])))

    def node(self, producer: int, channel: int) -> int:
        """The number of a channel of a producer."""
        return int(self._offsets[producer]) + int(channel)

    def find(self, node: int) -> int:
        """The representative of what a node is tied to: the smallest number."""
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def tie(self, first: int, second: int) -> None:
        """Tie two nodes."""
        a, b = self.find(first), self.find(second)
        self._parent[max(a, b)] = min(a, b)

    def owner(self, node: int) -> tuple[int, int]:
        """Producer and channel of a node."""
        producer = int(np.searchsorted(self._offsets, node, side="right")) - 1
        return producer, node - int(self._offsets[producer])
