"""Prunable groups of a network and the tensor positions that each of their channels owns.

The groups come from torch-pruning's dependency graph (Fang et al., DepGraph, CVPR 2023). The graph is built once; from
then on a plan is cut with index maps alone.
"""

from __future__ import annotations

import collections
import copy
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.plan import Plan
from reptile_env.tasks.splits import Inputs, Split, call

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Group:
    """Channels that are removed together.

    Attributes:
        name: the first layer, in network order, that produces the channels.
        kind: ``conv``, ``depthwise`` or ``linear``.
        size: channels of the dense network.
        producers: layers whose output channels these are.
        consumers: layers that read them.
    """

    name: str
    kind: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """Who owns the positions along one dimension of one tensor: a group (-1: nobody) and a channel of it."""

    group: NDArray[np.int64]
    channel: NDArray[np.int64]


@dataclass
class Structure:
    """Groups of a network, the axes they own, and the layers that can't be cut with the reason why."""

    groups: list[Group]
    axes: dict[tuple[str, int], Axis]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Group names in network order."""
        return tuple(group.name for group in self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dense channels of each group."""
        return tuple(group.size for group in self.groups)


@dataclass
class _Candidate:
    root: str
    size: int
    slots: list[tuple[str, int, NDArray[np.int64], NDArray[np.int64]]]  # tensor, dim, positions, channels
    producers: list[str]
    consumers: list[str]
    reason: str = ""


def find_groups(model: nn.Module, example: Split) -> Structure:
    """Groups of `model`, each checked: the cut network must compute what the network with the channels zeroed computes.

    Args:
        model: a trained network in evaluation mode; it is not altered.
        example: a few examples that it runs on.

    Raises:
        ValueError: no layer can be cut; the message lists the reasons.
    """
    order = _execution_order(model, example.inputs)
    candidates = list(_candidates(model, example.inputs, order))
    skipped = {c.root: c.reason for c in candidates if c.reason}
    accepted: list[_Candidate] = []
    owned: dict[tuple[str, int], NDArray[np.int64]] = {}
    for candidate in sorted((c for c in candidates if not c.reason), key=lambda c: order.get(c.root, len(order))):
        if any((owned.get((t, d)) is not None and (owned[t, d][p] >= 0).any()) for t, d, p, _ in candidate.slots):
            skipped[candidate.root] = "shares tensor positions with another group"
            continue
        structure = _structure(model, [candidate])
        reason = _check(model, structure, example)
        if reason:
            skipped[candidate.root] = reason
            continue
        for tensor, dim, positions, _ in candidate.slots:
            size = _tensors(model)[tensor].shape[dim]
            owned.setdefault((tensor, dim), np.full(size, -1))[positions] = len(accepted)
        accepted.append(candidate)
    structure = _structure(model, accepted)
    touched = {tensor.rpartition(".")[0] for tensor, _ in structure.axes}
    for name, module in model.named_modules():
        has_weights = next(module.parameters(recurse=False), None) is not None
        if has_weights and name not in skipped and name not in touched:
            skipped[name] = f"{type(module).__name__} is not part of any prunable group"
    if not accepted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "no convolution or linear layer was found"
        raise ValueError(f"nothing can be cut in this network: {reasons}")
    structure.skipped = skipped
    return structure


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


def _execution_order(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    order: dict[str, int] = {}

    def hook_of(name: str) -> Any:
        def hook(*_: Any) -> None:
            order.setdefault(name, len(order))

        return hook

    hooks = [module.register_forward_pre_hook(hook_of(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _candidates(model: nn.Module, inputs: Inputs, order: dict[str, int]) -> Iterator[_Candidate]:
    traced = copy.deepcopy(model).requires_grad_(True)
    names = {module: name for name, module in traced.named_modules()}
    owners = collections.Counter(p for module in traced.modules() for p in set(module.parameters(recurse=False)))
    tied = {parameter for parameter, count in owners.items() if count > 1}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(traced, inputs, forward_fn=call, verbose=False)
        for found in graph.get_all_groups(root_module_types=[*CONVS, nn.Linear]):
            yield _candidate(found, graph, names, order, tied)


def _candidate(
    found: torch_pruning.Group,
    graph: torch_pruning.DependencyGraph,
    names: dict[nn.Module, str],
    order: dict[str, int],
    tied: set[nn.Parameter],
) -> _Candidate:
    slots: list[tuple[str, int, NDArray[np.int64], NDArray[np.int64]]] = []
    producers: list[str] = []
    consumers: list[str] = []
    reason = ""
    size = len(found[0].idxs)
    for item in found:
        module = item.dep.target.module
        if isinstance(module, torch_pruning.ops._OutputOp):
            reason = "its channels are the network's output"
            continue
        if isinstance(module, nn.Parameter):
            reason = reason or "a bare parameter depends on its channels"
            continue
        name = names.get(module)
        if name is None:  # concatenation, reshape, element-wise: no tensor of their own
            continue
        outwards = graph.is_out_channel_pruning_fn(item.dep.handler)
        if isinstance(module, (*CONVS, nn.Linear)):
            (producers if outwards else consumers).append(name)
        dims = _slots(module, outwards)
        if dims is None:
            reason = reason or f"{name} ({type(module).__name__}) can't follow its cut"
            continue
        if tied & set(module.parameters(recurse=False)):
            reason = reason or f"{name} shares a tensor with another layer"
            continue
        positions, channels = np.asarray(item.idxs), np.asarray(item.root_idxs)
        if None in item.root_idxs or (channels < 0).any() or (channels >= size).any():
            reason = reason or f"its channels can't be followed into {name}"
            continue
        for tensor, dim in dims:
            slots.append((f"{name}.{tensor}" if name else tensor, dim, positions, channels))
    root = min(producers, key=lambda n: order.get(n, len(order)))
    return _Candidate(root, size, slots, producers, consumers, reason)


def _slots(module: nn.Module, outwards: bool) -> list[tuple[str, int]] | None:
    """Tensors and dimensions along which a module follows a cut of its outputs or inputs; None: it can't."""
    vectors = [n for n in ("weight", "bias", "running_mean", "running_var") if isinstance(getattr(module, n, None), Tensor)]
    if isinstance(module, _NORMS):
        last = isinstance(module, nn.LayerNorm)
        return [(n, getattr(module, n).dim() - 1 if last else 0) for n in vectors if getattr(module, n).numel() > 1]
    if isinstance(module, (*CONVS, nn.Linear)):
        groups = getattr(module, "groups", 1)
        if groups > 1 and not prune.is_depthwise(module):
            return None
        bias = [("bias", 0)] if module.bias is not None else []
        if groups > 1:
            return [("weight", 0), *bias]
        out, into = (1, 0) if isinstance(module, TRANSPOSED) else (0, 1)
        return [("weight", out), *bias] if outwards else [("weight", into)]
    return None if vectors else []


def _structure(model: nn.Module, candidates: list[_Candidate]) -> Structure:
    tensors = _tensors(model)
    modules = dict(model.named_modules())
    axes: dict[tuple[str, int], Axis] = {}
    groups = []
    for index, candidate in enumerate(candidates):
        for tensor, dim, positions, channels in candidate.slots:
            size = tensors[tensor].shape[dim]
            axis = axes.setdefault((tensor, dim), Axis(np.full(size, -1), np.full(size, -1)))
            axis.group[positions], axis.channel[positions] = index, channels
        root = modules[candidate.root]
        depthwise = any(getattr(modules[p], "groups", 1) > 1 for p in candidate.producers)
        kind = "linear" if isinstance(root, nn.Linear) else "depthwise" if depthwise else "conv"
        producers, consumers = tuple(dict.fromkeys(candidate.producers)), tuple(dict.fromkeys(candidate.consumers))
        groups.append(Group(candidate.root, kind, candidate.size, producers, consumers))
    return Structure(groups, axes)


def _check(model: nn.Module, structure: Structure, example: Split) -> str:
    """Why the group can't be cut, or an empty string: removing every second channel must equal zeroing them."""
    size = structure.groups[0].size
    if size < 2:
        return "it has a single channel"
    plan = Plan(structure.names, [range(0, size, 2)])
    state = _tensors(model)
    cut, masked = copy.deepcopy(model), copy.deepcopy(model)
    prune.install(cut, prune.cut(state, structure, plan))
    prune.install(masked, prune.zeroed(state, structure, plan))
    with torch.no_grad():
        try:
            outputs, expected = call(cut, example.inputs), call(masked, example.inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            return f"the cut network does not run: {str(error).splitlines()[0]}"
    for got, want in zip(_leaves(outputs), _leaves(expected), strict=True):
        if got.shape != want.shape:
            return "its channels are the network's output"
        if not torch.allclose(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max() + 1e-6)):
            return "removing its channels is not the same as zeroing them"
    return ""


def _leaves(outputs: object) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
