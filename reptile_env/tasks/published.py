"""Weights that others published: read without running anything that a file may hold, and put into a network strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged or truncated one.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file that can be read: {error}; fetch it again") from error


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that ``torch.save`` wrote, bare or under ``state_dict``; of data parallel training, too.

    Nothing but tensors and plain containers is unpickled.

    Raises:
        ValueError: a damaged or truncated file, or one that holds something else.
    """
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a damaged pickle make it raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} can't be read as weights: {lines[0]}; fetch it again") from error
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping) or not held or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise ValueError(f"{path} holds no state dict (tensors by name); fetch the published one")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Put tensors into a network, every name and shape as it has them; returns it in evaluation mode.

    Args:
        model: takes the tensors.
        tensors: by the names of the network's own.
        path: where they come from, for the message.

    Raises:
        ValueError: names that are missing or not the network's, or other shapes.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    foreign = [name for name in tensors if name not in own]
    other = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if missing or foreign or other:
        parts = {"missing": missing, "not known": foreign, "of another shape": other}
        told = "; ".join(f"{what}: {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for what, names in parts.items() if names)
        raise ValueError(f"{path} does not hold the weights of this {type(model).__name__}: {told}. Fetch the published file")
    # Files older than PyTorch 0.4.1 do not count batches.
    model.load_state_dict(own | dict(tensors))
    return model.eval()
