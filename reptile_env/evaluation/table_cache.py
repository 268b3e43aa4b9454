"""Unpacked tables in the user's cache folder, memory-mapped, so that many processes share one copy."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from reptile_env.compression.latency_file import VARIABLE, folder
from reptile_env.evaluation.table_file import Columns, write_whole

ALIGNMENT = 64
CHECK_BYTES = 4  # a checksum at the end: a cache can be damaged too


def mapped(digest: str, rows: int, dtypes: Mapping[str, str], unpack: Callable[[], Columns]) -> Columns:
    """The columns of a table, read-only; unpacked at first use and mapped from the cache folder from then on.

    Where the folder can't be written they are held in memory, and a warning says so.

    Args:
        digest: of the table's content.
        rows: of the table.
        dtypes: of the columns, by name.
        unpack: makes the columns.
    """
    names = " ".join(f"{name}:{dtype}" for name, dtype in dtypes.items())
    path = folder() / f"table-{digest[:32]}-{zlib.crc32(names.encode()):08x}.bin"
    known = _read(path, rows, dtypes)
    if known is not None:
        return known
    columns = unpack()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _joined(columns, dtypes))
    except OSError as error:
        warnings.warn(
            f"the table can't be unpacked to {path} ({error}), so this process holds its own copy in memory; set {VARIABLE} to a "
            "folder that can be written",
            stacklevel=2,
        )
        return _frozen(columns)
    return _read(path, rows, dtypes) or _frozen(columns)


def _offsets(rows: int, dtypes: Mapping[str, str]) -> tuple[list[int], int]:
    starts, end = [], 0
    for dtype in dtypes.values():
        starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = starts[-1] + rows * np.dtype(dtype).itemsize
    return starts, end


def _joined(columns: Columns, dtypes: Mapping[str, str]) -> bytes:
    starts, end = _offsets(len(next(iter(columns.values()))), dtypes)
    data = bytearray(end)
    for start, (name, dtype) in zip(starts, dtypes.items(), strict=True):
        raw = np.ascontiguousarray(columns[name], dtype).tobytes()
        data[start : start + len(raw)] = raw
    return bytes(data) + zlib.crc32(data).to_bytes(CHECK_BYTES, "little")


def _read(path: Path, rows: int, dtypes: Mapping[str, str]) -> Columns | None:
    """The mapped columns; None where there is no such file, or a damaged one, which is then unpacked anew."""
    starts, end = _offsets(rows, dtypes)
    try:
        if path.stat().st_size != end + CHECK_BYTES:
            return None
        data = np.asarray(np.memmap(path, np.uint8, "r"))  # a plain array: reading one number of it costs a tenth
    except (OSError, ValueError):
        return None
    if zlib.crc32(data[:end].data) != int.from_bytes(data[end:].tobytes(), "little"):
        return None
    return {
        name: data[start : start + rows * np.dtype(dtype).itemsize].view(dtype)
        for start, (name, dtype) in zip(starts, dtypes.items(), strict=True)
    }


def _frozen(columns: Columns) -> Columns:
    for column in columns.values():
        column.setflags(write=False)
    return columns
