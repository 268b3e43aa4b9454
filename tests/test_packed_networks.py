"""Networks with few bits, holes and factors, saved: as small as claimed, the same when loaded, refused when altered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

import reptile_env
from reptile_env.compression.layout import read_layout
from reptile_env.compression.modules import Factored, Quantized
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import make_settings
from reptile_env.saving import Compressed
from reptile_env.tasks.digits import network

UNSTRUCTURED, TWO_OF_FOUR = {"granularity": "unstructured"}, {"granularity": "2:4"}
# name -> (rate, bits, rank, settings)
CASES: dict[str, tuple[float, int | None, float | None, dict[str, str]]] = {
    "8 bits": (0.3, 8, None, {}),
    "4 bits": (0.3, 4, None, {"rounding": "data-aware"}),
    "3 bits": (0.3, 3, None, {}),
    "2 bits, nothing cut": (0.0, 2, None, {}),
    "unstructured": (0.8, None, None, UNSTRUCTURED),
    "unstructured, few gone": (0.02, None, None, UNSTRUCTURED),
    "2:4": (0.5, None, None, TWO_OF_FOUR),
    "unstructured, 4 bits": (0.8, 4, None, UNSTRUCTURED),
    "2:4, 8 bits": (0.5, 8, None, TWO_OF_FOUR),
    "low rank, 4 bits": (0.2, 4, 0.5, {}),
}


def compressed(
    rate: float, bits: int | None = None, rank: float | None = None, task: str = "digits-cnn", **settings: str
) -> Compressed:
    """A built-in network, every group cut alike."""
    settings = {"recovery": "none", "rounding": "nearest"} | settings
    evaluator = live_evaluator(task, make_settings(**settings))
    plan = evaluator.dense
    for group, size in enumerate(evaluator.sizes):
        plan = evaluator.cut(plan, group, int(rate * size)).replace(group, bits=bits, rank=rank)
    return reptile_env.compress(task, plan, **settings)


@pytest.mark.parametrize("case", CASES)
def test_the_file_is_as_large_as_claimed_and_loads_the_same(case: str, tmp_path: Path) -> None:
    rate, bits, rank, settings = CASES[case]
    small = compressed(rate, bits, rank, **settings)
    folder = small.save(tmp_path / "network")
    path = folder / "network.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size - header == small.measurement.bytes
    assert path.stat().st_size < 1.01 * small.measurement.bytes
    loaded, own = reptile_env.load(folder), reptile_env.load(folder, into=network(small.task))
    assert (own.plan, own.measurement, own.task) == (small.plan, small.measurement, small.task)
    state = small.model.state_dict()
    assert list(own.model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.model.state_dict().items())
    images = torch.rand(7, 1, 8, 8)
    for other in (loaded, own):
        torch.testing.assert_close(other.model(images), small.model(images), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compressed, dict[str, bytes]]:
    """A quantized network with factors, and its files."""
    small = compressed(0.3, 4, 0.5, "digits-mlp")
    folder = small.save(tmp_path_factory.mktemp("whole") / "network")
    return small, {path.name: path.read_bytes() for path in folder.iterdir()}


def rewritten(folder: Path, files: dict[str, bytes], change: Callable[[dict[str, Any]], Any], data: Tensor | None = None) -> Path:
    """The saved folder with a changed record and, where given, other tensors under a hash that fits."""
    record = json.loads(files["plan.json"])
    files = dict(files)
    if data is not None:
        files["network.safetensors"] = save({"packed": data})
        record["sha256"]["network.safetensors"] = hashlib.sha256(files["network.safetensors"]).hexdigest()
    change(record)
    files["plan.json"] = json.dumps(record).encode()
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def of_kind(record: dict[str, Any], kind: str) -> str:
    return next(path for path, given in record["stand_ins"].items() if given == kind)


def renamed(table: dict[str, Any], old: str, new: str) -> None:
    """One key under another name, its place kept."""
    items = [(new if name == old else name, value) for name, value in table.items()]
    table.clear()
    table.update(items)


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a plan of other bits": lambda r: next(iter(r["plan"].values())).update(bits=5),
    "a plan of no bits": lambda r: [entry.pop("bits") for entry in r["plan"].values()],
    "a plan of no rank": lambda r: [entry.pop("rank") for entry in r["plan"].values()],
    "no stand-ins": lambda r: r["stand_ins"].clear(),
    "a quantized layer less": lambda r: r["stand_ins"].pop(of_kind(r, "quantized")),
    "a factored layer less": lambda r: r["stand_ins"].pop(of_kind(r, "factored")),
    "a layer of another kind": lambda r: r["stand_ins"].update({of_kind(r, "quantized"): "factored"}),
    "kinds that are lists": lambda r: r["stand_ins"].update({of_kind(r, "quantized"): ["quantized"]}),
    "a stand-in within another": lambda r: r["stand_ins"].update({of_kind(r, "quantized") + ".layer": "quantized"}),
    "the empty path": lambda r: r["stand_ins"].update({"": "quantized"}),
    "a path with tricks": lambda r: renamed(r["stand_ins"], of_kind(r, "quantized"), "../../etc"),
    "a tensor under another name": lambda r: renamed(r["tensors"], next(iter(r["tensors"])), "../../etc/passwd"),
    "an input scale less": lambda r: renamed(r["tensors"], of_kind(r, "quantized") + ".input_scale", "other"),
    "other bits": lambda r: next(e for e in r["tensors"].values() if e["encoding"] == "codes").update(bits=5),
    "an encoding that is unknown": lambda r: next(iter(r["tensors"].values())).update(encoding="pickle"),
    "the scale of another layer": lambda r: next(e for e in r["tensors"].values() if e["encoding"] == "codes").update(scale="x"),
    "a huge shape": lambda r: next(iter(r["tensors"].values())).update(shape=[2**62, 2**62]),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_record_is_refused(what: str, whole: tuple[Compressed, dict[str, bytes]], tmp_path: Path) -> None:
    folder = rewritten(tmp_path / "changed", whole[1], TAMPERED[what])
    for into in (None, network("digits-mlp")):
        before = None if into is None else {name: t.clone() for name, t in into.state_dict().items()}
        with pytest.raises(ValueError, match=r"save the network again|give the dense network"):
            reptile_env.load(folder, into=into)
        if into is not None and before is not None:
            assert all(torch.equal(t, before[name]) for name, t in into.state_dict().items())


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("input_scale", torch.tensor(float("nan")), "input scale nan"),
        ("input_scale", torch.tensor(0.0), "input scale 0.0"),
        ("input_scale", torch.tensor(-1.0), "input scale -1.0"),
        ("input_zero_point", torch.tensor(256, dtype=torch.int32), "zero point 256"),
        ("input_zero_point", torch.tensor(-1, dtype=torch.int32), "zero point -1"),
        ("weight_scale", torch.tensor(float("inf")), "negative or not finite"),
        ("weight_scale", torch.tensor(-1.0), "negative or not finite"),
    ],
)
def test_grids_out_of_range_are_refused(
    tensor: str, value: Tensor, message: str, whole: tuple[Compressed, dict[str, bytes]], tmp_path: Path
) -> None:
    files = whole[1]
    record, data = json.loads(files["plan.json"]), load(files["network.safetensors"])["packed"].clone()
    name = next(name for name in record["tensors"] if name.endswith(f".{tensor}"))
    offset = read_layout(record["tensors"], data.numel())[name].offset
    data[offset : offset + 4] = value.reshape(1).view(torch.uint8)
    folder = rewritten(tmp_path / "changed", files, lambda r: None, data)
    for into in (None, network("digits-mlp")):
        with pytest.raises(ValueError, match=message):
            reptile_env.load(folder, into=into)


def test_a_plan_that_keeps_another_number_of_weights_is_refused(tmp_path: Path) -> None:
    folder = compressed(0.8, **UNSTRUCTURED).save(tmp_path / "network")
    record = json.loads((folder / "plan.json").read_text())
    name = next(iter(record["plan"]))
    record["plan"][name]["keep"] -= 1
    record["measurement"]["sparsity"][0] = 1 - record["plan"][name]["keep"] / record["dense"]["groups"][name]["size"]
    (folder / "plan.json").write_text(json.dumps(record))
    for into in (None, network("digits-cnn")):
        with pytest.raises(ValueError, match="not as many as the plan says"):
            reptile_env.load(folder, into=into)


def test_data_of_another_length_is_refused(whole: tuple[Compressed, dict[str, bytes]], tmp_path: Path) -> None:
    data = load(whole[1]["network.safetensors"])["packed"]
    for name, other in {"short": data[:-1], "long": torch.cat([data, data[:1]])}.items():
        with pytest.raises(ValueError, match=r"ends at byte|bytes of"):
            reptile_env.load(rewritten(tmp_path / name, whole[1], lambda r: None, other))


def test_another_network_than_the_saved_one_is_refused(whole: tuple[Compressed, dict[str, bytes]], tmp_path: Path) -> None:
    folder = rewritten(tmp_path / "same", whole[1], lambda r: None)
    kinds = [type(module) for module in reptile_env.load(folder, into=network("digits-mlp")).model.modules()]
    assert {Factored, Quantized} <= set(kinds)
    with pytest.raises(ValueError, match="give the dense network"):
        reptile_env.load(folder, into=network("digits-cnn"))


def test_weights_off_their_grid_are_not_saved(tmp_path: Path) -> None:
    small = compressed(0.0, 4, task="digits-mlp")
    layer = next(module for module in small.model.modules() if isinstance(module, Quantized))
    layer.layer.weight.data[0, 0] += 1e-3
    with pytest.raises(ValueError, match="not whole numbers of its scales"):
        small.save(tmp_path / "network")
    assert not list(tmp_path.iterdir())
