"""Weights of the built-in networks, as safetensors."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor, nn


def load_checkpoint(name: str) -> dict[str, Tensor]:
    """The shipped tensors of a network by name."""
    return load(resources.files(__name__).joinpath(f"{name}.safetensors").read_bytes())


def save_checkpoint(name: str, model: nn.Module) -> Path:
    """Write a network's tensors beside the others; for the script that trains them."""
    path = Path(__file__).with_name(f"{name}.safetensors")
    path.write_bytes(save({key: tensor.contiguous() for key, tensor in model.state_dict().items()}))
    return path
