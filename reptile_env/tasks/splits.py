"""Examples of one split, held in memory as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """`function` of every tensor of `inputs`, in the same structure."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return tuple(function(tensor) for tensor in inputs)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of `inputs`, in order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """``model(x)``, ``model(*tuple)`` or ``model(**dict)``."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


@dataclass(frozen=True)
class Split:
    """Inputs and targets of one split; the first dimension of every tensor counts examples."""

    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: slice | Tensor) -> Split:
        return Split(map_inputs(lambda t: t[rows], self.inputs), self.targets[rows])

    def batches(self, size: int) -> Iterator[Split]:
        """Consecutive batches of `size` examples, the last one shorter."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def fingerprints(self) -> set[bytes]:
        """A hash of the inputs of every example, to find examples that two splits share."""
        columns = [np.ascontiguousarray(t.detach().numpy()).reshape(len(self), -1) for t in tensors_of(self.inputs)]
        return {hashlib.blake2b(b"".join(c[i].tobytes() for c in columns), digest_size=16).digest() for i in range(len(self))}


def as_split(data: Any, name: str) -> Split:
    """A `Split` from an ``(inputs, targets)`` pair, a Dataset or a DataLoader.

    A DataLoader is read in its dataset's own order with its own collate function, so that neither shuffling nor the
    global generators touch the result.

    Raises:
        TypeError: `data` is none of these.
        ValueError: no examples, or inputs and targets that differ in number.
    """
    if isinstance(data, Split):
        split = data
    elif isinstance(data, DataLoader):
        split = _from_dataset(data.dataset, data.collate_fn, name)
    elif isinstance(data, Dataset):
        split = _from_dataset(data, default_collate, name)
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, targets = data
        if not isinstance(inputs, (dict, tuple, list)):
            inputs = _as_tensor(inputs, f"{name}: inputs")
        split = Split(tuple(inputs) if isinstance(inputs, list) else inputs, _as_tensor(targets, f"{name}: targets"))
    else:
        raise TypeError(f"{name}: expected (inputs, targets), a Dataset or a DataLoader, got {type(data).__name__}")
    return _checked(split, name)


def _checked(split: Split, name: str) -> Split:
    for tensor in tensors_of(split.inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: inputs must be tensors, got {type(tensor).__name__}")
        if tensor.dim() == 0 or split.targets.dim() == 0 or len(tensor) != len(split.targets):
            raise ValueError(f"{name}: inputs {tuple(tensor.shape)} and targets {tuple(split.targets.shape)} differ in examples")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: inputs hold NaN or infinity; clean the data first")
    if not tensors_of(split.inputs) or len(split) == 0:
        raise ValueError(f"{name}: the split has size 0; give it at least one example")
    return split


def _from_dataset(dataset: Any, collate: Callable[[list[Any]], Any], name: str) -> Split:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
            items = [dataset[i] for i in range(len(dataset))]
        else:
            items = list(dataset)
        if not items:
            raise ValueError(f"{name}: the split has size 0; give it at least one example")
        batch = collate(items)
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"{name}: every item must be an (inputs, target) pair")
    inputs, targets = batch
    return Split(tuple(inputs) if isinstance(inputs, list) else inputs, _as_tensor(targets, f"{name}: targets"))


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be tensors or arrays of numbers, got {type(values).__name__}: {error}") from error
