"""The compressed network: built from a plan, saved, loaded, exported.

A saved network is a folder of three files, none of which holds a pickle: ``network.safetensors`` (the tensors),
``program.pt2`` (an exported program without weights, so that loading needs no class of the user's) and ``plan.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from reptile_env.compression import program, prune
from reptile_env.compression.layers import prepare
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.settings import make_settings
from reptile_env.tasks.splits import Inputs

FORMAT = 1
_PLAN, _TENSORS, _PROGRAM = "plan.json", "network.safetensors", "program.pt2"


@dataclass(frozen=True)
class Compressed:
    """A compressed network.

    Attributes:
        model: a plain `nn.Module`, really smaller, in evaluation mode.
        plan: what it keeps.
        measurement: what it measured on the validation split.
        task: name of the task.
        example: inputs of two examples, for export; None in a loaded one.
    """

    model: nn.Module
    plan: Plan
    measurement: Measurement
    task: str
    example: Inputs | None = None

    def save(self, directory: str | Path) -> Path:
        """Write the network into a new or empty folder, whole or not at all.

        Raises:
            ValueError: the folder holds something already, or this network was itself loaded from an exported program.
        """
        target = Path(directory)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"{target} exists and is not an empty folder; choose another")
        if self.example is None:
            raise ValueError("this network was loaded from a folder; copy the folder, or load it with into=")
        tensors = {name: t.detach().contiguous().clone() for name, t in _unique(self.model).items()}
        files = {_TENSORS: save_tensors(tensors), _PROGRAM: program.dump(self.model, self.example)}
        record = {
            "format": FORMAT,
            "task": self.task,
            "plan": self.plan.to_dict(),
            "measurement": asdict(self.measurement),
            "tensors": {name: {"shape": list(t.shape), "dtype": str(t.dtype)} for name, t in tensors.items()},
            "aliases": _aliases(self.model),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        files[_PLAN] = json.dumps(record, indent=1).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as draft:
            for name, data in files.items():
                Path(draft, name).write_bytes(data)
            os.chmod(draft, 0o755)
            os.rename(draft, target)
            # TemporaryDirectory removes what it made; the renamed folder is no longer there, so it needs one.
            os.mkdir(draft)
        return target

    def export_onnx(self, path: str | Path) -> Path:
        """Write an ONNX model with a dynamic batch dimension (needs ``pip install "reptile-env[onnx]"``).

        Raises:
            ImportError: the extra is missing.
            ValueError: this network was itself loaded from an exported program.
        """
        if self.example is None:
            raise ValueError("this network was loaded from a folder; compress the task again to export it")
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError('export to ONNX needs the extra: pip install "reptile-env[onnx]"') from error
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        exported = torch.onnx.export(program.trace(self.model, self.example), dynamo=True, verbose=False)
        assert exported is not None
        exported.save(str(target))
        return target


def compress(task: Any, plan: Plan | Mapping[str, Any], **settings: Any) -> Compressed:
    """The network of a task, cut to a plan.

    Args:
        task: a `Task` or the name of a built-in one.
        plan: a `Plan`, or the JSON form of one (``info["plan"]``).
        **settings: of `Settings` (``recovery="reconstruct"``, ...); those that the plan was found with.

    Raises:
        ValueError: a plan of another network, an unknown setting.
    """
    evaluator = live_evaluator(task, make_settings(**settings))
    chosen = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
    measurement = evaluator.measure(chosen)
    example = evaluator.task.valid[:2].inputs
    return Compressed(evaluator.compressed_model(chosen), chosen, measurement, evaluator.name, example)


def load(directory: str | Path, into: nn.Module | None = None) -> Compressed:
    """Load what `Compressed.save` wrote; nothing in the folder is unpickled.

    Args:
        directory: the folder.
        into: a dense network of the user's own class; a copy of it is shrunk and filled. Without it the exported program
            is loaded, which needs no class and is for inference alone.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: files that were altered, or do not fit each other or `into`.
    """
    folder = Path(directory)
    record = _read_record(folder)
    data = {}
    for name in (_TENSORS, _PROGRAM):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a saved network: {name} is missing")
        data[name] = (folder / name).read_bytes()
        if hashlib.sha256(data[name]).hexdigest() != record["sha256"].get(name):
            raise ValueError(f"{folder / name} is not the file that was saved (its SHA-256 differs); save the network again")
    try:
        tensors = load_tensors(data[_TENSORS])
    except SafetensorError as error:
        raise ValueError(f"{folder / _TENSORS} is damaged: {error}") from error
    found = {name: {"shape": list(t.shape), "dtype": str(t.dtype)} for name, t in tensors.items()}
    if found != record["tensors"]:
        different = sorted(n for n in found.keys() | record["tensors"].keys() if found.get(n) != record["tensors"].get(n))
        raise ValueError(f"{folder / _TENSORS} and {_PLAN} disagree on {', '.join(different[:5])}; save the network again")
    tensors |= {alias: tensors[name] for alias, name in record["aliases"].items()}
    model = program.load(data[_PROGRAM], tensors) if into is None else _fill(into, tensors)
    measured = record["measurement"] | {"sparsity": tuple(record["measurement"]["sparsity"])}
    return Compressed(model, Plan.from_dict(record["plan"]), Measurement(**measured), record["task"])


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / _PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved network: {_PLAN} is missing")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    expected = {"format": int, "task": str, "plan": dict, "measurement": dict, "tensors": dict, "aliases": dict, "sha256": dict}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}; save the network with this version of reptile_env")
    for key, kind in expected.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"{path}: {key!r} must be of type {kind.__name__}; save the network again")
    fields = set(Measurement.__dataclass_fields__)
    if set(record["measurement"]) != fields or not isinstance(record["measurement"]["sparsity"], list):
        raise ValueError(f"{path}: 'measurement' must hold {sorted(fields)}; save the network again")
    if not set(record["aliases"].values()) <= set(record["tensors"]):
        raise ValueError(f"{path}: 'aliases' name tensors that are not there; save the network again")
    return record


def _fill(into: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    if not isinstance(into, nn.Module):
        raise TypeError(f"into must be a torch.nn.Module, got {type(into).__name__}")
    model = prepare(into)[0].eval()
    state = model.state_dict()
    if state.keys() != tensors.keys():
        different = sorted(state.keys() ^ tensors.keys())
        raise ValueError(
            f"the saved network and into= have different tensors: {', '.join(different[:5])}; give the dense network it came from"
        )
    for name, tensor in tensors.items():
        dense = state[name]
        larger = tensor.dim() != dense.dim() or any(a > b for a, b in zip(tensor.shape, dense.shape, strict=True))
        if larger or tensor.dtype != dense.dtype:
            raise ValueError(
                f"{name}: saved {tuple(tensor.shape)} {tensor.dtype} does not fit into {tuple(dense.shape)} {dense.dtype}"
            )
    prune.install(model, tensors)
    return model


def _unique(model: nn.Module) -> dict[str, Tensor]:
    aliases = _aliases(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in aliases}


def _aliases(model: nn.Module) -> dict[str, str]:
    """Names of shared tensors beyond their first: alias -> first name."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[name] = known
    return aliases
