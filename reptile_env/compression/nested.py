"""Tensors in tuples, lists, dicts and packed sequences: what networks take and give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

_FEW = 2  # examples of a result that nothing reads any more


def each_tensor(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A structure with a function of each of its tensors in their place."""

    def leaf(item: Any) -> Any:
        if isinstance(item, PackedSequence):
            return item._replace(data=function(item.data)) if function is not few else item
        return function(item) if isinstance(item, Tensor) else item

    return pytree.tree_map(leaf, value)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a structure of tuples, lists and dicts."""
    leaves = [item.data if isinstance(item, PackedSequence) else item for item in pytree.tree_leaves(value)]
    return [item for item in leaves if isinstance(item, Tensor)]


def few(tensor: Tensor) -> Tensor:
    """The first examples of a tensor."""
    return tensor[:_FEW].clone() if tensor.dim() else tensor


def spoil(value: Any) -> Any:
    """A few examples of each tensor, all NaN."""
    return each_tensor(lambda t: torch.full_like(few(t), float("nan")), value)


def spoilable(value: Any) -> bool:
    """Whether a structure holds floating-point tensors alone."""
    leaves = pytree.tree_leaves(value)
    return all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves)


def unaltered(first: Tensor, second: Tensor) -> bool:
    """Whether a tensor is as it was, NaN where it was NaN."""
    return first.shape == second.shape and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))


def equal(first: Any, second: Any) -> bool:
    """Whether two structures hold the same tensors, to the last bit."""
    one, other = tensors_in(first), tensors_in(second)
    return len(one) == len(other) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))
