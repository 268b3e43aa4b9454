"""A run on disk: a JSON head and typed columns, compressed together and held together by SHA-256. No pickle.

Layout: `MAGIC`, SHA-256 of the payload (32 bytes), the payload in XZ. The payload is the length of the head (4 bytes,
little-endian), the head as JSON, and the columns one after the other. The head lists them under ``columns``: name, dtype, shape,
and how each is coded.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAMILY = b"reptile run "  # of every version
MAGIC = FAMILY + b"1\n"
HASH_BYTES, LENGTH_BYTES = 32, 4
LONGEST = 2**28  # bytes of a payload: a forged file can't fill the memory
DTYPES = ("bool", "int64", "float64")
_WHOLE = ("<i1", "<i2", "<i4", "<i8")
PRESET = 6 | lzma.PRESET_EXTREME

Columns = dict[str, NDArray[Any]]


def pack(head: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> bytes:
    """A run as the bytes of a file.

    Args:
        head: JSON-able; NaN is allowed.
        columns: bool, int64 or float64, of any shape.

    Raises:
        ValueError: a column of another dtype, or a head that has columns of its own.
    """
    if "columns" in head:
        raise ValueError("the head of a run lists its columns itself; leave 'columns' out")
    listed, parts = [], []
    for name, column in columns.items():
        if str(column.dtype) not in DTYPES:
            raise ValueError(f"column {name!r}: dtype {column.dtype} is none of {', '.join(DTYPES)}")
        coding, data = _encoded(column)
        parts.append(data)
        listed.append({"name": name, "dtype": str(column.dtype), "shape": column.shape, "coding": coding, "bytes": len(data)})
    text = json.dumps({**head, "columns": listed}, separators=(",", ":")).encode()
    payload = b"".join([len(text).to_bytes(LENGTH_BYTES, "little"), text, *parts])
    return MAGIC + hashlib.sha256(payload).digest() + lzma.compress(payload, check=lzma.CHECK_NONE, preset=PRESET)


def unpack(data: bytes) -> tuple[dict[str, Any], Columns]:
    """Head and columns of what `pack` gave.

    Raises:
        ValueError: not a run, one of another version, or damaged; the message says which.
    """
    if not data.startswith(MAGIC):
        kind = "is a run of another version of this program" if data.startswith(FAMILY) else "is no run of this benchmark"
        raise ValueError(kind)
    start = len(MAGIC) + HASH_BYTES
    payload = _decompressed(data[start:])
    if hashlib.sha256(payload).digest() != data[len(MAGIC) : start]:
        raise ValueError("is damaged: it is not what its hash says")
    length = int.from_bytes(payload[:LENGTH_BYTES], "little")
    at = LENGTH_BYTES + length
    try:
        head = json.loads(payload[LENGTH_BYTES:at])
        columns: Columns = {}
        for entry in head.pop("columns"):
            columns[entry["name"]] = _decoded(entry, payload[at : at + entry["bytes"]])
            at += entry["bytes"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        # Its hash is right, so somebody wrote it so.
        raise ValueError(f"does not hold what a run holds: {type(error).__name__}: {error}") from error
    if at != len(payload):
        raise ValueError("does not hold what a run holds: there is more than its columns")
    return head, columns


def _decompressed(data: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        payload = decompressor.decompress(data, LONGEST)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"is damaged: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("is damaged: it has not the length that it should have")
    return payload


def _encoded(column: NDArray[Any]) -> tuple[str, bytes]:
    """The coding and the column in it: whole numbers as narrow as they can be, floats by their place among those that occur."""
    if column.dtype != np.float64:
        kind = _narrowest(column)
        return kind, _planes(column.astype(kind))
    plain = np.ascontiguousarray(column, "<f8")
    # As whole numbers of the same bits, so that -0.0 and NaN come back as they were.
    values, places = np.unique(plain.reshape(-1).view("<i8"), return_inverse=True)
    if 2 * len(values) > column.size or len(values) >= 2**15:
        return "f8", _planes(plain)
    kind = _narrowest(np.array([0, len(values)]))
    return f"{len(values)} of {kind}", _planes(values) + _planes(places.astype(kind))


def _decoded(entry: Mapping[str, Any], data: bytes) -> NDArray[Any]:
    shape, coding, dtype = tuple(entry["shape"]), entry["coding"], entry["dtype"]
    if dtype not in DTYPES:
        raise ValueError(f"column {entry['name']!r} has dtype {dtype!r}")
    size = math.prod(shape)
    if coding in _WHOLE:
        return _joined(data, coding, size).astype(dtype).reshape(shape)
    if coding == "f8":
        return _joined(data, "<f8", size).astype(dtype).reshape(shape)
    count, _, kind = coding.partition(" of ")
    if kind not in _WHOLE:
        raise ValueError(f"column {entry['name']!r} is coded as {coding!r}")
    values = _joined(data[: 8 * int(count)], "<i8", int(count)).astype(np.int64)
    return values[_joined(data[8 * int(count) :], kind, size)].view(np.float64).reshape(shape)


def _narrowest(column: NDArray[Any]) -> str:
    low, high = (int(column.min()), int(column.max())) if column.size else (0, 0)
    return next(kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def _planes(column: NDArray[Any]) -> bytes:
    """First bytes of all numbers, then all second ones, and so on: neighbours are alike."""
    return np.frombuffer(column.tobytes(), np.uint8).reshape(-1, column.dtype.itemsize).T.tobytes()


def _joined(data: bytes, kind: str, size: int) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    if len(data) != width * size:
        raise ValueError(f"{len(data)} bytes where {width * size} are needed")
    return np.frombuffer(np.frombuffer(data, np.uint8).reshape(width, size).T.tobytes(), kind)
