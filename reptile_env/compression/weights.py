"""Removing single weights: of each weight tensor the least important, or two of every four along its inputs."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reptile_env.compression.cost import Costs, WeightCosts
from reptile_env.compression.features import features, inputs_of
from reptile_env.compression.groups import Group, Structure, execution_order, tensors_of
from reptile_env.compression.importance import Scorer
from reptile_env.compression.layers import RECURRENT, Attention, prepare
from reptile_env.compression.macs import saved_tensors, weight_uses
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import CONVS, TRANSPOSED, heads_of, is_depthwise
from reptile_env.tasks.splits import Inputs, Split, map_inputs

LAYERS = (nn.Linear, *CONVS, *RECURRENT)
BLOCK = 4  # of which 2:4 keeps half


def find_weights(model: nn.Module, example: Split) -> Structure:
    """Every weight of a linear, convolutional or recurrent layer as a group of its own, in the order in which they run.

    Args:
        model: a trained network in evaluation mode; it is not altered.
        example: a few examples that it runs on.

    Raises:
        ValueError: there is none; the message lists the reasons.
    """
    prepared, skipped = prepare(model)
    order = execution_order(prepared, example.inputs)
    modules, state = dict(prepared.named_modules()), tensors_of(prepared)
    counts = collections.Counter(id(p) for p in _parameters(prepared).values())
    tied = {name for name, p in _parameters(prepared).items() if counts[id(p)] > 1}
    groups, weights = [], []
    for name in sorted(modules, key=lambda n: order.get(n, len(order))):
        layer = modules[name]
        if any(name == refused or name.startswith(f"{refused}.") for refused in skipped):
            continue
        if not isinstance(layer, LAYERS):
            if any(p.dim() > 1 for p in layer.parameters(recurse=False)):
                skipped[name] = f"{type(layer).__name__} is no linear, convolutional or recurrent layer"
            continue
        mine = list(_weights_of(name, layer))
        reason = "it does not run on the examples" if name not in order else _reason(mine, state, tied)
        if reason:
            skipped[name] = reason
            continue
        for weight in mine:
            groups.append(
                Group(weight if len(mine) > 1 else name or weight, _kind(name, modules), state[weight].numel(), (name,), ())
            )
            weights.append(weight)
    return _found(prepared, groups, weights, skipped)


def find_blocks(model: nn.Module, example: Split) -> Structure:
    """The weights of `find_weights` whose inputs come in fours; size 2: of every four, two are kept or all.

    Raises:
        ValueError: there is none; the message lists the reasons.
    """
    structure = find_weights(model, example)
    modules, state = dict(structure.model.named_modules()), tensors_of(structure.model)
    groups, weights, skipped = [], [], dict(structure.skipped)
    for group, weight in zip(structure.groups, structure.weights, strict=True):
        layer = modules[group.producers[0]]
        inputs = state[weight].shape[_input_dim(layer)] // (layer.groups if isinstance(layer, TRANSPOSED) else 1)
        if inputs % BLOCK:
            skipped[group.name] = f"each output reads {inputs} inputs, no multiple of {BLOCK}"
            continue
        groups.append(Group(group.name, group.kind, 2, group.producers, ()))
        weights.append(weight)
    return _found(structure.model, groups, weights, skipped)


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _weights_of(name: str, layer: Any) -> Iterator[str]:
    leaves = [n for n in layer._flat_weights_names if n.startswith("weight")] if isinstance(layer, RECURRENT) else ["weight"]
    yield from (f"{name}.{leaf}".lstrip(".") for leaf in leaves)


def _reason(weights: list[str], state: Mapping[str, Tensor], tied: set[str]) -> str:
    """Why the weights of a layer can't be pruned, or an empty string."""
    for weight in weights:
        if weight in tied:
            return f"{weight} is shared with another layer"
        # A parametrised weight (weight_norm, spectral_norm) is computed anew in every pass.
        if weight not in state:
            return f"{weight} is not a plain parameter"
        if state[weight].numel() < 2:
            return f"{weight} is a single number"
    return ""


def _kind(name: str, modules: Mapping[str, nn.Module]) -> str:
    layer, parent = modules[name], modules[name.rpartition(".")[0]]
    if isinstance(layer, RECURRENT):
        return "recurrent"
    if isinstance(layer, CONVS):
        return "depthwise" if is_depthwise(layer) else "conv"
    return "attention" if isinstance(parent, Attention) or heads_of(parent) is not None else "linear"


def _input_dim(layer: nn.Module) -> int:
    return 0 if isinstance(layer, TRANSPOSED) else 1


def _found(model: nn.Module, groups: list[Group], weights: list[str], skipped: dict[str, str]) -> Structure:
    if not groups:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"nothing can be cut in this network: {reasons or 'no convolution, linear or recurrent layer was found'}")
    return Structure(model, groups, {}, skipped, tuple(weights))


class Weights:
    """Single weights, each layer's least important (Han et al., NIPS 2015): zeros in tensors of unchanged size."""

    lists = False
    find = staticmethod(find_weights)

    def __init__(self, structure: Structure, state: Mapping[str, Tensor], inputs: Inputs, scorer: Scorer, importance: str) -> None:
        self._state, self._weights = state, structure.weights
        self.names, self.sizes = structure.names, structure.sizes
        self.costs: Costs = weight_costs(structure, inputs)
        modules = dict(structure.model.named_modules())
        self._layers = [modules[group.producers[0]] for group in structure.groups]
        self.features = tuple(self._features(i, group.kind) for i, group in enumerate(structure.groups))
        scores = (_held(scorer.weights(importance, weight), structure.masks.get(weight)) for weight in self._weights)
        self._rank = [self._ranked(score, layer) for score, layer in zip(scores, self._layers, strict=True)]
        self._last: dict[int, tuple[int, Tensor]] = {}

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the group `count` smaller."""
        return plan.replace(group, plan.widths[group] - count)

    def tensors(self, plan: Plan) -> dict[str, Tensor]:
        """Weights that lose something, zero where they do."""
        return {name: self._state[name].masked_fill(~mask, 0) for name, mask in self.masks(plan).items()}

    def masks(self, plan: Plan) -> dict[str, Tensor]:
        """For each weight that has holes what it keeps, bool, of its shape; the same tensor as long as it keeps as much."""
        widths = enumerate(plan.widths)
        return {self._weights[group]: self._mask(group, width) for group, width in widths if width < self.sizes[group]}

    def _mask(self, group: int, width: int) -> Tensor:
        if self._last.get(group, (0,))[0] != width:
            self._last[group] = width, self._rank[group] >= self.sizes[group] - width
        return self._last[group][1]

    def _ranked(self, scores: Tensor, layer: nn.Module) -> Tensor:
        """How many decisions each weight outlasts, int32. Equal scores leave in a fixed order on every machine."""
        return _ranks(scores.flatten()).view_as(scores)

    def _features(self, index: int, kind: str) -> dict[str, Any]:
        layer: Any = self._layers[index]
        weight = self._state[self._weights[index]]
        inputs = weight.shape[1] if isinstance(layer, RECURRENT) else inputs_of(layer)
        outputs = layer.out_channels if isinstance(layer, CONVS) else len(weight)
        return features(kind, layer, inputs, outputs, self.costs, self.sizes, index)


class TwoOfFour(Weights):
    """Two of every four weights along the inputs, for each output and kernel position (Mishra et al., arXiv:2104.08378)."""

    find = staticmethod(find_blocks)

    def _ranked(self, scores: Tensor, layer: nn.Module) -> Tensor:
        blocks = torch.unflatten(scores.movedim(_input_dim(layer), -1), -1, (-1, BLOCK))
        return (_ranks(blocks) // 2).flatten(-2).movedim(-1, _input_dim(layer)).contiguous()


def _held(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores by which what is gone already stays gone."""
    return scores if mask is None else scores.masked_fill(~mask, float("-inf"))


def _ranks(scores: Tensor) -> Tensor:
    """Place of each element in the ascending order along the last dimension, int32; of equal ones the first comes first."""
    order = np.argsort(scores.numpy(), axis=-1, kind="stable")
    ranks = np.empty(order.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(order.shape[-1], dtype=np.int32), axis=-1)
    return torch.from_numpy(ranks)


def weight_costs(structure: Structure, inputs: Inputs) -> WeightCosts:
    """The cost model of a network whose single weights are removed.

    Args:
        structure: of `find_weights` or `find_blocks`.
        inputs: at least one example; MACs are those of the first.
    """
    model = structure.model
    tensors, modules = saved_tensors(model), dict(model.named_modules())
    uses, _, macs = weight_uses(model, map_inputs(lambda t: t[:1], inputs))
    layers = [(owner, layer, list(_weights_of(layer, modules[layer]))) for layer, owner in structure.owners.items()]
    rows = [(owner, layer, name, name == names[0]) for owner, layer, names in layers for name in names]
    group = {name: index for index, name in enumerate(structure.weights)}
    weights = [tensors[name] for _, _, name, _ in rows]
    numel, used = (
        np.array(values, dtype=np.int64) for values in ([w.numel() for w in weights], [uses[name] for _, _, name, _ in rows])
    )
    element_bytes = np.array([w.element_size() for w in weights], dtype=np.int64)
    params = sum(t.numel() for t in tensors.values() if isinstance(t, nn.Parameter))
    return WeightCosts(
        fixed={
            "params": params - int(numel.sum()),
            "macs": macs - int(numel @ used),
            "bytes": sum(t.nbytes for t in tensors.values()) - int(numel @ element_bytes),
        },
        sizes=np.array(structure.sizes, dtype=np.int64),
        group=np.array([group.get(name, -1) for _, _, name, _ in rows], dtype=np.int64),
        owner=np.array([owner for owner, _, _, _ in rows], dtype=np.int64),
        numel=numel,
        uses=used,
        outputs=np.array([_outputs(modules[layer], tensors[name]) for _, layer, name, _ in rows], dtype=np.int64),
        leads=np.array([leads for _, _, _, leads in rows], dtype=bool),
        element_bytes=element_bytes,
    )


def _outputs(layer: nn.Module, weight: Tensor) -> int:
    """Size of the dimension of outputs, which has a scale each when quantized."""
    return int(weight.shape[int(isinstance(layer, TRANSPOSED))])
