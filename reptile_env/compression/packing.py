"""Tensors of a compressed network as one string of bytes: codes of few bits without gaps, bitmaps of what was removed.

`reptile_env.compression.cost` counts just these bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reptile_env.compression.layout import MEND, Coding, Entry, read_layout

_BLOCK = 2**20  # codes at a time, a multiple of 8: each takes `bits` bytes while it is spread out

Bytes = NDArray[np.uint8]


def pack(tensors: Mapping[str, Tensor], codings: Mapping[str, Coding]) -> tuple[Tensor, dict[str, Any]]:
    """All tensors in one uint8 tensor, and its layout.

    Args:
        tensors: by name.
        codings: of those that are not stored as they are.

    Returns:
        The bytes, and for each tensor the JSON form of its `Entry`.

    Raises:
        ValueError: a weight that is no whole number of steps, or more elements that are not zero than are to be kept.
    """
    parts: list[Bytes] = []
    layout: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        coding = codings.get(name, Coding())
        entry = Entry(tuple(tensor.shape), tensor.dtype, offset, coding)
        layout[name] = entry.to_dict()
        flat = tensor.detach().contiguous().reshape(-1)
        if coding.bits is not None:
            flat = torch.from_numpy(_codes(name, tensor.detach(), tensors[coding.scale], coding))
        if coding.kept is not None:
            mask = _mask(name, tensor.detach().reshape(-1), coding.kept)
            parts.append(np.packbits(mask, bitorder="little"))
            flat = flat[torch.from_numpy(mask)]
        parts.append(_raw(flat) if coding.bits is None else pack_bits(flat.numpy(), coding.bits))
        offset += entry.length
    data = np.concatenate([*parts, np.zeros(0, np.uint8)])
    assert len(data) == offset
    return torch.from_numpy(data), layout


def unpack(data: Tensor, layout: Any) -> dict[str, Tensor]:
    """The tensors that `pack` wrote, the same floats (a removed -0.0 comes back as 0.0).

    Raises:
        ValueError: a layout or data that `pack` never writes; nothing is allocated that the data does not account for.
    """
    entries = read_layout(layout, data.numel())
    stored = data.numpy()
    tensors: dict[str, Tensor] = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].coding.bits is not None):  # scales before codes
        scale = None if entry.coding.bits is None else tensors[entry.coding.scale]
        tensors[name] = _unpacked(name, entry, stored[entry.offset : entry.offset + entry.length], scale)
    return {name: tensors[name] for name in entries}


def pack_bits(codes: NDArray[np.uint8], bits: int) -> Bytes:
    """Codes below ``2 ** bits`` without gaps, lowest bit first."""
    parts = []
    for start in range(0, len(codes), _BLOCK):
        spread = np.unpackbits(codes[start : start + _BLOCK, None], axis=1, count=bits, bitorder="little")
        parts.append(np.packbits(spread.reshape(-1), bitorder="little"))
    return np.concatenate([*parts, np.zeros(0, np.uint8)])


def unpack_bits(data: Bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """The inverse of `pack_bits`.

    Raises:
        ValueError: bits beyond the last code are set.
    """
    parts = []
    for start in range(0, count, _BLOCK):
        block = data[start // 8 * bits : (start + _BLOCK) // 8 * bits]
        spread = np.unpackbits(block, bitorder="little")
        used = min(_BLOCK, count - start) * bits
        if spread[used:].any():
            raise ValueError("bits beyond the last one are set")
        parts.append(np.packbits(spread[:used].reshape(-1, bits), axis=1, bitorder="little")[:, 0])
    return np.concatenate([*parts, np.zeros(0, np.uint8)])


def codes_of(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """How many steps each element of a weight is, int8, of its shape.

    Raises:
        ValueError: an element that is no whole number of steps.
    """
    step = _along(scale, axis, weight.dim())
    counts = torch.where(step > 0, (weight.float() / step).round(), 0).clamp(-127, 127)
    if not torch.equal((counts * step).to(weight.dtype), weight):
        raise ValueError("its weights are not whole numbers of its scales")
    return counts.to(torch.int8)


def top_code(bits: int) -> int:
    """The largest code: grids are symmetric, so one of the ``2 ** bits`` codes stays free."""
    return int(2 ** (bits - 1)) - 1


def _codes(name: str, weight: Tensor, scale: Tensor, coding: Coding) -> NDArray[np.uint8]:
    assert coding.bits is not None
    top = top_code(coding.bits)
    try:
        codes = codes_of(weight, scale, coding.axis).reshape(-1).to(torch.int16)
    except ValueError as error:
        raise ValueError(f"{name}: {error}, so it can't be stored in {coding.bits} bits; quantize the network again") from error
    if codes.numel() and int(codes.abs().max()) > top:
        raise ValueError(
            f"{name}: a weight is beyond {top} steps, the most that {coding.bits} bits hold; quantize the network again"
        )
    shifted: NDArray[np.uint8] = (codes + top).to(torch.uint8).numpy()
    return shifted


def _mask(name: str, flat: Tensor, kept: int) -> NDArray[np.bool_]:
    """What the bitmap marks: all that is not zero, and as many zeros (kept weights that were rounded to it) as make `kept`."""
    mask: NDArray[np.bool_] = (flat != 0).numpy()
    missing = kept - int(mask.sum())
    if missing < 0 or kept > len(mask):
        raise ValueError(f"{name}: {mask.sum()} of {len(mask)} weights are not zero, and the plan keeps {kept}")
    mask[np.flatnonzero(~mask)[:missing]] = True
    return mask


def _raw(flat: Tensor) -> Bytes:
    data: Bytes = flat.contiguous().view(torch.uint8).numpy()
    return data


def _along(scale: Tensor, axis: int, dims: int) -> Tensor:
    return scale.view([-1 if dim == axis else 1 for dim in range(dims)])


def _unpacked(name: str, entry: Entry, data: Bytes, scale: Tensor | None) -> Tensor:
    coding = entry.coding
    try:
        mask = None
        if coding.kept is not None:
            mask = torch.from_numpy(unpack_bits(data[: entry.bitmap_bytes], 1, entry.numel)).bool()
            if int(mask.sum()) != coding.kept:
                raise ValueError(f"the bitmap marks {int(mask.sum())} elements, not {coding.kept}")
        body = data[entry.bitmap_bytes :]
        if coding.bits is None:
            if entry.dtype == torch.bool and (body > 1).any():
                raise ValueError("a bool that is neither 0 nor 1")
            values = torch.empty(entry.stored, dtype=entry.dtype)
            values.view(torch.uint8).numpy()[:] = body
        else:
            values = _decoded(body, entry.stored, coding.bits)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; {MEND}") from error
    if mask is not None:
        whole = torch.zeros(entry.numel, dtype=values.dtype)
        whole[mask] = values
        values = whole
    values = values.reshape(entry.shape)
    if scale is None:
        return values
    if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
        raise ValueError(f"{name}: a scale that is negative or not finite; {MEND}")
    return (values * _along(scale, coding.axis, values.dim())).to(entry.dtype)


def _decoded(body: Bytes, count: int, bits: int) -> Tensor:
    codes = unpack_bits(body, bits, count)
    top = top_code(bits)
    if count and codes.max() > 2 * top:
        raise ValueError(f"code {codes.max()} is out of range; {bits} bits hold codes up to {2 * top}")
    return torch.from_numpy(codes).float() - top
