"""Saving, loading, exporting and explaining a compressed network."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

import reptile_env
from reptile_env.compression import program
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.evaluation.settings import Settings
from reptile_env.saving import Compressed
from reptile_env.tasks.digits import network
from tests.helpers import ROOT, make

TASKS = ["digits-cnn", "digits-mlp"]


@pytest.fixture(scope="module", params=TASKS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Compressed, Path]:
    small = reptile_env.compress(request.param, make(request.param).reference.uniform_plan)
    return small, small.save(tmp_path_factory.mktemp("saved") / "network")


@pytest.fixture
def saved(original: tuple[Compressed, Path], tmp_path: Path) -> tuple[Compressed, Path]:
    """A network and a folder of it that a test may alter."""
    return original[0], shutil.copytree(original[1], tmp_path / "network")


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


def _edit(folder: Path, change: Any) -> None:
    record = json.loads((folder / "plan.json").read_text())
    change(record)
    (folder / "plan.json").write_text(json.dumps(record))


def _last(record: dict[str, Any]) -> str:
    return list(record["plan"])[-1]


def _share(record: dict[str, Any]) -> None:
    """Let the sparsity say what the plan says."""
    name = _last(record)
    record["measurement"]["sparsity"][-1] = 1 - len(record["plan"][name]["keep"]) / record["dense"]["groups"][name]["size"]


TAMPERED = {
    "shape": lambda r: next(iter(r["tensors"].values())).update(shape=[1, 2]),
    "dtype": lambda r: next(iter(r["tensors"].values())).update(dtype="torch.float64"),
    "missing tensor": lambda r: r["tensors"].popitem(),
    "extra tensor": lambda r: r["tensors"].update(other={"shape": [1], "dtype": "torch.float32"}),
    "another format": lambda r: r.update(format=1),
    "a format of another type": lambda r: r.update(format="2"),
    "another key": lambda r: r.update(more=1),
    "the format before": lambda r: r.update(format=2),
    "a bool for a size": lambda r: next(iter(r["tensors"].values()))["shape"].append(True),
    "an entry that is none": lambda r: r["tensors"].update(other=None),
    "a tensor with a path": lambda r: r["tensors"].update({"../../evil": r["tensors"].popitem()[1]}),
    "a stand-in that is not there": lambda r: r["stand_ins"].update(hidden="quantized"),
    "a stand-in of another kind": lambda r: r["stand_ins"].update(hidden="pickled"),
    "a stand-in with a path": lambda r: r["stand_ins"].update({"../hidden": "factored"}),
    "a file more": lambda r: r["sha256"].update({"../../.bashrc": "0" * 64}),
    "a file less": lambda r: r["sha256"].pop("network.safetensors"),
    "a hash of another type": lambda r: r["sha256"].update({"program.pt2": None}),
    "a bool for a cost": lambda r: r["measurement"].update(params=True),
    "a channel less": lambda r: r["plan"][_last(r)]["keep"].pop(),
    "a channel less, and its share": lambda r: (r["plan"][_last(r)]["keep"].pop(), _share(r)),
    "a channel that is not there": lambda r: r["plan"][_last(r)]["keep"].__setitem__(-1, 10**6),
    "a count for a list": lambda r: r["plan"][_last(r)].update(keep=len(r["plan"][_last(r)]["keep"])),
    "bits": lambda r: r["plan"][_last(r)].update(bits=8),
    "another group": lambda r: r["plan"].update(other=r["plan"].pop(_last(r))),
    "another dense size": lambda r: r["dense"]["groups"][_last(r)].update(size=10**6),
    "another dense shape": lambda r: r["dense"]["tensors"].popitem()[1]["shape"].append(1),
    "a dense shape of strings": lambda r: next(iter(r["dense"]["tensors"].values())).update(shape=["3"]),
    "no dense network": lambda r: r["dense"].clear(),
    "a cut by nobody": lambda r: next(iter(r["dense"]["tensors"].values())).update(cuts={"0": {"nobody": 1}}),
    "a cut along no dimension": lambda r: next(iter(r["dense"]["tensors"].values())).update(cuts={"9": {}}),
    "other bytes": lambda r: r["measurement"].update(bytes=r["measurement"]["bytes"] + 1),
    "a negative time": lambda r: r["measurement"].update(latency=-1.0),
    "a negative cost": lambda r: r["measurement"].update(bytes=-1),
    "a metric that is no number": lambda r: r["measurement"].update(metric="0.9"),
    "NaN": lambda r: r["measurement"].update(metric=float("nan")),
    "infinity": lambda r: r["measurement"].update(latency=float("inf")),
    "sparsity of another length": lambda r: r["measurement"]["sparsity"].append(0.5),
    "a task that is no name": lambda r: r.update(task=["digits"]),
    "no plan": lambda r: r.pop("plan"),
    "a plan of nothing": lambda r: next(iter(r["plan"].values())).update(keep=[]),
    "measurement": lambda r: r["measurement"].pop("macs"),
    "hash": lambda r: r["sha256"].update({"program.pt2": "0" * 64}),
    "alias": lambda r: r["aliases"].update(a="../../b"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_record_is_refused(what: str, saved: tuple[Compressed, Path]) -> None:
    _, folder = saved
    _edit(folder, TAMPERED[what])
    for into in (None, network(saved[0].task)):
        with pytest.raises(ValueError, match=r"save the network again|keeps no channel"):
            reptile_env.load(folder, into=into)


@pytest.mark.parametrize("name", ["network.safetensors", "program.pt2", "plan.json"])
def test_damaged_and_missing_files_are_refused(name: str, saved: tuple[Compressed, Path]) -> None:
    _, folder = saved
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"SHA-256 differs|not the JSON"):
        reptile_env.load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        reptile_env.load(folder)


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("a pickle ran",)


def test_a_pickle_in_the_program_never_runs(saved: tuple[Compressed, Path], capsys: pytest.CaptureFixture[str]) -> None:
    small, folder = saved
    data = io.BytesIO((folder / "program.pt2").read_bytes())
    with zipfile.ZipFile(data, "a") as archive:
        prefix = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{prefix}/data/sample_inputs/other.pt", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="holds a pickle"):
        program.load(data.getvalue(), dict(small.model.state_dict()))
    assert "a pickle ran" not in capsys.readouterr().out


MISFITS = {
    "missing": lambda state, name: state.pop(name),
    "extra": lambda state, name: state.update(other=torch.zeros(1)),
    "of another shape": lambda state, name: state.update({name: state[name].T}),
    "of another dtype": lambda state, name: state.update({name: state[name].view(torch.int32)}),
}


@pytest.mark.parametrize("what", MISFITS)
def test_tensors_that_do_not_fit_the_program_are_refused(what: str, saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    data, state = (folder / "program.pt2").read_bytes(), dict(small.model.state_dict())
    name = next(name for name, t in state.items() if t.dim() == 2 and t.shape[0] != t.shape[1])
    MISFITS[what](state, name)
    for refuse in (program.check, program.load):
        with pytest.raises(ValueError, match=rf"{'other' if what == 'extra' else name}.*save the network again"):
            refuse(data, state)


@pytest.mark.parametrize(
    "member", ["data/aotinductor/model/evil.so", "data/constants/opaque_obj_0", "data/weights/model.pt", "../../evil", "extra/x"]
)
def test_members_that_save_never_writes_are_refused(member: str, saved: tuple[Compressed, Path]) -> None:
    # torch would load the first as compiled code and unpickle the next two.
    small, folder = saved
    data = io.BytesIO((folder / "program.pt2").read_bytes())
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/{member}", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"which save\(\) never writes"):
        program.load(data.getvalue(), dict(small.model.state_dict()))


@pytest.mark.parametrize(
    "entry",
    [
        {"path_name": "opaque_obj_0", "use_pickle": False},
        {"path_name": "custom_obj_0", "use_pickle": False},
        {"path_name": "tensor_0", "use_pickle": True},
        {"path_name": "../weights/weight_0", "use_pickle": False},
    ],
)
def test_constants_that_would_be_unpickled_are_refused(entry: dict[str, Any], saved: tuple[Compressed, Path]) -> None:
    small, folder = saved
    changed = io.BytesIO()
    with zipfile.ZipFile(folder / "program.pt2") as source, zipfile.ZipFile(changed, "w") as out:
        for name in source.namelist():
            constants = name.endswith("model_constants_config.json")
            out.writestr(name, json.dumps({"config": {"evil": entry}}) if constants else source.read(name))
    with pytest.raises(ValueError, match="as a pickle"):
        program.load(changed.getvalue(), dict(small.model.state_dict()))


def test_code_in_a_symbolic_size_never_runs(saved: tuple[Compressed, Path], tmp_path: Path) -> None:
    small, folder = saved
    evil = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    changed = io.BytesIO()
    with zipfile.ZipFile(folder / "program.pt2") as source, zipfile.ZipFile(changed, "w") as out:
        for name in source.namelist():
            text = source.read(name)
            if name.endswith("model.json"):
                before = text
                text = text.replace(b"Symbol(", f"{evil} or Symbol(".encode())
                assert text != before
            out.writestr(name, text)
    with pytest.raises(ValueError, match="unexpected symbolic size"):
        program.load(changed.getvalue(), dict(small.model.state_dict()))
    assert not (tmp_path / "ran").exists()


def test_nan_under_a_hash_that_fits_is_refused(saved: tuple[Compressed, Path]) -> None:
    _, folder = saved
    data = load_tensors((folder / "network.safetensors").read_bytes())["packed"].clone()
    data[:4] = torch.tensor([float("nan")]).view(torch.uint8)
    written = save_tensors({"packed": data})
    (folder / "network.safetensors").write_bytes(written)
    _edit(folder, lambda r: r["sha256"].update({"network.safetensors": hashlib.sha256(written).hexdigest()}))
    for into in (None, network(saved[0].task)):
        with pytest.raises(ValueError, match="holds NaN or infinity; save the network again"):
            reptile_env.load(folder, into=into)


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
