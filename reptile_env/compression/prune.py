"""Cutting a network to a plan: really smaller tensors, or the same tensors with the removed channels zeroed."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.compression.bounded import Bounded
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import HEAD_COUNTS, is_depthwise

if TYPE_CHECKING:
    from reptile_env.compression.groups import Axis, Structure

QUERIES = ("query", "q_proj", "q_lin")  # the projection of queries in other libraries' attention layers


def kept_positions(axis: Axis, structure: Structure, plan: Plan) -> NDArray[np.int64]:
    """Positions along `axis` that `plan` keeps, ascending."""
    keep = axis.group < 0
    for index in np.unique(axis.group[axis.group >= 0]):
        kept = np.zeros(structure.groups[index].size, dtype=bool)
        kept[list(plan.keep[index])] = True
        mine = axis.group == index
        keep[mine] = kept[axis.channel[mine]]
    return np.flatnonzero(keep)


class IndexMaps:
    """Kept positions of every axis, looked up by what the plan keeps of the groups that own it.

    Args:
        structure: of the network.
        limit: bytes of positions that are remembered.
    """

    def __init__(self, structure: Structure, limit: int = 2**25) -> None:
        self._structure = structure
        self._groups = {key: tuple(int(g) for g in np.unique(axis.group[axis.group >= 0])) for key, axis in structure.axes.items()}
        sizes = [tuple(range(group.size)) for group in structure.groups]
        self._whole = {key: tuple(sizes[g] for g in groups) for key, groups in self._groups.items()}
        self._of_tensor: dict[str, tuple[int, ...]] = {}
        for (name, _), groups in self._groups.items():
            self._of_tensor[name] = tuple(sorted({*self._of_tensor.get(name, ()), *groups}))
        self._all = {name: tuple(sizes[g] for g in groups) for name, groups in self._of_tensor.items()}
        self._dims = collections.defaultdict(list)
        for name, dim in structure.axes:
            self._dims[name].append(dim)
        self._known: Bounded[Any, Tensor | None] = Bounded(limit, lambda _, t: 200 + (0 if t is None else t.nbytes))

    @property
    def tensors(self) -> Mapping[str, Sequence[int]]:
        """For each tensor that plans shrink the dimensions along which they do."""
        return self._dims

    def kept(self, name: str, plan: Plan) -> tuple[Any, ...]:
        """What `plan` keeps of all groups that own positions of a tensor."""
        return tuple(plan.keep[g] for g in self._of_tensor.get(name, ()))

    def whole(self, name: str) -> tuple[Any, ...]:
        """What the dense network keeps of the groups that own positions of a tensor."""
        return self._all[name]

    def kept_along(self, name: str, dim: int, plan: Plan) -> tuple[Any, ...]:
        """What `plan` keeps of the groups that own positions along one dimension."""
        return tuple(plan.keep[g] for g in self._groups.get((name, dim), ()))

    def positions(self, name: str, dim: int, plan: Plan) -> Tensor | None:
        """Positions that `plan` keeps, ascending, int64; None: all."""
        axis = self._structure.axes.get((name, dim))
        if axis is None or self.kept_along(name, dim, plan) == self._whole[name, dim]:
            return None
        key = name, dim, self.kept_along(name, dim, plan)
        found = self._known.get(key)
        if found is None:
            found = self._known.put(key, torch.from_numpy(kept_positions(axis, self._structure, plan)))
        return found


def cut(state: Mapping[str, Tensor], structure: Structure, plan: Plan) -> dict[str, Tensor]:
    """The tensors that `plan` shrinks, shrunk; tensors that it leaves whole are not in the result.

    Args:
        state: dense parameters and buffers by name.
        structure: groups of the network.
        plan: what to keep.
    """
    shrunk: dict[str, Tensor] = {}
    for (name, dim), axis in structure.axes.items():
        positions = kept_positions(axis, structure, plan)
        if len(positions) < len(axis.group):
            shrunk[name] = shrunk.get(name, state[name]).index_select(dim, torch.from_numpy(positions))
    return shrunk


def zeroed(state: Mapping[str, Tensor], structure: Structure, plan: Plan) -> dict[str, Tensor]:
    """As `cut`, but every removed position is set to zero instead: the reference that the cut network must equal."""
    masked: dict[str, Tensor] = {}
    for (name, dim), axis in structure.axes.items():
        positions = kept_positions(axis, structure, plan)
        if len(positions) < len(axis.group):
            mask = torch.zeros(len(axis.group), dtype=state[name].dtype)
            mask[torch.from_numpy(positions)] = 1
            shape = [1] * state[name].dim()
            shape[dim] = -1
            masked[name] = masked.get(name, state[name]) * mask.view(shape)
    return masked


def install(model: nn.Module, tensors: Mapping[str, Tensor], dense: nn.Module | None = None) -> None:
    """Put tensors into `model` by name and let its layers' attributes (channels, features, groups) follow.

    Args:
        model: the network to change.
        tensors: parameters and buffers by name.
        dense: the dense network, where `model` may be cut already: a depthwise layer cut to one channel looks like any other.

    Raises:
        KeyError: a name that is no parameter or buffer of `model`.
    """
    touched = {}
    module, last = model, ""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        if path != last:
            module, last = _at(model, path), path
        if _is_there(module, leaf, tensor):
            continue
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        elif leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            raise KeyError(f"{name} is no parameter or buffer of the network")
        touched[path] = module
    for path, module in touched.items():
        _follow(module, module if dense is None else _at(dense, path))
    for path in {path.rpartition(".")[0] for path in touched if path}:
        _follow_heads(_at(model, path))


def _at(model: nn.Module, path: str) -> nn.Module:
    """`nn.Module.get_submodule`, which asks twice at every dot, for networks that are cut hundreds of times a second."""
    for name in path.split(".") if path else ():
        model = model._modules[name]  # type: ignore[assignment]
    return model


def _is_there(module: nn.Module, leaf: str, tensor: Tensor) -> bool:
    """Whether a layer has this very tensor already."""
    now: Tensor | None = module._parameters.get(leaf)
    now = module._buffers.get(leaf) if now is None else now
    return (
        now is not None
        and now.data_ptr() == tensor.data_ptr()
        and now.shape == tensor.shape
        and now.stride() == tensor.stride()
        and now.dtype == tensor.dtype
        and tensor.numel() > 0
    )


def _follow(module: Any, dense: Any) -> None:
    """Attributes of a layer from the shapes of its tensors and the kind of layer that it is in the dense network."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        if is_depthwise(dense):
            multiplier = dense.out_channels // dense.groups
            module.out_channels = module.weight.shape[0]
            module.groups = module.in_channels = module.out_channels // multiplier
        elif module.transposed:
            module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        else:
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
        kept = weight if weight is not None else module.running_mean
        if kept is not None:
            module.num_features = len(kept)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.RNNBase):
        recurrent: Any = module
        module.hidden_size, module.input_size = recurrent.weight_hh_l0.shape[1], recurrent.weight_ih_l0.shape[1]
        # The module runs on this list, not on the parameters of these names.
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _follow_heads(module: nn.Module) -> None:
    """Number of heads of another library's attention layer from the width of its projections."""
    if module._modules.keys().isdisjoint(QUERIES):
        return
    width = next((getattr(module, n) for n in ("attention_head_size", "head_dim", "dim_per_head") if hasattr(module, n)), None)
    query = next((getattr(module, n) for n in QUERIES if isinstance(getattr(module, n, None), nn.Linear)), None)
    if not isinstance(width, int) or query is None:
        return
    for name, value in [*((n, query.out_features // width) for n in HEAD_COUNTS), ("all_head_size", query.out_features)]:
        if isinstance(module.__dict__.get(name), int):
            setattr(module, name, value)
