"""Examples of one split, held in memory as tensors."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from reptile_env.errors import first_line

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
        # By name: two dicts may hold the same in another order. As bytes: numpy has no bfloat16.
        inputs = dict(sorted(self.inputs.items())) if isinstance(self.inputs, dict) else self.inputs
        flat = [t.detach().reshape(len(self), -1).contiguous() for t in tensors_of(inputs)]
        columns = [t.view(torch.uint8).numpy() for t in flat]
        return {hashlib.blake2b(b"".join(c[i].tobytes() for c in columns), digest_size=16).digest() for i in range(len(self))}


def as_split(data: Any, name: str) -> Split:
    """A `Split` from an ``(inputs, targets)`` pair, a Dataset or a DataLoader.

    Tensors and arrays are copied. A DataLoader is read in its dataset's own order with its own collate function, so that
    neither shuffling nor the global generators touch the result; of a ``SubsetRandomSampler`` the indices are read, ascending.

    Raises:
        TypeError: `data` is none of these.
        ValueError: no examples, inputs and targets that differ in number, NaN or infinity, examples of different shapes, tensors
            that are not on the CPU, or a DataLoader that draws its examples in another way.
    """
    if isinstance(data, Split):
        split = data
    elif isinstance(data, DataLoader):
        split = _from_dataset(_sampled(data, name), data.collate_fn, name)
    elif isinstance(data, Dataset):
        split = _from_dataset(data, default_collate, name)
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, targets = data
        if isinstance(inputs, Mapping):
            inputs = {key: _as_tensor(value, f"{name}: inputs[{key!r}]") for key, value in inputs.items()}
        elif isinstance(inputs, (tuple, list)) and all(isinstance(value, (Tensor, np.ndarray)) for value in inputs):
            inputs = tuple(_as_tensor(value, f"{name}: inputs") for value in inputs)
        elif not isinstance(inputs, (tuple, list)):
            inputs = _as_tensor(inputs, f"{name}: inputs")
        split = Split(tuple(inputs) if isinstance(inputs, list) else inputs, _as_tensor(targets, f"{name}: targets"))
    else:
        raise TypeError(f"{name}: expected (inputs, targets), a Dataset or a DataLoader, got {type(data).__name__}")
    return _checked(split, name)


def _checked(split: Split, name: str) -> Split:
    for tensor in tensors_of(split.inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: inputs must be tensors, got {type(tensor).__name__}")
        for each in (tensor, split.targets):
            if each.device.type != "cpu":
                raise ValueError(f"{name}: tensors are on {each.device}; networks are measured on the CPU: give tensor.cpu()")
        if tensor.dim() == 0 or split.targets.dim() == 0 or len(tensor) != len(split.targets):
            raise ValueError(f"{name}: inputs {tuple(tensor.shape)} and targets {tuple(split.targets.shape)} differ in examples")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: inputs hold NaN or infinity; clean the data first")
    if split.targets.is_floating_point() and not torch.isfinite(split.targets).all():
        raise ValueError(f"{name}: targets hold NaN or infinity; clean the data first")
    if not tensors_of(split.inputs) or len(split) == 0:
        raise ValueError(f"{name}: the split has size 0; give it at least one example")
    return split


def _sampled(loader: DataLoader[Any], name: str) -> Any:
    """The dataset that a loader goes through once, whatever the order."""
    sampler, dataset = loader.sampler, loader.dataset
    plain_batches = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    if plain_batches and type(sampler) is SubsetRandomSampler:
        return Subset(dataset, sorted(sampler.indices))
    whole = type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    if plain_batches and (whole or type(sampler) is SequentialSampler or isinstance(dataset, IterableDataset)):
        return dataset
    kind = type(sampler if plain_batches else loader.batch_sampler).__name__
    raise ValueError(f"{name}: a DataLoader with a {kind} gives no fixed set of examples; pass Subset(dataset, indices) instead")


@contextlib.contextmanager
def own_generators(seed: int = 0) -> Iterator[None]:
    """The global generators of torch on the CPU, numpy and random, seeded, and afterwards as they were; no other is touched."""
    python, numpy_ = random.getstate(), np.random.get_state()  # noqa: NPY002 (datasets draw from it)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_)  # noqa: NPY002


def _from_dataset(dataset: Any, collate: Callable[[list[Any]], Any], name: str) -> Split:
    with own_generators():
        if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
            items = [dataset[i] for i in range(len(dataset))]
        else:
            items = list(dataset)
        if not items:
            raise ValueError(f"{name}: the split has size 0; give it at least one example")
        try:
            batch = collate(items)
        except RuntimeError as error:
            raise ValueError(
                f"{name}: the examples can't be put into one batch: {first_line(error)}; give all the same shape: pad those that "
                "are shorter, or pass a DataLoader whose collate_fn does"
            ) from error
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"{name}: every item must be an (inputs, target) pair")
    inputs, targets = batch
    if isinstance(inputs, Mapping):
        inputs = dict(inputs)
    return Split(tuple(inputs) if isinstance(inputs, list) else inputs, _as_tensor(targets, f"{name}: targets"))


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        # A copy: what happens later to the user's array must change no measurement.
        return torch.as_tensor(values).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be tensors or arrays of numbers, got {type(values).__name__}: {error}") from error
