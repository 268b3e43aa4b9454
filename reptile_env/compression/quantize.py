"""Quantization: weights on grids of few levels, inputs of their layers rounded to 8 bits."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from reptile_env.compression import consumers, hooks, moments, rounding
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.modules import INPUT_LEVELS, Factored, Quantized, round_input
from reptile_env.compression.padding import Padding
from reptile_env.compression.plan import FLOAT_BITS, Plan
from reptile_env.compression.producers import CONVS, TRANSPOSED
from reptile_env.compression.rounding import Seen
from reptile_env.compression.workbench import Targets, Workbench
from reptile_env.tasks.splits import call

# Sampled rows of a layer's inputs from which its weights are rounded.
ROWS = 8192
_SMALLEST = 1e-30  # step of a grid: its inverse is a float32 number

Grid = tuple[float, int]


@dataclass
class _Inputs:
    """What the float network shows of a layer: its range of inputs, how often it runs, sampled outputs of each of its weights.

    The range includes 0; the outputs, without bias, are those of the first run.
    """

    low: float = 0.0
    high: float = 0.0
    runs: int = 0
    targets: dict[Consumer, Targets] = field(default_factory=dict)

    def grid(self) -> Grid:
        """Step and zero point of the 8-bit grid from the smallest to the largest input.

        Cutting the range at a percentile, or where the squared error is least, was no better on any network that was measured.
        """
        step = float(np.float32((self.high - self.low) / INPUT_LEVELS))
        step = step if step > _SMALLEST else 1.0
        return step, min(max(round(-self.low / step), 0), INPUT_LEVELS)


def quantize(bench: Workbench, plan: Plan, how: str) -> set[str]:
    """Put the weights of every layer to which `plan` gives fewer than 32 bits on a grid, and round the layer's input to 8 bits.

    A grid is symmetric and has ``2 ** bits - 1`` levels; every output has a step of its own (outputs of the same place in all
    groups of a transposed convolution share theirs). Inputs are rounded to 256 levels from the smallest to the largest that the
    calibration examples give.

    Args:
        bench: the network, pruned, refitted, factored and trained.
        plan: bits of each group.
        how: ``nearest``: every weight to the nearest level, the largest of an output to the highest; or ``data-aware``: so that
            the outputs of the layers change least (see `rounding.least_squares`), layer by layer from what the quantized
            network before them makes of the calibration examples; biases, or running means of batch norms that follow, take up
            what changes in the mean.

    Returns:
        Names of the tensors that were replaced in the network.
    """
    work = _Quantizer(bench, _layers(bench, plan))
    work.observe(with_targets=how == "data-aware")
    if how == "data-aware":
        work.round_early()
        work.round_in_sequence()
    work.swap()
    return work.replaced


def _layers(bench: Workbench, plan: Plan) -> dict[str, int]:
    """Bits of every layer to quantize, by path; the two factors of a layer are two layers."""
    found: dict[str, int] = {}
    for path, owner in bench.structure.owners.items():
        layer = bench.model.get_submodule(path)
        parts = [f"{path}.first", f"{path}.second"] if isinstance(layer, Factored) else [path]
        if plan.bits[owner] < FLOAT_BITS and isinstance(layer, (*CONVS, *RECURRENT, nn.Linear, Factored)):
            found |= dict.fromkeys(parts, plan.bits[owner])
    return found


class _Quantizer:
    """Quantizes the layers of a workbench's network, each with its bits."""

    def __init__(self, bench: Workbench, bits: Mapping[str, int]) -> None:
        self.bench, self.bits = bench, bits
        self.layers: dict[str, Any] = {path: bench.model.get_submodule(path) for path in bits}
        self.maps = {path: list(consumers.of_layer(path, layer)) for path, layer in self.layers.items()}
        self.inputs = {path: _Inputs() for path in bits}
        self.scales: dict[str, dict[str, Tensor]] = {path: {} for path in bits}
        self.replaced: set[str] = set()

    def observe(self, with_targets: bool) -> None:
        """Run the float network over the calibration examples."""
        padding, generator = Padding(self.bench.model), torch.Generator().manual_seed(0)

        def hook_of(path: str) -> Any:
            def hook(layer: Any, given: Any, output: Any) -> None:
                seen, real = self.inputs[path], padding.real_rows(layer, given)
                low, high = _data(given, real).aminmax()
                seen.low, seen.high = min(seen.low, float(low)), max(seen.high, float(high))
                seen.runs += 1
                for consumer in self.maps[path] if with_targets and seen.runs == 1 else ():
                    if consumer.hidden is None:
                        count = consumers.row_count(consumer, layer, given, output) if real is None else len(real)
                        picked = torch.randperm(count, generator=generator)[:ROWS].sort().values
                        picked = picked if real is None else real[picked]
                        seen.targets[consumer] = Targets(picked, self._outputs(consumer, layer, given, output, picked))

            return hook

        handles = [hooks.after(layer, hook_of(path)) for path, layer in self.layers.items()] + padding.handles()
        with torch.no_grad(), hooks.attached(handles):
            call(self.bench.model, self.bench.calibration.inputs)
        if with_targets:
            self._find_shifts()

    def round_early(self) -> None:
        """Round what has no single moment in a pass: weights that read hidden states, layers that run several times."""
        found = [c for path, maps in self.maps.items() for c in maps if c.hidden is not None or self.inputs[path].runs > 1]
        cached = moments.collect(self.bench.model, found, self.bench.calibration, self.bench.batch_size) if found else {}
        for consumer, moment in cached.items():
            gram, weight = moment.gram, self._matrix(consumer)
            if not moment.constant:
                self._round(consumer, Seen(gram, gram @ weight))
                continue
            gram, mean = gram[:, :-1, :-1], gram[:, -1, :-1]
            self._round(consumer, Seen(gram, gram @ weight, mean, (mean[:, None] @ weight)[:, 0]))

    def round_in_sequence(self) -> None:
        """One pass in which each layer is rounded from its rounded input just before it runs."""

        def hook_of(path: str) -> Any:
            def before(layer: Any, given: Any) -> Any:
                rounded = round_input(given, *self.inputs[path].grid())
                for consumer, targets in self.inputs[path].targets.items():
                    if consumer.weight.rpartition(".")[2] not in self.scales[path]:
                        self._round(consumer, self._seen(consumer, layer, rounded, targets))
                return rounded

            return before

        handles = [hooks.before(layer, hook_of(path)) for path, layer in self.layers.items()]
        with torch.no_grad(), hooks.attached(handles):
            call(self.bench.model, self.bench.calibration.inputs)

    def swap(self) -> None:
        """Put a `Quantized` in place of every layer; weights that were not rounded yet go to the nearest level."""
        for path, layer in self.layers.items():
            scales = self.scales[path]
            names = [name for name in layer._parameters if name.startswith("weight")]
            for name in names:
                if name not in scales:
                    scales[name] = rounding.largest(getattr(layer, name), self.bits[path], _axis(layer))
                    self._install(f"{path}.{name}", self._on_grid(path, name, getattr(layer, name)))
            ordered = {name: scales[name] for name in names}
            self.bench.swapped[path] = layer
            self.bench.model.set_submodule(path, Quantized(layer, self.bits[path], ordered, *self.inputs[path].grid()))

    def _outputs(self, consumer: Consumer, layer: Any, given: Any, output: Any, picked: Tensor) -> Tensor:
        """Sampled rows of what the weight makes, float64 ``(groups, rows, outputs)``."""
        if not isinstance(output, Tensor):
            return consumers.rows(consumer, layer, given, output, picked).double() @ self._matrix(consumer)
        last = output.movedim(1 if isinstance(layer, CONVS) else -1, -1)
        flat = last.reshape(-1, last.shape[-1])[picked].double()
        flat = flat if layer.bias is None else flat - layer.bias.double()
        return torch.unflatten(flat, 1, (consumers.groups_of(layer), -1)).transpose(0, 1)

    def _find_shifts(self) -> None:
        """Let the batch norm that follows a layer without bias take its constant, where it follows that layer alone."""
        followers, _ = consumers.watch(self.bench.model, self.bench.calibration[:1].inputs)
        layers_before = collections.Counter(followers.values())
        for path, seen in self.inputs.items():
            norm = followers.get(path)
            if norm is None or layers_before[norm] > 1:
                continue
            found = {c: c if c.shift else replace(c, shift=f"{norm}.running_mean", sign=-1) for c in self.maps[path]}
            self.maps[path] = list(found.values())
            seen.targets = {found[c]: targets for c, targets in seen.targets.items()}

    def _seen(self, consumer: Consumer, layer: Any, given: Any, targets: Targets) -> Seen:
        x = consumers.rows(consumer, layer, given, None, targets.picked).double()
        gram, cross = x.mT @ x / x.shape[1], x.mT @ targets.outputs / x.shape[1]
        return Seen(gram, cross, x.mean(1), targets.outputs.mean(1)) if consumer.shift else Seen(gram, cross)

    def _round(self, consumer: Consumer, seen: Seen) -> None:
        layer, path, name = self.layers[consumer.layer], consumer.layer, consumer.weight.rpartition(".")[2]
        mask = self.bench.masks.get(consumer.weight)
        made, scale, constants = rounding.least_squares(
            self._matrix(consumer),
            seen,
            self.bits[path],
            shared=isinstance(layer, TRANSPOSED),
            mask=None if mask is None else consumers.matrix(consumer, layer, mask),
        )
        self.scales[path][name] = scale.float().flatten()
        weight = consumers.weight_of(consumer, layer, made, getattr(layer, name))
        self._install(consumer.weight, self._on_grid(path, name, weight))
        if constants is not None and consumer.shift is not None:
            shift = self._tensor(consumer.shift)
            self._install(consumer.shift, (shift.double() + consumer.sign * constants.flatten()).to(shift.dtype))

    def _matrix(self, consumer: Consumer) -> Tensor:
        return consumers.matrix(consumer, self.layers[consumer.layer], self._tensor(consumer.weight)).double()

    def _on_grid(self, path: str, name: str, weight: Tensor) -> Tensor:
        return rounding.on_grid(weight, self.scales[path][name], self.bits[path], _axis(self.layers[path]))

    def _tensor(self, name: str) -> Tensor:
        path, _, leaf = name.rpartition(".")
        tensor: Tensor = getattr(self.bench.model.get_submodule(path), leaf)
        return tensor.detach()

    def _install(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self.bench.model.get_submodule(path)
        # Recurrent layers see by this that a weight of theirs changed.
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False) if leaf in module._parameters else tensor)
        # Factors are no layers of the dense network: they go as a whole.
        if name in self.bench.state:
            self.replaced.add(name)


def _axis(layer: nn.Module) -> int:
    return int(isinstance(layer, TRANSPOSED))


def _data(given: Any, real: Tensor | None) -> Tensor:
    data: Tensor = given.data if isinstance(given, PackedSequence) else given
    return data if real is None else data.reshape(-1, data.shape[-1])[real]
