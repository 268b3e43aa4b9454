"""A table on disk: a JSON head and compressed columns, held together by SHA-256. No pickle.

Layout: `MAGIC`, SHA-256 of the head (32 bytes), length of the packed head (8 bytes, little-endian), the packed head, and the
packed columns one after the other. The head lists the columns with dtype, packed length and SHA-256 of their bytes, so that its
own hash is that of all the content.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"reptile table 1\n"
HASH_BYTES, LENGTH_BYTES = 32, 8
LONGEST_HEAD = 2**26
DTYPES = ("float64", "float32", "int64")
SUFFIX = ".table"

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Packed:
    """A table as it lies on disk; its head has been checked, its columns are when they are unpacked.

    Attributes:
        path: of the file.
        head: what is known of the table.
        digest: SHA-256 of all content, hexadecimal.
    """

    path: Path
    head: dict[str, Any]
    digest: str
    start: int

    def columns(self) -> Columns:
        """The columns, each ``(rows,)``.

        Raises:
            ValueError: damaged; nothing is returned of a damaged table.
        """
        data, at, columns = self.path.read_bytes(), self.start, {}
        for entry in self.head["columns"]:
            packed = data[at : at + entry["packed"]]
            at += entry["packed"]
            columns[entry["name"]] = _unpack_column(self.path, entry, self.head["rows"], packed)
        return columns


def write_table(path: Path, head: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table whole or not at all, over what is there.

    Args:
        path: the file; its folder is there.
        head: JSON-able; ``rows`` and ``columns`` are added.
        columns: each ``(rows,)``, float64, float32 or int64.

    Raises:
        ValueError: columns of different lengths or another dtype.
        OSError: it can't be written.
    """
    if len({column.shape for column in columns.values()}) != 1:
        raise ValueError("the columns of a table have one length")
    packed, listed = [], []
    for name, column in columns.items():
        if str(column.dtype) not in DTYPES:
            raise ValueError(f"column {name!r}: dtype {column.dtype} is none of {', '.join(DTYPES)}")
        coding, data = _pack_column(column)
        packed.append(data)
        entry = {"name": name, "dtype": str(column.dtype), "coding": coding, "packed": len(data)}
        listed.append(entry | {"sha256": hashlib.sha256(_bytes(column)).hexdigest()})
    rows = len(next(iter(columns.values())))
    text = json.dumps({**head, "rows": rows, "columns": listed}, allow_nan=False).encode()
    short = _compress(text)
    parts = [MAGIC, hashlib.sha256(text).digest(), len(short).to_bytes(LENGTH_BYTES, "little"), short, *packed]
    write_whole(path, b"".join(parts))


def read_table(path: Path) -> Packed:
    """The checked head of a table.

    Raises:
        ValueError: not a table, damaged or truncated; the message says the mend.
        OSError: it can't be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is no table of this version of reptile_env; {MEND}")
        digest, length = file.read(HASH_BYTES), int.from_bytes(file.read(LENGTH_BYTES), "little")
        text = _decompress(path, file.read(min(length, LONGEST_HEAD)), LONGEST_HEAD)
        start = file.tell()
    if hashlib.sha256(text).digest() != digest:
        raise _damaged(path, "its head is not what its hash says")
    head = json.loads(text)
    expected = start + sum(entry["packed"] for entry in head["columns"])
    if size != expected:
        raise _damaged(path, f"it has {size} bytes of {expected}")
    return Packed(path, head, digest.hex(), start)


MEND = "build it again with `python -m benchmarks table`, or install reptile_env again if the table came with it"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a draft beside it takes its place."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)  # mkstemp makes it private
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _pack_column(column: NDArray[Any]) -> tuple[str, bytes]:
    """The name of the coding that is shortest, and the column in it."""
    plain = _compress(_shuffled(column))
    values, places = np.unique(_bits(column), return_inverse=True)
    if len(values) > 2**16:
        return "shuffled", plain
    listed = len(values).to_bytes(LENGTH_BYTES, "little") + _shuffled(values) + _shuffled(places.astype("<u2"))
    coded = _compress(listed)
    return ("listed", coded) if len(coded) < len(plain) else ("shuffled", plain)


def _unpack_column(path: Path, entry: Mapping[str, Any], rows: int, packed: bytes) -> NDArray[Any]:
    name, dtype = entry["name"], np.dtype(entry["dtype"]).newbyteorder("<")
    longest = LENGTH_BYTES + (2**16 + rows) * dtype.itemsize
    data = _decompress(path, packed, longest)
    try:
        if entry["coding"] == "listed":
            count = int.from_bytes(data[:LENGTH_BYTES], "little")
            middle = LENGTH_BYTES + count * dtype.itemsize
            values = _unshuffled(data[LENGTH_BYTES:middle], dtype, count)
            column = values[_unshuffled(data[middle:], np.dtype("<u2"), rows)]
        else:
            column = _unshuffled(data, dtype, rows)
    except (ValueError, IndexError) as error:
        raise _damaged(path, f"column {name!r} has not {rows} rows") from error
    if hashlib.sha256(_bytes(column)).hexdigest() != entry["sha256"]:
        raise _damaged(path, f"column {name!r} is not what its hash says")
    return np.asarray(column, dtype.newbyteorder("="))


def _bytes(column: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes()


def _bits(column: NDArray[Any]) -> NDArray[Any]:
    """The numbers as whole numbers of the same bits, so that -0.0 and NaN come back as they were."""
    bits: NDArray[Any] = np.frombuffer(_bytes(column), f"<i{column.dtype.itemsize}")
    return bits


def _shuffled(column: NDArray[Any]) -> bytes:
    """First bytes of all numbers, then all second ones, and so on: neighbours are alike."""
    return np.frombuffer(_bytes(column), np.uint8).reshape(-1, column.dtype.itemsize).T.tobytes()


def _unshuffled(data: bytes, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, rows)
    return np.frombuffer(planes.T.tobytes(), dtype)


def _compress(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _decompress(path: Path, data: bytes, longest: int) -> bytes:
    """At most `longest` bytes, so that a forged file can't fill the memory."""
    decompressor = lzma.LZMADecompressor()
    try:
        plain = decompressor.decompress(data, longest)
    except (lzma.LZMAError, EOFError) as error:
        raise _damaged(path, str(error)) from error
    if not decompressor.eof:
        raise _damaged(path, "a part of it ends too early")
    return plain


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is damaged ({why}); {MEND}")
