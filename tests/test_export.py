"""One output of a compressed network, however it is run: in eager mode, loaded both ways, in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import reptile_env
from reptile_env.compression.modules import Factored, Quantized
from reptile_env.compression.packing import codes_of
from reptile_env.compression.stand_ins import output_axis
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import make_settings
from reptile_env.saving import Compressed
from reptile_env.tasks.splits import Inputs, Split, call, map_inputs, tensors_of
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, first, made
from tests.compression.networks import CASES, build
from tests.helpers import random_plan

QUICK = {"grouped", "gru"}
EXPORTED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
    for name in (*KINDS, "residual", "depthwise", "signal", "reused")
    if name != "packed"
]
LEVELS: dict[str, tuple[int | None, float | None]] = {"floats": (None, None), "factors of 5 bits": (5, 0.6)}


def network(name: str) -> tuple[nn.Module, Inputs]:
    """A dense network of a kind, and 40 inputs."""
    if name in CASES:
        return build(CASES[name]), CASES[name].inputs(40, torch.Generator().manual_seed(2))
    return made(name)[0], torch.randn(40, *KINDS[name][1], generator=torch.Generator().manual_seed(2))


def compressed(name: str, bits: int | None = None, rank: float | None = None) -> tuple[Compressed, Inputs]:
    """The network cut to a random plan."""
    model, inputs = network(name)
    data = Split(inputs, torch.zeros(40))
    task = Task(model, data[:20], data[20:], metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    settings = {"recovery": "none", "rounding": "nearest"}
    evaluator = live_evaluator(task, make_settings(**settings))
    plan = random_plan(evaluator.group_names, evaluator.sizes, np.random.default_rng(3))
    for group in range(len(evaluator.sizes)):
        plan = plan.replace(group, bits=bits, rank=rank)
    return reptile_env.compress(task, plan, **settings), inputs


def in_onnx_runtime(path: Path, inputs: Inputs, exact: bool) -> NDArray[np.float32]:
    """The first output; `exact`: as the graph stands, without integer kernels."""
    options = onnxruntime.SessionOptions()
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    names = [entry.name for entry in session.get_inputs()]
    given = dict(zip(names, (t.numpy() for t in tensors_of(inputs)), strict=True))
    output: NDArray[np.float32] = session.run(None, given)[0]
    return output


def beginning(inputs: Inputs, count: int) -> Inputs:
    return map_inputs(lambda t: t[:count], inputs)


def check_int8(path: Path, model: nn.Module) -> None:
    """Every quantized weight is its codes in int8, and no float copy of it is left."""
    graph = onnx.load(str(path)).graph
    arrays = [onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer]
    constants = [node.attribute[0] for node in graph.node if node.op_type == "Constant"]
    arrays += [onnx.numpy_helper.to_array(constant.t) for constant in constants if constant.HasField("t")]
    codes = [array for array in arrays if array.dtype == np.int8 and array.ndim]
    layers = [module for module in model.modules() if isinstance(module, Quantized)]
    weights = [(module, leaf) for module in layers for leaf in module.scaled]
    assert weights
    for module, leaf in weights:
        expected = codes_of(getattr(module.layer, leaf), module.scale(leaf), output_axis(module.layer)).numpy()
        assert any(array.shape == expected.shape and (array == expected).all() for array in codes), leaf
    operators = [node.op_type for node in graph.node]
    # Layers that read the same input share its rounding.
    assert operators.count("QuantizeLinear") >= len({(module.input_scale, module.input_zero_point) for module in layers})
    assert operators.count("DequantizeLinear") >= len(weights)
    # What is left in floats: biases, norms, scales; none of the weights.
    coded = sum(getattr(module.layer, leaf).numel() for module, leaf in weights)
    held = sum(t.numel() for t in model.state_dict().values())
    numbers = sum(array.size for array in arrays if array.dtype == np.float32)
    assert numbers <= held - coded + 64


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("levels", LEVELS)
def test_outputs_are_the_same_however_the_network_is_run(name: str, levels: str, tmp_path: Path) -> None:
    small, inputs = compressed(name, *LEVELS[levels])
    folder = small.save(tmp_path / "network")
    for loaded in (reptile_env.load(folder), reptile_env.load(folder, into=network(name)[0])):
        for count in (1, 5, 40):
            got, expected = (first(call(model, beginning(inputs, count))) for model in (loaded.model, small.model))
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    path = small.export_onnx(tmp_path / "network.onnx")
    quantized = LEVELS[levels][0] is not None
    if quantized:
        check_int8(path, small.model)
    outputs = first(call(small.model, inputs)).numpy()
    for count in (1, 5, 40):
        given, expected = beginning(inputs, count), outputs[:count]
        error = np.abs(in_onnx_runtime(path, given, exact=quantized) - expected).reshape(count, -1).max(1)
        if not quantized:
            assert error.max() < 1e-4
            continue
        # A sum that ends on a tie is rounded up here and down there: then one input level differs, and all that follows from it.
        assert np.mean(error < 1e-4) >= 0.95 or count < 40
        # Integer kernels, which ONNX Runtime chooses by default, round biases and outputs too.
        error = np.append(error, np.abs(in_onnx_runtime(path, given, exact=False) - expected).ravel())
        assert error.max() < 0.01 * np.ptp(outputs)


@pytest.mark.parametrize("bits", [None, 4])
def test_packed_sequences_are_saved_for_their_own_class_alone(bits: int | None, tmp_path: Path) -> None:
    small, inputs = compressed("packed", bits)
    for write in (small.save, small.export_onnx):
        # The line of the network's own code that torch stumbles over.
        with pytest.raises(
            ValueError, match=r"torch\.export can't follow this network \(kinds\.py:\d+: packed, _ = self\.recurrent"
        ):
            write(tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="with_program=False"):
        small.save(tmp_path / "out")
    folder = small.save(tmp_path / "network", with_program=False)
    loaded = reptile_env.load(folder, into=network("packed")[0])
    torch.testing.assert_close(call(loaded.model, inputs), call(small.model, inputs), atol=0, rtol=0)
    with pytest.raises(ValueError, match="saved without a program; load it with into="):
        reptile_env.load(folder)


class Fixed(nn.Module):
    def __init__(self, lines: str) -> None:
        super().__init__()
        self.a, self.b, self.lines = nn.Linear(8, 12), nn.Linear(12, 4), lines

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        if self.lines == "branch" and y.sum() > 1e6:
            return -y
        return y


def test_what_cant_be_exported_is_named(tmp_path: Path) -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    task = Task(Fixed("branch"), (x[:20], x[:20, 0].gt(0).long()), (x[20:], x[20:, 0].gt(0).long()))
    small = reptile_env.compress(task, {"a": {"keep": [0, 3]}}, recovery="none")
    with pytest.raises(ValueError, match=r'test_export\.py:\d+: if self\.lines == "branch" and y\.sum\(\) > 1e6'):
        small.save(tmp_path / "network")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [None, 0.5])
def test_quantized_networks_of_other_types_are_saved(dtype: torch.dtype, rank: float | None, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).to(dtype)
        x, y = torch.randn(40, 8).to(dtype), torch.randint(0, 5, (40,))
    plan = {name: {"keep": range(12), "bits": 8} | ({} if rank is None else {"rank": rank}) for name in ("0", "2")}
    task = Task(model, (x[:20], y[:20]), (x[20:], y[20:]))
    small = reptile_env.compress(task, json.loads(json.dumps(plan, default=list)))
    folder = small.save(tmp_path / "network")
    for into in (None, model):
        loaded = reptile_env.load(folder, into=into)
        torch.testing.assert_close(loaded.model(x), small.model(x), atol=1e-5, rtol=0)
        assert loaded.model(x).dtype == dtype
    path = small.export_onnx(tmp_path / "network.onnx")
    if dtype == torch.bfloat16:  # ONNX Runtime has no such kernels
        return
    got = in_onnx_runtime(path, x, exact=True)
    np.testing.assert_allclose(got, small.model(x).numpy(), atol=1e-5 if dtype == torch.float64 else 5e-3)


@pytest.mark.parametrize("name", ["generator", "grouped", "1-d"])
def test_stand_ins_are_put_where_they_were(name: str, tmp_path: Path) -> None:
    small, _ = compressed(name, bits=4, rank=0.5)
    loaded = reptile_env.load(small.save(tmp_path / "network"), into=network(name)[0])
    kinds = {path: type(module) for path, module in small.model.named_modules()}
    assert {path: type(module) for path, module in loaded.model.named_modules()} == kinds
    assert {Factored, Quantized} <= set(kinds.values())
    state, again = small.model.state_dict(), loaded.model.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())
    assert _attributes(loaded.model) == _attributes(small.model)


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Sizes that layers know of themselves."""
    names = ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "kernel_size", "stride")
    return {
        f"{path}.{name}": getattr(module, name) for path, module in model.named_modules() for name in names if name in vars(module)
    }


def test_an_exported_network_is_left_as_it_was(tmp_path: Path) -> None:
    small, inputs = compressed("gru", bits=8)
    before: dict[str, Tensor] = {name: t.clone() for name, t in small.model.state_dict().items()}
    output = call(small.model, inputs)
    small.export_onnx(tmp_path / "network.onnx")
    assert all(torch.equal(t, before[name]) for name, t in small.model.state_dict().items())
    assert [type(m) for m in small.model.modules()].count(Quantized) == 2
    torch.testing.assert_close(call(small.model, inputs), output, atol=0, rtol=0)
