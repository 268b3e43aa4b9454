"""Files in the format of MNIST, for tests of its readers."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array in the idx format."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_part(folder: Path, part: str, count: int, size: int = 28, zipped: bool = True, seed: int = 0) -> NDArray[np.uint8]:
    """Random images of a part, ``train`` or ``t10k``, and their labels 0 to 9; returns the labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, size, size), dtype=np.uint8)
    labels = generator.permutation(np.arange(count) % 10).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = gzip.compress(idx(array), 1) if zipped else idx(array)
        (folder / f"{part}-{name}-ubyte{'.gz' * zipped}").write_bytes(data)
    return labels
