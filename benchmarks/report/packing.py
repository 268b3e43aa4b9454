"""Columns of numbers as a few bytes inside the page; page/blocks.js unpacks them."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 8  # bytes: typed arrays begin where their numbers may lie
_DTYPES = {"f4": "<f4", "f8": "<f8", "u1": "<u1", "u2": "<u2", "u4": "<u4"}


def pack(columns: Mapping[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], str]:
    """Columns, compressed and in base64.

    Whole numbers are kept exactly; others in single precision, 7 digits, which is more than the page shows.

    Args:
        columns: bool, whole numbers from 0 to 2**53, or floats, of any shape; rows go one after the other.

    Returns:
        What is where: name, dtype, offset in bytes and length of each; and the text.
    """
    listed, parts, offset = [], [], 0
    for name, column in columns.items():
        dtype = _dtype(column)
        data = np.ascontiguousarray(column, _DTYPES[dtype]).tobytes()
        listed.append({"name": name, "dtype": dtype, "offset": offset, "length": int(column.size)})
        data += bytes(-len(data) % ALIGNMENT)
        offset += len(data)
        parts.append(data)
    return listed, base64.b64encode(gzip.compress(b"".join(parts), mtime=0)).decode()


def unpack(listed: list[dict[str, Any]], text: str) -> dict[str, NDArray[Any]]:
    """The columns that `pack` packed, flat."""
    data = gzip.decompress(base64.b64decode(text))
    return {each["name"]: np.frombuffer(data, _DTYPES[each["dtype"]], each["length"], each["offset"]) for each in listed}


def _dtype(column: NDArray[Any]) -> str:
    if column.dtype == bool:
        return "u1"
    if column.dtype.kind == "f":
        return "f4"
    most = int(column.max(initial=0))
    return next(name for name, top in (("u1", 2**8), ("u2", 2**16), ("u4", 2**32), ("f8", 2**53 + 1)) if most < top)
