"""Exported programs without weights and without pickles."""

from __future__ import annotations

import io
import json
import re
import traceback
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.errors import first_line
from reptile_env.tasks.splits import Inputs, map_inputs, tensors_of

_WEIGHT, _CONSTANT = re.compile(r"/data/weights/weight_\d+$"), re.compile(r"/?data/constants/tensor_\d+$")
_CONFIGS = ("/data/weights/model_weights_config.json", "/data/constants/model_constants_config.json")
_MEMBERS = {
    *(config.removeprefix("/") for config in _CONFIGS),
    *("models/model.json", "data/sample_inputs/model.pt"),
    *("archive_format", "archive_version", "version", "byteorder", ".data/version", ".data/serialization_id"),
    *(".format_version", ".storage_alignment"),
}
# Numbers that torch.export's format gives to element types.
_DTYPES = {
    torch.uint8: 1,
    torch.int8: 2,
    torch.int16: 3,
    torch.int32: 4,
    torch.int64: 5,
    torch.float16: 6,
    torch.float32: 7,
    torch.float64: 8,
    torch.complex64: 10,
    torch.complex128: 11,
    torch.bool: 12,
    torch.bfloat16: 13,
}
# torch reads symbolic sizes with sympy, which evaluates them: only arithmetic over size symbols may reach it.
_SYMBOL = r"Symbol\('[su]\d+'(?:, (?:positive|nonnegative|integer)=(?:True|False))*\)"
_FUNCTIONS = "Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|ModularIndexing"
_SYMBOLIC = re.compile(rf"(?:{_SYMBOL}|[su]\d+|(?:{_FUNCTIONS})\(|-?\d+|[\s+\-*/(),])*")


class Exported(nn.Module):
    """A network loaded from an exported program: for inference alone."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program.module(check_guards=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network that was exported."""
        return self.program(*args, **kwargs)

    def train(self, mode: bool = True) -> Exported:
        """Evaluation mode is all there is.

        Raises:
            ValueError: training mode was asked for.
        """
        if mode:
            raise ValueError("an exported program can't be trained; load the folder with into= your own network")
        self.training = False
        return self


def trace(model: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    """`model` as an exported program whose batch size is free.

    Args:
        model: a network in evaluation mode.
        example: inputs of at least one example.

    Raises:
        ValueError: torch can't export this network.
    """
    # A batch of one would be taken for a constant.
    example = map_inputs(lambda t: torch.cat([t, t])[:2], example)
    batch = torch.export.Dim("batch")
    args: tuple[Any, ...] = () if isinstance(example, dict) else (example,) if isinstance(example, Tensor) else tuple(example)
    kwargs = dict(example) if isinstance(example, dict) else {}
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in tensors_of(example):
        shapes[tensor] = {0: batch}
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes.dynamic_shapes(model, args, kwargs))
    except Exception as error:  # torch fails in many ways, and so may what it runs
        raise ValueError(f"torch.export can't follow this network{_where(error)}: {_cause(error)}") from error


def _where(error: Exception) -> str:
    """The innermost line of code that is neither torch's nor this package's."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<"))]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _cause(error: Exception) -> str:
    """The first line of an error's message, or the first item of the list that follows it."""
    items = [line.strip(" -") for line in str(error).splitlines() if line.startswith("  - ")]
    return items[0] if items else first_line(error)


def dump(model: nn.Module, example: Inputs) -> bytes:
    """The exported program of `model` without its weights.

    Raises:
        ValueError: torch can't export this network.
    """
    try:
        program = trace(model, example)
    except ValueError as error:
        mend = "save(directory, with_program=False) saves it all the same, to be loaded with into= your own network"
        raise ValueError(f"{error}; {mend}") from error
    # The archive would hold the example inputs as a pickle.
    program._example_inputs = None
    whole, bare = io.BytesIO(), io.BytesIO()
    torch.export.save(program, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bare, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            if not _WEIGHT.search(name):
                # A fixed date: the same network gives the same bytes.
                out.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), source.read(name), zipfile.ZIP_DEFLATED)
    return bare.getvalue()


def load(data: bytes, tensors: Mapping[str, Tensor]) -> Exported:
    """The network that `dump` wrote, with `tensors` as its weights.

    Raises:
        ValueError: not such a program, one that holds a pickle, or tensors that do not fit it.
    """
    prefix, members, weights = _checked(data, tensors)
    for name, entry in weights.items():
        flat = tensors[name].contiguous().reshape(-1)
        members[f"{prefix}/data/weights/{entry['path_name']}"] = flat.view(torch.uint8).numpy().tobytes()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as out:
        for name, value in members.items():
            out.writestr(name, value)
    whole.seek(0)
    try:
        program = torch.export.load(whole)
    except Exception as error:  # torch's reader fails in its own ways on a program that was tampered with
        raise ValueError(f"program.pt2 is damaged: {first_line(error)}") from error
    return Exported(program).eval()


def check(data: bytes, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what `load` would refuse, without building the program.

    Raises:
        ValueError: as `load`.
    """
    _checked(data, tensors)


def _checked(data: bytes, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, bytes], dict[str, Any]]:
    """Name of the archive's root, its members, and its weights by name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            members = {name: source.read(name) for name in source.namelist()}
        prefix = next(name for name in members if name.endswith(_CONFIGS[0])).removesuffix(_CONFIGS[0])
        weights, constants = (json.loads(members[prefix + config])["config"] for config in _CONFIGS)
        _check_symbols(json.loads(members[f"{prefix}/models/model.json"]))
        _check_members(prefix, members, weights, constants)
        found = {name: (_sizes(entry), entry["tensor_meta"]["dtype"]) for name, entry in weights.items()}
    except (zipfile.BadZipFile, StopIteration, AttributeError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise ValueError(f"program.pt2 is damaged: {error}") from error
    for name, (sizes, number) in found.items():
        if name not in tensors:
            raise ValueError(f"program.pt2 needs tensor {name}, which network.safetensors does not hold; save the network again")
        tensor = tensors[name]
        if list(tensor.shape) != sizes or _DTYPES.get(tensor.dtype) != number:
            dtype = next((known for known, code in _DTYPES.items() if code == number), "unknown dtype")
            raise ValueError(
                f"program.pt2 needs {name} of shape {sizes} and {dtype}, network.safetensors holds {list(tensor.shape)} and "
                f"{tensor.dtype}; save the network again"
            )
    extra = sorted(tensors.keys() - found.keys())
    if extra:
        raise ValueError(
            f"network.safetensors holds {', '.join(extra[:5])}, which program.pt2 does not know; save the network again"
        )
    return prefix, members, weights


def _check_members(prefix: str, members: dict[str, bytes], weights: dict[str, Any], constants: dict[str, Any]) -> None:
    """Nothing but what `dump` writes: torch would unpickle some other members, and run others as compiled code."""
    for name, value in members.items():
        if name.endswith(".pt") and value:
            raise ValueError("program.pt2 holds a pickle, which save() never writes; it is not loaded")
        inner = name.removeprefix(f"{prefix}/")
        if inner == name or not (inner in _MEMBERS or _CONSTANT.fullmatch(inner)):
            raise ValueError(f"program.pt2 holds {name!r:.80}, which save() never writes; it is not loaded")
    for kind, folder, entries in ((_WEIGHT, "weights", weights), (_CONSTANT, "constants", constants)):
        for name, entry in entries.items():
            # What torch unpickles it tells by the flag, and for some constants by the name alone.
            if entry.get("use_pickle", True) is not False or not kind.search(f"/data/{folder}/{entry['path_name']}"):
                raise ValueError(f"program.pt2 holds {name!r:.80} as a pickle, which save() never writes; it is not loaded")
    for name, entry in constants.items():
        if not members[f"{prefix}/data/constants/{entry['path_name']}"] and 0 not in _sizes(entry):
            raise ValueError(f"program.pt2 lacks the values of constant {name!r:.80}")


def _sizes(entry: dict[str, Any]) -> list[int]:
    return [int(size["as_int"]) for size in entry["tensor_meta"]["sizes"]]


def _check_symbols(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr_str" and not (isinstance(value, str) and _SYMBOLIC.fullmatch(value)):
                raise ValueError(f"unexpected symbolic size {value!r:.80}")
            _check_symbols(value)
    elif isinstance(node, list):
        for value in node:
            _check_symbols(value)
