"""Latency tables on disk: one JSON file for each network and machine, so that all processes read the same floats."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

VERSION = 1  # of what is measured and how it is written
VARIABLE = "REPTILE_CACHE"


def folder() -> Path:
    """Where tables lie: the folder that the environment variable REPTILE_CACHE names, else the user's cache folder."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_dir("reptile_env"))


def read_or_write(
    described: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The table of what is described on this machine; where there is none, `measure` makes it and it is written.

    Args:
        described: what the table is of; with the machine's name its JSON form is the key.
        shapes: by layer the shape of its table.
        measure: makes ``{"dense": seconds, "layers": {name: seconds of this shape}}``.

    Raises:
        OSError: the file can't be written.
    """
    key = json.dumps({"version": VERSION, "machine": machine(), **described}, sort_keys=True)
    path = folder() / f"latency-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    damaged = ""
    if path.exists():
        try:
            return _read(path, shapes)
        except ValueError as error:
            damaged = str(error)
            warnings.warn(f"{path} is no latency table ({damaged}); latency is measured anew", stacklevel=2)
    _write(path, json.dumps(measure()), replace=bool(damaged))
    # Another process may have been first: what is on disk is what counts.
    return _read(path, shapes)


def machine() -> str:
    """The processor's name and the number of its cores."""
    name = platform.processor()
    with contextlib.suppress(OSError):  # no Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {platform.machine()}, {os.cpu_count()} cores"


def _read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(table, dict) or set(table) != {"dense", "layers"} or not isinstance(table["layers"], dict):
        raise ValueError("it must hold 'dense' and 'layers'")
    if set(table["layers"]) != set(shapes) or not _is_time(table["dense"]):
        raise ValueError("its layers are not those of the network")
    for name, (inputs, outputs) in shapes.items():
        rows = table["layers"][name]
        if not isinstance(rows, list) or len(rows) != inputs:
            raise ValueError(f"{name}: {inputs} rows are needed")
        if not all(isinstance(row, list) and len(row) == outputs and all(map(_is_time, row)) for row in rows):
            raise ValueError(f"{name}: every row must hold {outputs} times in seconds")
    return table


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _write(path: Path, text: str, replace: bool) -> None:
    """Whole or not at all; a file that is there already stays, unless it is to be replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as draft:
            file = Path(draft, path.name)
            file.write_text(text, encoding="utf-8")
            if replace:
                os.replace(file, path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(file, path)
    except OSError as error:
        raise OSError(f"the latency table can't be written to {path}: {error}; set {VARIABLE} to a folder that can be") from error
