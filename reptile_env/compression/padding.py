"""Which tokens of a batch are padding: what a network makes of them is never looked at, so refits leave them out."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# Arguments by which layers are told, and whether True (or 1) means padding there.
_MASKS = {"attention_mask": False, "key_padding_mask": True, "src_key_padding_mask": True}


class Padding:
    """The padding of the batch that a network runs on, as the latest mask among its layers' arguments says.

    Args:
        model: the network; masks are seen while `handles` are attached.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._real: Tensor | None = None

    def handles(self) -> list[RemovableHandle]:
        """Hooks that watch for masks, to be removed by the caller."""
        watched = []
        for module in self._model.modules():
            names = list(inspect.signature(module.forward).parameters)
            if any(name in _MASKS for name in names):
                watched.append(module.register_forward_pre_hook(self._hook_of(names), with_kwargs=True))
        return watched

    def real_rows(self, layer: nn.Module, inputs: Any) -> Tensor | None:
        """Numbers of the rows of a linear layer's input ``(n, tokens, features)`` that are no padding; None: all of them."""
        known = self._real
        if not isinstance(layer, nn.Linear) or known is None or not isinstance(inputs, Tensor) or inputs.shape[:-1] != known.shape:
            return None
        return torch.nonzero(known.flatten()).flatten()

    def _hook_of(self, names: list[str]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(names, args, strict=False)) | kwargs
            for name, padded in _MASKS.items():
                mask = given.get(name)
                # Floating-point masks and those of more dimensions are derived from the one that is looked for.
                if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.is_floating_point():
                    self._real = mask == 0 if padded else mask != 0

        return hook
