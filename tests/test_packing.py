"""Packed tensors: the same values come back, in just the bytes that costs claim, and nothing else is read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reptile_env.compression import packing
from reptile_env.compression.cost import packed_bytes, sparse_bytes
from reptile_env.compression.layout import DTYPES, Coding, read_layout
from reptile_env.compression.packing import pack, unpack


def on_grid(shape: tuple[int, ...], bits: int, axis: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A weight of whole numbers of random steps, and the steps."""
    top = packing.top_code(bits)
    codes = torch.randint(-top, top + 1, shape, generator=generator)
    scale = torch.rand(shape[axis], generator=generator) + 0.01
    return codes * scale.view([-1 if dim == axis else 1 for dim in range(len(shape))]), scale


def holes(weight: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    """`weight`, zero but for `kept` elements."""
    flat = torch.zeros(weight.numel())
    flat[torch.randperm(weight.numel(), generator=generator)[:kept]] = 1
    return weight * flat.view_as(weight)


def same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(got[name], tensor), name


@given(
    bits=st.sampled_from([None, 2, 3, 4, 5, 6, 7, 8]),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    axis=st.integers(0, 1),
    share=st.sampled_from([None, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_weights_come_back_in_the_bytes_that_costs_claim(
    bits: int | None, shape: tuple[int, ...], axis: int, share: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    axis = min(axis, len(shape) - 1)
    weight, scale = on_grid(shape, bits or 8, axis, generator)
    kept = None if share is None else int(share * weight.numel())
    if kept is not None:
        weight = holes(weight, kept, generator)
    tensors = {"before": torch.arange(3), "weight": weight, "weight_scale": scale, "after": torch.rand(2, 0, 3)}
    coding = Coding(kept, bits, axis if bits else 0, "weight_scale" if bits else "")
    data, layout = pack(tensors, {"weight": coding})
    each = 32 if bits is None else bits
    expected = packed_bytes(weight.numel(), each) if kept is None else sparse_bytes(weight.numel(), kept, each)
    assert data.numel() == 3 * 8 + expected + 4 * shape[axis]
    same(unpack(data, layout), tensors)


def test_other_types_come_back_as_they_are() -> None:
    values = torch.tensor([0.0, -0.0, 1.5, float("nan"), float("-inf"), 1e-40])
    tensors: dict[str, Tensor] = {str(dtype): torch.arange(5).to(dtype) for dtype in DTYPES.values()}
    tensors |= {"odd floats": values, "number": torch.tensor(7), "turned": torch.rand(3, 4).T, "yes": torch.tensor([True, False])}
    data, layout = pack(tensors, {})
    assert data.numel() == sum(t.nbytes for t in tensors.values())
    for name, tensor in unpack(data, layout).items():
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, tensors[name])]
        assert torch.equal(*raw), name
        assert tensor.shape == tensors[name].shape


def test_codes_lie_lowest_bit_first_without_gaps() -> None:
    # 001, 010, 111, 100 of three bits: the second byte takes up where the first is full.
    packed = packing.pack_bits(np.array([1, 2, 7, 4], dtype=np.uint8), 3)
    assert packed.tolist() == [0b11_010_001, 0b0000_100_1]
    assert packing.unpack_bits(packed, 3, 4).tolist() == [1, 2, 7, 4]


def test_long_tensors_are_packed_in_blocks() -> None:
    codes = np.random.default_rng(0).integers(0, 7, 2 * packing._BLOCK + 5).astype(np.uint8)
    packed = packing.pack_bits(codes, 3)
    assert len(packed) == packed_bytes(len(codes), 3)
    assert (packing.unpack_bits(packed, 3, len(codes)) == codes).all()


def test_kept_weights_that_were_rounded_to_zero_take_the_room_that_is_claimed() -> None:
    weight, scale = torch.zeros(4, 8), torch.ones(4)
    weight[0, 0], weight[1, 3] = 3.0, -2.0
    data, layout = pack({"w": weight, "s": scale}, {"w": Coding(10, 4, 0, "s")})
    assert data.numel() == 4 + 5 + 16
    same(unpack(data, layout), {"w": weight, "s": scale})


@pytest.mark.parametrize(
    ("weight", "coding", "message"),
    [
        (torch.tensor([[0.5, 1.0]]), Coding(None, 4, 0, "s"), "not whole numbers of its scales"),
        (torch.tensor([[8.0, 1.0]]), Coding(None, 4, 0, "s"), "beyond 7 steps"),
        (torch.tensor([[float("nan"), 1.0]]), Coding(None, 4, 0, "s"), "not whole numbers"),
        (torch.tensor([[2.0, 1.0]]), Coding(1), "2 of 2 weights are not zero, and the plan keeps 1"),
        (torch.tensor([[2.0, 1.0]]), Coding(3), "the plan keeps 3"),
    ],
)
def test_weights_that_do_not_fit_their_coding_are_refused(weight: Tensor, coding: Coding, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack({"w": weight, "s": torch.ones(1)}, {"w": coding})


@pytest.fixture(scope="module")
def packed() -> tuple[Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    dense, scale = on_grid((6, 5), 3, 0, generator)
    sparse, other = on_grid((6, 5), 4, 1, generator)
    tensors = {
        "dense": dense,
        "dense_scale": scale,
        "sparse": holes(sparse, 7, generator),
        "sparse_scale": other,
        "floats": holes(torch.rand(9, generator=generator), 4, generator),
        "flag": torch.tensor([True]),
    }
    codings = {"dense": Coding(None, 3, 0, "dense_scale"), "sparse": Coding(7, 4, 1, "sparse_scale"), "floats": Coding(4)}
    data, layout = pack(tensors, codings)
    same(unpack(data, layout), tensors)
    return data, layout


Layout = dict[str, Any]
TAMPERED: dict[str, tuple[Callable[[Layout], Any], str]] = {
    "unknown encoding": (lambda r: r["dense"].update(encoding="zip"), "encoding"),
    "encoding of another type": (lambda r: r["dense"].update(encoding=["codes"]), "encoding"),
    "an encoding with other keys": (lambda r: r["dense"].update(encoding="plain"), "has exactly"),
    "another key": (lambda r: r["flag"].update(more=1), "has exactly"),
    "no key": (lambda r: r["sparse"].pop("kept"), "has exactly"),
    "no entry": (lambda r: r.update(dense=None), "an entry"),
    "shape of another size": (lambda r: r["dense"].update(shape=[6, 6]), "scale|ends|offset"),
    "shape turned": (lambda r: r["dense"].update(shape=[5, 6]), "float32 number for each output"),
    "shape with a bool": (lambda r: r["flag"].update(shape=[True]), "no list of sizes"),
    "shape with a fraction": (lambda r: r["flag"].update(shape=[1.0]), "no list of sizes"),
    "negative sizes": (lambda r: r["dense"].update(shape=[-6, -5]), "no list of sizes"),
    "a huge shape": (lambda r: r["flag"].update(shape=[10**9] * 4), "too large"),
    "a huge empty shape": (lambda r: r["flag"].update(shape=[0, 10**30]), "too large"),
    "a large shape": (lambda r: r["flag"].update(shape=[10**11]), "ends at byte"),
    "many dimensions": (lambda r: r["flag"].update(shape=[1] * 100), "no list of sizes"),
    "unknown dtype": (lambda r: r["floats"].update(dtype="torch.load"), "dtype"),
    "another dtype": (lambda r: r["floats"].update(dtype="torch.float64"), "ends at byte|offset"),
    "codes of whole numbers": (lambda r: r["dense"].update(dtype="torch.int32"), "codes of"),
    "offset within another": (lambda r: r["dense_scale"].update(offset=1), "offset 1, but the tensor before"),
    "offset beyond": (lambda r: r["flag"].update(offset=10**20), "offset"),
    "negative offset": (lambda r: r["dense"].update(offset=-1), "no byte position"),
    "offset of a bool": (lambda r: r["dense"].update(offset=False), "no byte position"),
    "one bit": (lambda r: r["dense"].update(bits=1), "codes of 1 bits"),
    "nine bits": (lambda r: r["dense"].update(bits=9), "codes of 9 bits"),
    "bits as text": (lambda r: r["dense"].update(bits="3"), "codes of"),
    "fewer bits": (lambda r: r["dense"].update(bits=2), "offset"),
    "another axis": (lambda r: r["dense"].update(axis=1), "float32 number for each output"),
    "no such axis": (lambda r: r["dense"].update(axis=2), "no dimension"),
    "no such scale": (lambda r: r["dense"].update(scale="../scale"), "its scale"),
    "itself as scale": (lambda r: r["dense"].update(scale="dense"), "its scale"),
    "scale of another length": (lambda r: r["dense"].update(scale="sparse_scale"), "its scale"),
    "more kept": (lambda r: r["sparse"].update(kept=9), "offset|marks"),
    "as many bytes": (lambda r: r["sparse"].update(kept=8), "marks 7 elements, not 8"),
    "kept beyond all": (lambda r: r["sparse"].update(kept=31), "kept 31"),
    "kept below none": (lambda r: r["sparse"].update(kept=-1), "kept -1"),
    "an entry gone": (lambda r: r.pop("flag"), "bytes of"),
    "one more": (lambda r: r.update(more=copy.deepcopy(r["flag"])), "offset"),
    "none": (lambda r: r.clear(), "bytes of"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_layout_is_refused(what: str, packed: tuple[Tensor, dict[str, Any]]) -> None:
    data, layout = packed[0], copy.deepcopy(packed[1])
    change, message = TAMPERED[what]
    change(layout)
    with pytest.raises(ValueError, match=message) as error:
        unpack(data, layout)
    assert "save the network again" in str(error.value)


@pytest.mark.parametrize("layout", [None, [], "layout", 3])
def test_a_layout_that_is_none_is_refused(layout: Any) -> None:
    with pytest.raises(ValueError, match="must be an object"):
        unpack(torch.zeros(4, dtype=torch.uint8), layout)


@pytest.mark.parametrize(
    ("name", "byte", "value", "message"),
    [
        ("dense", 0, 0xFF, "code 7 is out of range"),
        ("dense", -1, 0xFF, "beyond the last|out of range"),
        ("sparse", 0, 0xFF, "the bitmap marks"),
        ("sparse", 3, 0xC0, "bits beyond the last one"),
        ("dense_scale", 3, 0xFF, "negative or not finite"),
        ("flag", 0, 2, "neither 0 nor 1"),
    ],
)
def test_changed_bytes_that_pack_never_writes_are_refused(
    name: str, byte: int, value: int, message: str, packed: tuple[Tensor, dict[str, Any]]
) -> None:
    data, layout = packed[0].clone(), packed[1]
    entries = read_layout(layout, data.numel())
    data[entries[name].offset + (byte if byte >= 0 else entries[name].length + byte)] = value
    with pytest.raises(ValueError, match=message):
        unpack(data, layout)
