"""A saved folder that was changed or damaged is refused, and no code in it runs."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import reptile_env
from reptile_env.compression import program
from reptile_env.saving import Compressed
from reptile_env.tasks.digits import network


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
