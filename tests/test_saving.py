"""Saving, loading, exporting and explaining a compressed network."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import reptile_env
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.evaluation.settings import Settings
from reptile_env.saving import Compressed
from reptile_env.tasks.digits import network
from tests.helpers import ROOT, TASKS, make


def test_loads_without_the_class_and_into_it(saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    images = torch.rand(7, 1, 8, 8)
    program_, own = reptile_env.load(folder), reptile_env.load(folder, into=network(small.task))
    for loaded in (program_, own):
        torch.testing.assert_close(loaded.model(images), small.model(images), atol=1e-5, rtol=0)
        assert (loaded.plan, loaded.measurement, loaded.task) == (small.plan, small.measurement, small.task)
        assert not loaded.model.training
    assert type(own.model) is type(network(small.task))
    with pytest.raises(ValueError, match="load the folder with into="):
        program_.model.train()
    with pytest.raises(ValueError, match="copy the folder"):
        program_.save(folder.parent / "again")


def test_loads_in_a_process_that_never_saw_the_task(saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    code = (
        "import sys, torch, reptile_env; torch.manual_seed(0); "
        f"y = reptile_env.load({str(folder)!r}).model(torch.rand(3, 1, 8, 8)); "
        "assert 'reptile_env.tasks.digits' not in sys.modules; print(y.flatten().tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    expected = small.model(torch.rand(3, 1, 8, 8)).flatten()
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, atol=1e-5, rtol=0)


def test_tensor_bytes_are_the_claimed_bytes(saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    data = (folder / "network.safetensors").read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert len(data) - 8 - header == small.measurement.bytes
    assert small.measurement.bytes < make(small.task).reference.dense.bytes


def test_no_pickle_is_written(saved: tuple[Compressed, Path]) -> None:
    with zipfile.ZipFile(saved[1] / "program.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert not any(value and name.endswith((".pt", ".pkl")) for name, value in contents.items())


def test_the_same_network_gives_the_same_files(saved: tuple[Compressed, Path], tmp_path: Path) -> None:
    small, folder = saved
    again = small.save(tmp_path / "again")
    assert (folder / "network.safetensors").read_bytes() == (again / "network.safetensors").read_bytes()


def test_a_folder_in_use_is_refused(saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="not an empty folder"):
        small.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nan_is_not_saved(tmp_path: Path) -> None:
    small = reptile_env.compress("digits-mlp", make("digits-mlp").reference.uniform_plan)
    next(small.model.parameters()).data.view(-1)[0] = float("inf")
    with pytest.raises(ValueError, match="holds NaN or infinity; compress the network again"):
        small.save(tmp_path / "network")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.85])
def test_the_file_is_as_large_as_claimed(task: str, rate: float, tmp_path: Path) -> None:
    small = reptile_env.compress(task, uniform_plan(live_evaluator(task, Settings("none")), rate), recovery="none")
    folder = small.save(tmp_path / "network", with_program=False)
    assert 1 < (folder / "network.safetensors").stat().st_size / small.measurement.bytes < 1.02


def _built(channels: int = 3, kernel: int = 3, classes: int = 5, dtype: torch.dtype = torch.float32) -> nn.Module:
    convs = nn.Conv2d(channels, 6, kernel, padding=kernel // 2), nn.ReLU(), nn.Conv2d(6, 4, 3)
    return nn.Sequential(*convs, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)).to(dtype)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"channels": 4}, "0.weight"),
        ({"kernel": 5}, "0.weight"),
        ({"classes": 7}, "6.weight"),
        ({"dtype": torch.float64}, "0.weight"),
    ],
)
def test_into_a_network_of_other_sizes_is_refused(other: dict[str, Any], name: str, tmp_path: Path) -> None:
    x, y = torch.randn(40, 3, 8, 8), torch.randint(0, 5, (40,))
    model = _built()
    task = reptile_env.Task(model, (x[:20], y[:20]), (x[20:], y[20:]))
    small = reptile_env.compress(task, {"0": {"keep": [1, 4]}, "2": {"keep": [0, 1, 2, 3]}}, recovery="none")
    folder = small.save(tmp_path / "network", with_program=False)
    assert torch.equal(reptile_env.load(folder, into=model).model(x), small.model(x))
    with pytest.raises(ValueError, match=rf"{name} is .* in into="):
        reptile_env.load(folder, into=_built(**other))


def test_into_another_network_is_refused(saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    other = TASKS[1 - TASKS.index(small.task)]
    with pytest.raises(ValueError, match="different tensors"):
        reptile_env.load(folder, into=network(other))
    with pytest.raises(TypeError, match="Module"):
        reptile_env.load(folder, into="digits-cnn")  # type: ignore[arg-type]


def test_onnx_gives_the_same_outputs(tmp_path: Path) -> None:
    small = reptile_env.compress("digits-cnn", make("digits-cnn").reference.uniform_plan)
    session = onnxruntime.InferenceSession(str(small.export_onnx(tmp_path / "small.onnx")))
    for batch in (1, 5):
        images = torch.rand(batch, 1, 8, 8)
        (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(got, small.model(images).detach().numpy(), atol=1e-4)


def test_compress_takes_the_json_form_and_refuses_other_plans() -> None:
    plan = make("digits-mlp").reference.uniform_plan
    small = reptile_env.compress("digits-mlp", json.loads(json.dumps(plan.to_dict())))
    assert small.plan == plan
    assert sum(p.numel() for p in small.model.parameters()) == small.measurement.params
    with pytest.raises(ValueError, match="are not those of task"):
        reptile_env.compress("digits-cnn", plan)
    with pytest.raises(ValueError, match="did you mean 'recovery'"):
        reptile_env.compress("digits-mlp", plan, recovry="none")


def test_explain_measures_each_neighbour() -> None:
    env = make("digits-mlp")
    plan = env.reference.uniform_plan
    explained = reptile_env.explain("digits-mlp", plan)
    assert [e.group for e in explained] == list(env.groups)
    for index, e in enumerate(explained):
        undone = env.measure(plan.replace(index, range(e.size)))
        assert e.undo_metric == pytest.approx(undone.metric - env.measure(plan).metric)
        assert e.undo_return == pytest.approx(env.reference.return_of(undone) - 1)
        assert e.undo_cost > 0 > e.deeper_cost
        assert 0 < e.saved < 1
        assert e.group in e.reason
        assert f"{e.kept} of {e.size}" in e.reason
