"""Layers that can't be cut: which of them to list, and of which to warn."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

from torch import nn

from reptile_env.compression.producers import PER_CHANNEL

if TYPE_CHECKING:
    from reptile_env.compression.groups import Structure

OUTPUT = "its channels are the network's output"
SINGLE = "it has a single channel"
STREAM = "its width is normalised as a whole"


def skipped_layers(structure: Structure) -> dict[str, str]:
    """Layers with weights that no plan shrinks, and layers that shrink on one side where both were to be expected.

    A classifier, say, reads groups, and its own outputs are never cut: it is not among them.

    Returns:
        For each layer the reason; the network's own parameters have the name ``""``.
    """
    touched = {tensor.rpartition(".")[0] for tensor in structure.tensors}
    unexpected = unexpected_layers(structure)
    return {name: reason for name, reason in structure.skipped.items() if name not in touched or name in unexpected}


def unexpected_layers(structure: Structure) -> dict[str, str]:
    """The skipped layers of which a user is warned.

    That the output stays as it is goes without saying, and so does it of normalisations and embeddings, whose width is that of
    layers that are named themselves or that of a Transformer's residual stream.
    """
    modules = dict(structure.model.named_modules())
    return {
        name: reason
        for name, reason in structure.skipped.items()
        if reason not in (OUTPUT, SINGLE)
        and not reason.startswith(STREAM)
        and not isinstance(modules.get(name), (*PER_CHANNEL, nn.Embedding))
    }


def warn_of_skipped(task: str, structure: Structure) -> None:
    """One warning that names every unexpected layer and its reason; none where there is no such layer."""
    unexpected = unexpected_layers(structure)
    if unexpected:
        listed = "; ".join(f"{name or 'the network itself'}: {reason}" for name, reason in unexpected.items())
        warnings.warn(f"task {task!r}: these layers are not cut (see task.skipped): {listed}", stacklevel=_user_level())


def _user_level() -> int:
    """The stack level, for the caller, of the first frame that is neither of this package nor of gymnasium."""
    level, frame = 1, inspect.currentframe()
    while (frame := frame and frame.f_back) and frame.f_globals.get("__name__", "").split(".")[0] in ("reptile_env", "gymnasium"):
        level += 1
    return level
