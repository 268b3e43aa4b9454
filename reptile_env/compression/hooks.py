"""Hooks that see a layer's first input, whether it was given by position or by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def before(layer: nn.Module, function: Callable[[Any, Any], Any]) -> RemovableHandle:
    """Call ``function(layer, first input)`` before the layer runs; what it returns, if anything, is the input instead."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not args and not kwargs:
            return None
        changed = function(module, _first(args, kwargs))
        if changed is None:
            return None
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {next(iter(kwargs)): changed}

    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def after(layer: nn.Module, function: Callable[[Any, Any, Any], Any]) -> RemovableHandle:
    """Call ``function(layer, first input, output)`` after the layer ran; what it returns, if anything, is the output instead."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return function(module, _first(args, kwargs), output)

    return layer.register_forward_hook(hook, with_kwargs=True)


@contextlib.contextmanager
def attached(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks at the end, whatever happens."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)
