"""Where each tensor lies among packed ones, and how it is stored there; read from a file as if it came from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reptile_env.compression.cost import packed_bytes
from reptile_env.compression.plan import HIGHEST_BITS, LOWEST_BITS

DTYPES = {
    str(dtype): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    )
}
# What an entry of each encoding holds beside shape, dtype, encoding and offset.
ENCODINGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "sparse": ("kept",),
    "codes": ("bits", "axis", "scale"),
    "sparse codes": ("kept", "bits", "axis", "scale"),
}
MEND = "save the network again"
_MOST_DIMS, _LARGEST = 16, 2**40


@dataclass(frozen=True)
class Coding:
    """How a weight is stored; all left out: as it is.

    Attributes:
        kept: how many elements are left where single weights were removed; None: all, so there is no bitmap.
        bits: of each code; None: values as they are.
        axis: dimension that counts outputs.
        scale: name of the tensor that holds the step of each output.
    """

    kept: int | None = None
    bits: int | None = None
    axis: int = 0
    scale: str = ""

    @property
    def encoding(self) -> str:
        """Its name in the layout."""
        return " ".join((["sparse"] if self.kept is not None else []) + (["codes"] if self.bits is not None else [])) or "plain"


@dataclass(frozen=True)
class Entry:
    """One tensor of a layout: what it is, how it is stored, and where."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    coding: Coding

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bitmap_bytes(self) -> int:
        """Bytes of the bitmap, which comes first."""
        return 0 if self.coding.kept is None else int(packed_bytes(self.numel, 1))

    @property
    def stored(self) -> int:
        """Elements whose values or codes are there."""
        return self.numel if self.coding.kept is None else self.coding.kept

    @property
    def length(self) -> int:
        """Bytes in all."""
        bits = self.dtype.itemsize * 8 if self.coding.bits is None else self.coding.bits
        return self.bitmap_bytes + int(packed_bytes(self.stored, bits))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        head = {"shape": list(self.shape), "dtype": str(self.dtype), "encoding": self.coding.encoding, "offset": self.offset}
        return head | {name: getattr(self.coding, name) for name in ENCODINGS[self.coding.encoding]}


def read_layout(layout: Any, available: int) -> dict[str, Entry]:
    """The entries of a layout, checked: they follow one another and end with the data.

    Args:
        layout: JSON, from anywhere.
        available: bytes of the data.

    Raises:
        ValueError: anything that `pack` does not write.
    """
    if not isinstance(layout, dict):
        raise ValueError(f"the layout of the packed tensors must be an object, got {type(layout).__name__}; {MEND}")
    entries: dict[str, Entry] = {}
    end = 0
    for name, given in layout.items():
        entry = entries[name] = _entry(name, given)
        if entry.offset != end:
            raise ValueError(f"{name}: offset {entry.offset}, but the tensor before it ends at {end}; {MEND}")
        end += entry.length
        if end > available:
            raise ValueError(f"{name}: ends at byte {end} of {available}; {MEND}")
    if end != available:
        raise ValueError(f"the tensors take {end} bytes of {available}; {MEND}")
    for name, entry in entries.items():
        if entry.coding.bits is not None:
            scale = entries.get(entry.coding.scale)
            if scale is None or (scale.coding, scale.dtype, scale.shape) != (
                Coding(),
                torch.float32,
                (entry.shape[entry.coding.axis],),
            ):
                raise ValueError(f"{name}: its scale {entry.coding.scale!r} is not a plain float32 number for each output; {MEND}")
    return entries


def _entry(name: str, given: Any) -> Entry:
    """One entry, checked by itself."""
    if not isinstance(given, dict) or not isinstance(given.get("encoding"), str) or given["encoding"] not in ENCODINGS:
        known = ", ".join(map(repr, ENCODINGS))
        raise ValueError(f"{name}: an entry with an 'encoding' of {known} is needed, got {given!r:.120}; {MEND}")
    expected = {"shape", "dtype", "encoding", "offset", *ENCODINGS[given["encoding"]]}
    if set(given) != expected:
        raise ValueError(f"{name}: encoding {given['encoding']!r} has exactly {sorted(expected)}, got {sorted(given)}; {MEND}")
    shape, dtype = _shape(name, given)
    if not whole(given["offset"]):
        raise ValueError(f"{name}: offset {given['offset']!r:.80} is no byte position; {MEND}")
    coding = Coding(**{key: given[key] for key in ENCODINGS[given["encoding"]]})
    if coding.kept is not None and not (whole(coding.kept) and coding.kept <= math.prod(shape)):
        raise ValueError(f"{name}: kept {coding.kept!r:.80} is no number of its {math.prod(shape)} elements; {MEND}")
    if coding.bits is not None:
        if not whole(coding.bits) or not LOWEST_BITS <= coding.bits <= HIGHEST_BITS or not dtype.is_floating_point:
            raise ValueError(f"{name}: codes of {coding.bits!r:.80} bits of {dtype} are unknown; {MEND}")
        if not whole(coding.axis) or coding.axis >= len(shape) or not isinstance(coding.scale, str):
            raise ValueError(
                f"{name}: axis {coding.axis!r:.80} is no dimension of shape {list(shape)}, or its scale no name; {MEND}"
            )
    return Entry(shape, dtype, given["offset"], coding)


def _shape(name: str, given: Mapping[str, Any]) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an entry, checked."""
    shape, dtype = given.get("shape"), given.get("dtype")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS or not all(whole(size) for size in shape):
        raise ValueError(f"{name}: shape {shape!r:.80} is no list of sizes; {MEND}")
    if math.prod(max(size, 1) for size in shape) > _LARGEST:
        raise ValueError(f"{name}: shape {shape!r:.80} is too large; {MEND}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name}: dtype {dtype!r:.80} is unknown; {MEND}")
    return tuple(shape), DTYPES[dtype]


def whole(value: Any) -> bool:
    """Whether a JSON value is a whole number from 0, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
