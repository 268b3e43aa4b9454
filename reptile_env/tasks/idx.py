"""The idx format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reptile_env.tasks.download import Resource, data_folder, fetch


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
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}; fetch it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes; fetch it again")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start]) if len(data) >= start else ()
    if not shape or len(data) - start != math.prod(shape):
        kind = "truncated" if not shape or len(data) - start < math.prod(shape) else "too long"
        raise ValueError(f"{path} is {kind}: its header says {shape}, {max(0, len(data) - start):,} bytes follow; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def read_labelled(folder: Path, part: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey images ``(n, height, width)`` and their classes ``(n,)`` from two files named as MNIST's are, gzipped or not.

    Args:
        folder: where ``{part}-images-idx3-ubyte`` and ``{part}-labels-idx1-ubyte`` lie, among whatever else.
        part: ``train`` or ``t10k``.
        classes: labels are below it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see `read_idx`; other dimensions, no image, numbers that differ, or a label out of range.
    """
    paths = [_plain_or_gzipped(folder / f"{part}-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; put the official file there, or name another folder")
    pixels, targets = (read_idx(path) for path in paths)
    for path, array, dims, what in zip(paths, (pixels, targets), (3, 1), ("images (n, height, width)", "labels (n,)"), strict=True):
        if array.ndim != dims or not array.size:
            raise ValueError(f"{path} holds an array of shape {array.shape} where {what} are expected; fetch it again")
    if len(pixels) != len(targets):
        raise ValueError(f"{paths[0]} holds {len(pixels):,} images, {paths[1]} {len(targets):,} labels; fetch both again")
    if targets.max() >= classes:
        raise ValueError(f"{paths[1]} holds label {targets.max()}; labels are 0 to {classes - 1}. Fetch it again")
    return pixels, targets


def fetch_idx(folder: str, address: str, files: Mapping[str, str]) -> Path:
    """The folder of the data folder that holds idx files; those that are not there, gzipped or not, are downloaded.

    Args:
        folder: in the data folder.
        address: of the folder that they are downloaded from.
        files: SHA-256 by name, which ends in ``.gz``.

    Raises:
        ConnectionError, ValueError, OSError: see `reptile_env.tasks.download.fetch`.
    """
    for name, sha256 in files.items():
        resource = Resource(name, f"{address}/{name}", sha256, folder)
        if not _plain_or_gzipped(resource.path).is_file():
            fetch(resource)
    return data_folder() / folder


def _plain_or_gzipped(path: Path) -> Path:
    """The unpacked file beside a gzipped one, or in its place; else that one."""
    plain = path.with_suffix("")
    return plain if plain.is_file() else path
