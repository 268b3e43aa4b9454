"""Weights of the built-in networks, as safetensors. A name may begin with a folder: ``folder/name``."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor, nn


def has_checkpoint(name: str) -> bool:
    """Whether tensors of a network are there."""
    return resources.files(__name__).joinpath(f"{name}.safetensors").is_file()


def load_checkpoint(name: str) -> dict[str, Tensor]:
    """The shipped tensors of a network by name.

    Raises:
        FileNotFoundError: it was not trained yet.
    """
    if not has_checkpoint(name):
        command = f"python -m benchmarks checkpoints {name.rpartition('/')[2]} --train-only"
        raise FileNotFoundError(f"the network of {name!r} has no checkpoint yet; {command} makes it, in a checkout")
    return load(resources.files(__name__).joinpath(f"{name}.safetensors").read_bytes())


def save_checkpoint(name: str, model: nn.Module) -> Path:
    """Write a network's tensors beside the others, whole or not at all; for the script that trains them."""
    path = Path(__file__).parent / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(save({key: tensor.contiguous() for key, tensor in model.state_dict().items()}))
    os.replace(draft, path)
    return path
