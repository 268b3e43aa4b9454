"""Prunable groups of a network and the tensor positions that each of their channels owns.

Found once for a network; from then on a plan is cut with index maps alone.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.compression import hooks, prune
from reptile_env.compression.assembly import Candidate, assemble, joined
from reptile_env.compression.checking import Checker
from reptile_env.compression.dependency import graph_candidates
from reptile_env.compression.layers import RECURRENT, RecurrentStack, WidthNorm, prepare
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import Slot, plain_producers, special_producers
from reptile_env.compression.skipped import SINGLE, STREAM
from reptile_env.tasks.splits import Inputs, Split, call

STREAMS = (nn.Embedding, WidthNorm)


@dataclass(frozen=True)
class Group:
    """Channels that are removed together.

    Attributes:
        name: the first layer, in network order, that produces the channels.
        kind: ``conv``, ``depthwise``, ``linear``, ``recurrent`` or ``attention``.
        size: channels, hidden units or heads of the dense network.
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
    """The network as it is cut: groups, the axes they own, and the layers that can't be cut with the reason why.

    Attributes:
        model: the dense network with stand-ins for layers that can't be cut as they are (see `layers.prepare`).
        groups: in network order.
        axes: by tensor name and dimension.
        skipped: layer that can't be cut -> reason.
        weights: where single weights are removed (see `weights.find_weights`): the weight of each group; there are no axes then.
        masks: for each weight that had holes before what it kept, bool; no plan fills them.
        unfactorable: layers that no product of two thinner ones can stand for.
    """

    model: nn.Module
    groups: list[Group]
    axes: dict[tuple[str, int], Axis]
    skipped: dict[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    unfactorable: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Group names in network order."""
        return tuple(group.name for group in self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dense channels of each group."""
        return tuple(group.size for group in self.groups)

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that plans change."""
        return {tensor for tensor, _ in self.axes} | set(self.weights)

    @property
    def owners(self) -> dict[str, int]:
        """For each layer the group whose bits and rank hold for it: the first that it makes, else the last that it reads."""
        owners: dict[str, int] = {}
        for index, group in enumerate(self.groups):
            owners |= dict.fromkeys(group.consumers, index)
        for index, group in reversed(list(enumerate(self.groups))):
            owners |= dict.fromkeys(group.producers, index)
        return owners

    def restricted(self, plan: Plan, model: nn.Module, masks: Mapping[str, Tensor]) -> Structure:
        """The structure of `model`, the network cut to `plan`: what is left of each group, its channels numbered anew from 0.

        Args:
            plan: of this structure.
            model: the cut network, its layers of the kinds that they are here.
            masks: for each weight that has holes what it keeps; the widths of weights stay as they are.
        """
        if self.weights:
            return replace(self, model=model, masks=masks)
        axes = {}
        for key, axis in self.axes.items():
            positions = prune.kept_positions(axis, self, plan)
            group, old = axis.group[positions], axis.channel[positions]
            channel = np.full_like(old, -1)
            for index, kept in enumerate(plan.keep):
                assert not isinstance(kept, int)
                channel[group == index] = np.searchsorted(kept, old[group == index])
            axes[key] = Axis(group, channel)
        groups = [replace(group, size=width) for group, width in zip(self.groups, plan.widths, strict=True)]
        return replace(self, model=model, groups=groups, axes=axes)


def find_groups(model: nn.Module, example: Split, residual_width: bool = False) -> Structure:
    """Groups of `model`, each checked: the cut network must compute what the network with the channels zeroed computes.

    Recurrent layers and attention heads are followed by `tracing`; convolutions and linear layers by torch-pruning's
    dependency graph; what the graph gets wrong, as the check shows, by `tracing` again.

    Args:
        model: a trained network in evaluation mode; it is not altered.
        example: a few examples that it runs on.
        residual_width: the width of embeddings and of a Transformer's residual stream is a group as well.

    Raises:
        ValueError: no layer can be cut, or no residual stream or embedding though it was asked for; the message lists the reasons.
    """
    prepared, refused = prepare(model, residual_width)
    search = _Search(prepared, example)
    modules = dict(prepared.named_modules())
    search.consider(assemble(prepared, example.inputs, list(special_producers(modules))))
    search.consider(search.stacks())
    if not any(isinstance(module, RECURRENT) for module in modules.values()):
        # The graph unrolls recurrent layers over time, which takes minutes and finds nothing that `tracing` doesn't.
        search.consider(graph_candidates(prepared, example.inputs, search.order))
    left = [p for p in plain_producers(modules, residual_width) if search.is_open(p.name) and p.size > 1]
    search.consider(assemble(prepared, example.inputs, left))
    search.skipped |= refused
    structure = search.result()
    if residual_width and not any(isinstance(modules[tensor.rpartition(".")[0]], STREAMS) for tensor, _ in structure.axes):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in structure.skipped.items())
        raise ValueError(f"residual_width=True, but no embedding or residual stream can be cut ({reasons}); leave it out")
    return structure


class _Search:
    """Accepts candidates that pass the check and whose positions are still free."""

    def __init__(self, model: nn.Module, example: Split) -> None:
        self.model, self.example = model, example
        self.order = execution_order(model, example.inputs)
        self.checker = Checker(model, example[:2].inputs)
        self.accepted: list[Candidate] = []
        self.skipped: dict[str, str] = {}
        self._streams: set[str] = set()
        self._refused: list[Candidate] = []
        self._sizes = {name: tuple(t.shape) for name, t in tensors_of(model).items()}
        every = list(model.named_parameters(remove_duplicate=False))
        owners = collections.Counter(id(p) for _, p in every)
        self._tied = {name for name, p in every if owners[id(p)] > 1}
        self._taken: dict[tuple[str, int], NDArray[np.bool_]] = {}

    def consider(self, candidates: Iterable[Candidate]) -> None:
        for candidate in sorted(candidates, key=lambda c: self.order.get(c.root, len(self.order))):
            reason = candidate.reason or self._conflict(candidate) or self._check(candidate)
            if reason:
                self._refused.append(candidate)
                stream = self._stream(candidate)
                self._streams |= set(candidate.producers if stream else [])
                self.skipped |= dict.fromkeys([candidate.root, *self._named(candidate)], stream or reason)
                continue
            for slot in candidate.slots:
                self._free(slot.tensor, slot.dim)[slot.positions] = True
            self.accepted.append(candidate)

    def stacks(self) -> list[Candidate]:
        """For each stack of recurrent layers whose widths can't be cut one by one a candidate of them all, equally wide.

        So its final states are one tensor, as the network may need them to be.
        """
        found = []
        for name, module in self.model.named_modules():
            if not isinstance(module, RecurrentStack):
                continue
            layers = {f"{name}.layers.{i}".lstrip(".") for i in range(len(module.layers))}
            parts = [c for c in self._refused if not c.reason and layers.intersection(c.producers)]
            if len(parts) > 1 and layers == {layer for c in parts for layer in c.producers} and len({c.size for c in parts}) == 1:
                found.append(joined(parts))
        return found

    def is_cut(self, layer: str) -> bool:
        return any(layer in candidate.producers for candidate in self.accepted)

    def is_open(self, layer: str) -> bool:
        """Whether nobody has found a group that the layer makes, nor why there can be none."""
        return layer in self.order and layer not in self._streams and not self.is_cut(layer)

    def result(self) -> Structure:
        self._refuse_those_that_need_two()
        if not self.accepted:
            reasons = "; ".join(f"{name or 'the network itself'}: {reason}" for name, reason in self.skipped.items())
            raise ValueError(
                f"nothing can be cut in this network: {reasons or 'no convolution, linear or recurrent layer was found'}"
            )
        self.accepted.sort(key=lambda c: self.order.get(c.root, len(self.order)))
        structure = _structure(self.model, self.accepted)
        touched = {tensor.rpartition(".")[0] for tensor, _ in structure.axes}
        for name, module in self.model.named_modules():
            has_weights = next(module.parameters(recurse=False), None) is not None
            inside = any(name.startswith(f"{skipped}.") for skipped in self.skipped)
            if has_weights and name not in self.skipped and name not in touched and not inside:
                mend = "; residual_width=True cuts such widths" if type(module) in (nn.Embedding, nn.LayerNorm) else ""
                self.skipped[name] = f"{type(module).__name__} is not part of any prunable group{mend}"
        structure.unfactorable = self.checker.unfactorable(set(structure.owners))
        structure.skipped = {name: reason for name, reason in self.skipped.items() if not self.is_cut(name)}
        return structure

    def _refuse_those_that_need_two(self) -> None:
        """Drop groups without which all could be cut to a single channel: squeeze() takes that dimension away, say."""
        if not self.accepted or not self.checker.reason_for_one(_structure(self.model, self.accepted)):
            return
        for candidate in list(self.accepted):
            reason = self.checker.reason_for_one(_structure(self.model, [candidate]))
            if reason:
                self.accepted.remove(candidate)
                self.skipped |= dict.fromkeys([candidate.root, *self._named(candidate)], reason)

    @staticmethod
    def _named(candidate: Candidate) -> list[str]:
        """Layers to name where a candidate can't be cut; projections of attention go by the name of their layer."""
        return candidate.producers if candidate.kind != "attention" else []

    def _stream(self, candidate: Candidate) -> str:
        """Why a candidate whose channels are features of a layer norm can't be cut: mean and variance are of all of them."""
        paths = {slot.tensor.rpartition(".")[0] for slot in candidate.slots}
        norms = [path for path in paths if type(self.model.get_submodule(path)) is nn.LayerNorm]
        return f"{STREAM} by {min(norms)}; residual_width=True cuts such widths" if norms else ""

    def _free(self, tensor: str, dim: int) -> NDArray[np.bool_]:
        return self._taken.setdefault((tensor, dim), np.zeros(self._sizes[tensor][dim], dtype=bool))

    def _conflict(self, candidate: Candidate) -> str:
        tied = {slot.tensor.rpartition(".")[0] for slot in candidate.slots if slot.tensor in self._tied}
        if tied:
            return f"{min(tied)} shares a tensor with another layer"
        for slot in candidate.slots:
            # A parametrised weight (weight_norm, spectral_norm) is computed anew in every pass and is no parameter to cut.
            if slot.tensor not in self._sizes:
                return f"{slot.tensor} is not a plain parameter"
            if slot.positions.max(initial=0) >= self._sizes[slot.tensor][slot.dim] or not _even(slot, candidate.size):
                return f"its channels can't be followed into {slot.tensor.rpartition('.')[0]}"
        shared = any(self._free(slot.tensor, slot.dim)[slot.positions].any() for slot in candidate.slots)
        return "shares tensor positions with another group" if shared else ""

    def _check(self, candidate: Candidate) -> str:
        """Why the group can't be cut, or an empty string."""
        if candidate.size < 2:
            return SINGLE
        return self.checker.reason(_structure(self.model, [candidate]))


def _even(slot: Slot, size: int) -> bool:
    """Whether every channel owns as many of the positions, which costs rely on."""
    owned = np.bincount(slot.channels, minlength=size)
    return bool((owned == owned[0]).all())


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached."""
    return {name: t.detach() for name, t in itertools.chain(model.named_parameters(), model.named_buffers())}


def execution_order(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Numbers of the layers that run, in the order in which they first do."""
    order: dict[str, int] = {}

    def hook_of(name: str) -> Any:
        def hook(*_: Any) -> None:
            order.setdefault(name, len(order))

        return hook

    handles = [hooks.before(module, hook_of(name)) for name, module in model.named_modules()]
    with torch.no_grad(), hooks.attached(handles):
        call(model, inputs)
    return order


def _structure(model: nn.Module, candidates: list[Candidate]) -> Structure:
    sizes = {name: t.shape for name, t in tensors_of(model).items()}
    axes: dict[tuple[str, int], Axis] = {}
    groups = []
    for index, candidate in enumerate(candidates):
        for slot in candidate.slots:
            size = sizes[slot.tensor][slot.dim]
            axis = axes.setdefault((slot.tensor, slot.dim), Axis(np.full(size, -1), np.full(size, -1)))
            axis.group[slot.positions], axis.channel[slot.positions] = index, slot.channels
        producers, consumers = tuple(dict.fromkeys(candidate.producers)), tuple(dict.fromkeys(candidate.consumers))
        groups.append(Group(candidate.root, candidate.kind, candidate.size, producers, consumers))
    return Structure(model, groups, axes)
