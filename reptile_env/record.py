"""``plan.json`` of a saved network: read as if it came from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from reptile_env.compression.layout import MEND, whole
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.measurement import Measurement

FORMAT = 3
PLAN, TENSORS, PROGRAM = "plan.json", "network.safetensors", "program.pt2"
_KINDS: dict[str, type] = {
    "format": int,
    "task": str,
    "plan": dict,
    "measurement": dict,
    "tensors": dict,
    "aliases": dict,
    "stand_ins": dict,
    "dense": dict,
    "sha256": dict,
}


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# By the annotation of a measurement's field.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "float": _real,
    "int": whole,
    "float | None": lambda value: value is None or _real(value),
    "tuple[float, ...]": lambda value: isinstance(value, list) and all(map(_real, value)),
}


def write_record(record: dict[str, Any]) -> bytes:
    """The record as bytes of JSON."""
    return json.dumps({"format": FORMAT} | record, indent=1, allow_nan=False).encode()


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a saved network, its own keys checked.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not JSON, another format, or a key that is missing, unknown or of another type.
    """
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved network: {PLAN} is missing")
    try:
        record = json.loads(path.read_bytes(), parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not the JSON that was saved: {error}; {MEND}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or isinstance(record["format"], bool):
        raise ValueError(f"{path} is not of format {FORMAT}; {MEND} with this version of reptile_env")
    if set(record) != set(_KINDS):
        raise ValueError(f"{path} needs exactly the keys {sorted(_KINDS)}, got {sorted(record)!r:.300}; {MEND}")
    for key, kind in _KINDS.items():
        if not isinstance(record[key], kind):
            raise ValueError(f"{path}: {key!r} must be of type {kind.__name__}; {MEND}")
    files = set(record["sha256"])
    if not {TENSORS} <= files <= {TENSORS, PROGRAM} or not all(isinstance(digest, str) for digest in record["sha256"].values()):
        raise ValueError(f"{path}: 'sha256' must hold {TENSORS} and, where there is one, {PROGRAM}; {MEND}")
    for alias, name in record["aliases"].items():
        if alias in record["tensors"] or not isinstance(name, str) or name not in record["tensors"]:
            raise ValueError(f"{path}: alias {alias!r:.80} of {name!r:.80} does not name a tensor that is there; {MEND}")
    return record


def read_plan(record: dict[str, Any]) -> Plan:
    """The plan in a record."""
    return Plan.from_dict(record["plan"])


def read_measurement(record: dict[str, Any]) -> Measurement:
    """The measurement in a record.

    Raises:
        ValueError: a field that is missing, unknown or no such number.
    """
    given, known = record["measurement"], {field.name: str(field.type) for field in fields(Measurement)}
    if set(given) != set(known):
        raise ValueError(f"{PLAN}: 'measurement' must hold {sorted(known)}, got {sorted(given)!r:.300}; {MEND}")
    for name, kind in known.items():
        if not _CHECKS[kind](given[name]):
            raise ValueError(f"{PLAN}: {name!r} of 'measurement' is {given[name]!r:.80}, which is no {kind}; {MEND}")
    if given["seconds"] < 0 or (given["latency"] or 0) < 0:
        raise ValueError(f"{PLAN}: 'measurement' holds a negative time; {MEND}")
    if len(given["sparsity"]) != len(read_plan(record).names):
        raise ValueError(f"{PLAN}: 'sparsity' of 'measurement' must hold a number for each group of the plan; {MEND}")
    return Measurement(**given | {"sparsity": tuple(given["sparsity"])})


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
