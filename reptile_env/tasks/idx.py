"""The idx format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from an idx file, gzipped or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an idx file of bytes, or shorter or longer than its header says.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}; fetch it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    dims = data[3]
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims]) if len(data) >= 4 + 4 * dims else ()
    if len(data) - 4 - 4 * dims != int(np.prod(shape, dtype=np.int64)) or not shape:
        raise ValueError(f"{path} is truncated: its header says {shape}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape).copy()
