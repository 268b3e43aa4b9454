"""Exported programs without weights and without pickles."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.tasks.splits import Inputs, map_inputs, tensors_of

_WEIGHT = re.compile(r"/data/weights/weight_\d+$")
_CONFIGS = ("/data/weights/model_weights_config.json", "/data/constants/model_constants_config.json")
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
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"torch.export can't follow this network, so it can't be saved: {first}") from error


def dump(model: nn.Module, example: Inputs) -> bytes:
    """The exported program of `model` without its weights."""
    program = trace(model, example)
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
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            members = {name: source.read(name) for name in source.namelist()}
        prefix = next(name for name in members if name.endswith(_CONFIGS[0])).removesuffix(_CONFIGS[0])
        weights = json.loads(members[prefix + _CONFIGS[0]])["config"]
        constants = json.loads(members[prefix + _CONFIGS[1]])["config"]
        _check_symbols(json.loads(members[f"{prefix}/models/model.json"]))
    except (zipfile.BadZipFile, StopIteration, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"program.pt2 is damaged: {error}") from error
    pickled = [name for name, value in members.items() if name.endswith(".pt") and value]
    if pickled or any(entry.get("use_pickle", True) for entry in [*weights.values(), *constants.values()]):
        raise ValueError("program.pt2 holds a pickle, which save() never writes; it is not loaded")
    for name, entry in weights.items():
        if name not in tensors:
            raise ValueError(f"program.pt2 needs tensor {name}, which network.safetensors does not hold")
        sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        if list(tensors[name].shape) != sizes:
            raise ValueError(f"program.pt2 needs {name} of shape {sizes}, network.safetensors holds {list(tensors[name].shape)}")
        flat = tensors[name].contiguous().reshape(-1)
        members[f"{prefix}/data/weights/{entry['path_name']}"] = flat.view(torch.uint8).numpy().tobytes()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as out:
        for name, value in members.items():
            out.writestr(name, value)
    whole.seek(0)
    return Exported(torch.export.load(whole)).eval()


def _check_symbols(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr_str" and not (isinstance(value, str) and _SYMBOLIC.fullmatch(value)):
                raise ValueError(f"unexpected symbolic size {value!r:.80}")
            _check_symbols(value)
    elif isinstance(node, list):
        for value in node:
            _check_symbols(value)
