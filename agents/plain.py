"""What callers hand over, as plain values: numbers that must be whole, settings that go into a trace's first line."""

from __future__ import annotations

import numbers
import os
from typing import Any

import numpy as np


def whole(what: str, given: object) -> int:
    """`given` as an int; a ``TypeError`` for anything but a whole number (a bool is none)."""
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, got {type(given).__name__} {given!r:.80}")
    return int(given)


def plain(value: Any) -> Any:
    """A setting as JSON can hold it: paths, arrays and numpy's numbers as what they say, functions by their names."""
    if callable(value):
        return getattr(value, "__name__", repr(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
