"""Seconds a forward pass: measured once a machine on a grid of widths, interpolated from then on.

A table holds, for each weight layer, the time at a few widths of its inputs and outputs, as in NetAdapt (Yang et al., ECCV 2018).
What is not in it (activations, norms, products of attention) is taken to cost what it costs in the dense network.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from reptile_env.compression import hooks, latency_file, prune, timing
from reptile_env.compression.groups import Structure
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.producers import CONVS, TRANSPOSED, is_depthwise
from reptile_env.tasks.splits import Inputs, call, map_inputs, tensors_of

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the positions along each dimension
BUDGET = 8.0  # seconds for the whole table


@dataclass(frozen=True)
class Line:
    """Positions along one dimension of a layer, by the widths of groups, and where along it was measured.

    Attributes:
        fixed: positions that no group owns.
        per_channel: int64 ``(groups,)``, positions of each channel of a group.
        grid: int64, ascending; the last is the dense layer's.
    """

    fixed: int
    per_channel: NDArray[np.int64]
    grid: NDArray[np.int64]

    def place(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where on the grid, as a fractional index, ``(..., groups)`` to ``(...)``; beyond its ends: at its ends."""
        positions = self.fixed + widths @ self.per_channel
        return np.asarray(np.interp(positions, self.grid, np.arange(len(self.grid))))


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one layer, ``(inputs, outputs)`` of the two grids."""

    inputs: Line
    outputs: Line
    seconds: NDArray[np.float64]

    def at(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bilinear between the four neighbours; exact where it was measured."""
        result = np.zeros(widths.shape[:-1])
        rows, columns = _neighbours(self.inputs, widths), _neighbours(self.outputs, widths)
        for row, row_share in rows:
            for column, column_share in columns:
                result = result + row_share * column_share * self.seconds[row, column]
        return result


def _neighbours(line: Line, widths: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    place = line.place(widths)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, len(line.grid) - 1)
    return [(low, 1 - (place - low)), (high, place - low)]


@dataclass(frozen=True)
class LatencyTable:
    """Seconds by widths.

    Attributes:
        layers: what plans shrink.
        constant: seconds of everything else.
        dense: seconds of the dense network.
    """

    layers: tuple[LayerTimes, ...]
    constant: float
    dense: float

    def seconds(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(..., groups)`` to ``(...)``; the same floats wherever the same table is read."""
        wide = np.asarray(widths, dtype=np.int64)
        return np.asarray(sum((layer.at(wide) for layer in self.layers), np.zeros(wide.shape[:-1])) + self.constant)


def latency_table(structure: Structure, inputs: Inputs) -> LatencyTable:
    """The table of a network at batch size 1: read from disk, or measured (some seconds) and written there.

    Args:
        structure: the network and its groups.
        inputs: at least one example; the first is used.

    Raises:
        OSError: the table can't be written; the message names the environment variable that says where.
    """
    one = map_inputs(lambda t: t[:1], inputs)
    seen = _inputs_of_layers(structure, one)
    layers = {name: structure.model.get_submodule(name) for name in seen}
    lines = {name: _lines(structure, name, layer) for name, layer in layers.items()}
    described = {
        "network": [_attributes(module) for module in structure.model.modules()],
        "inputs": [[list(t.shape), str(t.dtype)] for t in tensors_of(one)],
        "layers": [
            [name, _described(layers[name], seen[name]), [line.grid.tolist() for line in lines[name]]] for name in sorted(layers)
        ],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    shapes = {name: tuple(len(line.grid) for line in lines[name]) for name in lines}
    stored = latency_file.read_or_write(described, shapes, lambda: _measured(structure.model, one, layers, lines, seen))
    times = {name: _falling(np.asarray(stored["layers"][name], dtype=np.float64)) for name in shapes}
    parts = sum(float(table[-1, -1]) for table in times.values())
    # Measured one after the other, parts can come out slower than the whole.
    scale = min(1.0, stored["dense"] / parts) if parts else 1.0
    measured = tuple(LayerTimes(*lines[name], scale * times[name]) for name in lines)
    return LatencyTable(measured, max(0.0, stored["dense"] - scale * parts), stored["dense"])


def _falling(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """No width is slower than a wider one, which could do its work: what says otherwise is noise."""
    for axis in (0, 1):
        seconds = np.flip(np.minimum.accumulate(np.flip(seconds, axis), axis), axis)
    return seconds


def _measured(
    model: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, Any],
    lines: Mapping[str, tuple[Line, Line]],
    seen: Mapping[str, list[Any]],
) -> dict[str, Any]:
    """Seconds of the dense network and of every layer at every width.

    Layers that are alike are measured once, by themselves, where their weights stay in the processor's cache; all times are then
    scaled to what the dense layer takes in its place in the network, where weights have to be fetched.
    """
    alike: dict[str, list[str]] = {}
    for name, layer in layers.items():
        grids = [line.grid.tolist() for line in lines[name]]
        alike.setdefault(f"{_described(layer, seen[name])} {grids}", []).append(name)
    entries = sum(math.prod(len(line.grid) for line in lines[names[0]]) for names in alike.values())
    tables: dict[str, list[list[float]]] = {}
    with torch.inference_mode():
        inside, between = timing.in_place(model, inputs, layers, BUDGET / 8)
        # A network of very short layers is slowed down by timing them; a long one is not left in peace from end to end.
        dense = min(timing.least(functools.partial(call, model, inputs), BUDGET / 8), sum(inside.values()) + between)
        for names in alike.values():
            layer, given = layers[names[0]], seen[names[0]]
            rows, columns = (line.grid.tolist() for line in lines[names[0]])
            table = [[_seconds_of(layer, given, row, column, BUDGET / entries) for column in columns] for row in rows]
            for name in names:
                tables[name] = [[seconds * inside[name] / table[-1][-1] for seconds in row] for row in table]
    return {"dense": dense, "layers": tables}


def _seconds_of(layer: Any, given: list[Any], inputs: int, outputs: int, budget: float) -> float:
    """Seconds of all calls of a layer that keeps so many positions along its inputs and outputs."""
    small = _sliced(layer, inputs, outputs)
    width = small.groups * inputs if isinstance(layer, CONVS) and not isinstance(layer, TRANSPOSED) else inputs
    cut = [_narrowed(layer, data, width) for data in given]
    return sum(timing.least(functools.partial(small, data), budget / len(cut)) for data in cut)


def _inputs_of_layers(structure: Structure, inputs: Inputs) -> dict[str, list[Any]]:
    """For each weight layer that plans shrink what it is given, call by call, in the order in which they run."""
    seen: dict[str, list[Any]] = {}

    def hook_of(name: str) -> Callable[[nn.Module, Any], None]:
        def before(layer: nn.Module, given: Any) -> None:
            if isinstance(given, (Tensor, PackedSequence)):
                seen.setdefault(name, []).append(given)

        return before

    touched = {tensor.rpartition(".")[0] for tensor in structure.tensors}
    named = {
        name: m for name, m in structure.model.named_modules() if name in touched and isinstance(m, (*CONVS, *RECURRENT, nn.Linear))
    }
    handles = [hooks.before(module, hook_of(name)) for name, module in named.items()]
    with torch.no_grad(), hooks.attached(handles):
        call(structure.model, inputs)
    return seen


def _attributes(module: nn.Module) -> list[Any]:
    simple = {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
    return [f"{type(module).__module__}.{type(module).__qualname__}", module.extra_repr(), sorted(simple.items())]


def _described(layer: nn.Module, given: list[Any]) -> str:
    data = [x.data if isinstance(x, PackedSequence) else x for x in given]
    return f"{layer} {[(list(x.shape), str(x.dtype)) for x in data]}"


def _lines(structure: Structure, name: str, layer: Any) -> tuple[Line, Line]:
    """The dimensions that count a layer's inputs and outputs. A depthwise convolution has outputs alone."""
    if isinstance(layer, RECURRENT):
        return _line(structure, name, "weight_ih_l0", 1, layer), _line(structure, name, "weight_hh_l0", 1, layer)
    out = int(isinstance(layer, TRANSPOSED))
    groups = getattr(layer, "groups", 1)
    unit = layer.out_channels // groups if is_depthwise(layer) else groups
    inputs = _line(structure, name, "weight", 1 - out, layer, groups if isinstance(layer, TRANSPOSED) else 1)
    return inputs, _line(structure, name, "weight", out, layer, 1 if isinstance(layer, TRANSPOSED) else unit)


def _line(structure: Structure, name: str, tensor: str, dim: int, layer: nn.Module, unit: int = 1) -> Line:
    size = getattr(layer, tensor).shape[dim]
    axis = structure.axes.get((f"{name}.{tensor}".lstrip("."), dim))
    per_channel = np.zeros(len(structure.groups), dtype=np.int64)
    if axis is None:
        return Line(size, per_channel, np.array([size]))
    for group, channels in enumerate(structure.sizes):
        per_channel[group] = int((axis.group == group).sum()) // channels
    grid = np.unique([max(unit, round(fraction * size / unit) * unit) for fraction in FRACTIONS])
    return Line(int((axis.group < 0).sum()), per_channel, grid)


def _sliced(layer: Any, inputs: int, outputs: int) -> Any:
    """A copy of a layer that keeps the first positions of its inputs and outputs."""
    tensors: dict[str, Tensor] = {}
    for leaf, tensor in layer.named_parameters(recurse=False):
        if isinstance(layer, RECURRENT):
            gates = tensor.shape[0] // layer.hidden_size
            kept = tensor[: gates * outputs]
            tensors[leaf] = kept[:, : inputs if "weight_ih" in leaf else outputs] if tensor.dim() > 1 else kept
        elif leaf != "weight":
            tensors[leaf] = tensor[: outputs * (layer.groups if isinstance(layer, TRANSPOSED) else 1)]
        elif isinstance(layer, TRANSPOSED):
            tensors[leaf] = tensor[:inputs, :outputs]
        else:
            tensors[leaf] = tensor[:outputs, :inputs]
    holder, dense = nn.ModuleDict({"layer": copy.deepcopy(layer)}), nn.ModuleDict({"layer": layer})
    prune.install(holder, {f"layer.{leaf}": t.detach().clone() for leaf, t in tensors.items()}, dense)
    return holder["layer"]


def _narrowed(layer: Any, given: Any, width: int) -> Any:
    """The input of a layer with its first features."""
    if isinstance(given, PackedSequence):
        return given._replace(data=given.data[:, :width].clone())
    return (given[:, :width] if isinstance(layer, CONVS) else given[..., :width]).clone()
