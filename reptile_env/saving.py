"""The compressed network: built from a plan, saved, loaded, exported.

A saved network is a folder of three files, none of which holds a pickle: ``network.safetensors`` (the tensors),
``program.pt2`` (an exported program without weights, so that loading needs no class of the user's) and ``plan.json``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from reptile_env import export
from reptile_env.compression import original, packing, program, stand_ins
from reptile_env.compression.cost import is_sparse
from reptile_env.compression.layout import MEND, Coding, Entry, read_layout
from reptile_env.compression.original import Original
from reptile_env.compression.plan import Plan
from reptile_env.compression.stand_ins import StandIns
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.resources import Resources
from reptile_env.evaluation.settings import make_settings
from reptile_env.record import PLAN, PROGRAM, TENSORS, read_measurement, read_plan, read_record, write_record
from reptile_env.tasks.splits import Inputs
from reptile_env.tasks.task import is_broken

PACKED = "packed"  # name of the one tensor that holds all others


@dataclass(frozen=True)
class Compressed:
    """A compressed network.

    Attributes:
        model: a plain `nn.Module`, really smaller, in evaluation mode.
        plan: what it keeps.
        measurement: what it measured on the validation split.
        task: name of the task.
        example: inputs of two examples, for export; None in a loaded one.
        kept: for each weight from which single elements were removed how many are left.
        dense: what is known of the dense network (see `compression.original`); empty in a loaded one.
    """

    model: nn.Module
    plan: Plan
    measurement: Measurement
    task: str
    example: Inputs | None = None
    kept: Mapping[str, int] = field(default_factory=dict, compare=False)
    dense: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def save(self, directory: str | Path, with_program: bool = True) -> Path:
        """Write the network into a new or empty folder, whole or not at all.

        All tensors lie in one, without gaps: quantized weights in their bits, weights with holes as a bitmap and what is left.

        Args:
            directory: the folder.
            with_program: write the exported program as well. Without it the folder loads into the user's own class alone, and
                networks that torch can't export (those of packed sequences) can be saved too.

        Raises:
            ValueError: the folder holds something already, torch can't export this network, or it was itself loaded.
        """
        target = Path(directory)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"{target} exists and is not an empty folder; choose another")
        if self.example is None:
            raise ValueError("this network was loaded from a folder; copy the folder")
        data, layout = self._packed()
        files = {TENSORS: save_tensors({PACKED: data})}
        if with_program:
            files[PROGRAM] = program.dump(self.model, self.example)
        record = {
            "task": self.task,
            "plan": self.plan.to_dict(),
            "measurement": asdict(self.measurement),
            "tensors": layout,
            "aliases": _aliases(self.model),
            "stand_ins": stand_ins.describe(self.model),
            "dense": self.dense,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        _write_folder(target, files | {PLAN: write_record(record)})
        return target

    def export_onnx(self, path: str | Path) -> Path:
        """Write an ONNX model with a dynamic batch dimension (needs ``pip install "reptile-env[onnx]"``).

        Quantized layers become int8: QuantizeLinear and DequantizeLinear around their input, int8 weights with a
        DequantizeLinear for each output.

        Raises:
            ImportError: the extra is missing.
            ValueError: torch can't export this network, or it was itself loaded from a folder.
        """
        if self.example is None:
            raise ValueError("this network was loaded from a folder; compress the task again to export it")
        target = Path(path)
        export.to_onnx(self.model, self.example, target)
        return target

    def _packed(self) -> tuple[Tensor, dict[str, Any]]:
        """The bytes of the file and the layout of the network's tensors in them."""
        aliases = _aliases(self.model)
        tensors = {name: t.detach() for name, t in self.model.state_dict().items() if name not in aliases}
        codings = {name: c for name, c in stand_ins.codings(self.model).items() if name in tensors}
        for name, kept in self.kept.items():
            path, _, leaf = name.rpartition(".")
            inner = f"{path}.layer.{leaf}"
            name, coding = (inner, codings[inner]) if inner in codings else (name, Coding())
            tensor = tensors[name]
            bits = tensor.element_size() * 8 if coding.bits is None else coding.bits
            if is_sparse(tensor.numel(), kept, bits):
                codings[name] = replace(coding, kept=kept)
        _check_finite(tensors, "compress the network again, with settings that train or fit it less far")
        return packing.pack(tensors | stand_ins.input_grids(self.model), codings)


def compress(task: Any, plan: Plan | Mapping[str, Any], *, device: str | None = None, **settings: Any) -> Compressed:
    """The network of a task, cut to a plan.

    Args:
        task: a `Task` or the name of a built-in one.
        plan: a `Plan`, or the JSON form of one (``info["plan"]``).
        device: on which the network is measured and trained, as torch names it; default the CPU, where the saved network is.
        **settings: of `Settings` (``recovery="reconstruct"``, ...); those that the plan was found with.

    Raises:
        ValueError: a plan of another network, an unknown setting.
    """
    evaluator = live_evaluator(task, make_settings(**settings), Resources(device=device))
    chosen = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
    measurement = evaluator.measure(chosen)
    example = evaluator.task.valid[:2].inputs
    model = evaluator.compressed_model(chosen)
    kept, dense = evaluator.kept_weights(chosen), original.describe(evaluator.structure)
    return Compressed(model, chosen, measurement, evaluator.name, example, kept, dense)


def load(directory: str | Path, into: nn.Module | None = None) -> Compressed:
    """Load what `Compressed.save` wrote; nothing in the folder is unpickled, and all of it is checked before anything is built.

    Args:
        directory: the folder.
        into: a dense network of the user's own class; a copy of it is shrunk and filled. Without it the exported program
            is loaded, which needs no class and is for inference alone.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: files that were altered, or do not fit each other or `into`.
    """
    if into is not None and not isinstance(into, nn.Module):
        raise TypeError(f"into must be a torch.nn.Module, got {type(into).__name__}")
    folder = Path(directory)
    record = read_record(folder)
    data = {name: _read(folder, name, digest) for name, digest in record["sha256"].items()}
    plan, measurement = read_plan(record), read_measurement(record)
    origin = Original(record["dense"])
    origin.check_plan(plan, measurement.sparsity)
    tensors, entries = _tensors(folder / TENSORS, data[TENSORS], record["tensors"], measurement.bytes)
    parts = StandIns(record["stand_ins"], tensors, entries)
    _check_finite(tensors, MEND)
    tensors |= {alias: tensors[name] for alias, name in record["aliases"].items()}
    parts.check(origin, plan, tensors)
    if PROGRAM in data:
        program.check(data[PROGRAM], tensors)
    elif into is None:
        raise ValueError(f"{folder} was saved without a program; load it with into= the dense network of your own class")
    model = program.load(data[PROGRAM], tensors) if into is None else parts.fill(into, origin, tensors)
    return Compressed(model, plan, measurement, record["task"])


def _read(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved network: {name} is missing")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} is not the file that was saved (its SHA-256 differs); {MEND}")
    return data


def _tensors(path: Path, data: bytes, layout: Any, claimed: int) -> tuple[dict[str, Tensor], dict[str, Entry]]:
    """The network's tensors, checked against their layout, and how they were stored."""
    try:
        found = load_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if set(found) != {PACKED} or str(found[PACKED].dtype) != "torch.uint8" or found[PACKED].dim() != 1:
        raise ValueError(f"{path} must hold one tensor, {PACKED!r}, of bytes; {MEND}")
    tensors, entries = packing.unpack(found[PACKED], layout), read_layout(layout, found[PACKED].numel())
    if found[PACKED].numel() != claimed:
        raise ValueError(f"{path} holds {found[PACKED].numel()} bytes of tensors, and the measurement says {claimed}; {MEND}")
    return tensors, entries


def _check_finite(tensors: Mapping[str, Tensor], mend: str) -> None:
    for name, tensor in tensors.items():
        if is_broken(tensor):
            raise ValueError(f"{name} holds NaN or infinity; {mend}")


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """All files or none, also when interrupted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as draft:
        for name, data in files.items():
            Path(draft, name).write_bytes(data)
        os.chmod(draft, 0o755)
        os.rename(draft, target)
        # TemporaryDirectory removes what it made; the renamed folder is no longer there, so it needs one.
        os.mkdir(draft)


def _aliases(model: nn.Module) -> dict[str, str]:
    """Names of shared tensors beyond their first: alias -> first name."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[name] = known
    return aliases
