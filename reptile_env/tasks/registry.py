"""Built-in tasks by name. Listing them imports no torch."""

from __future__ import annotations

import functools
import importlib
import json
import math
import random
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from reptile_env.errors import unknown

if TYPE_CHECKING:
    from reptile_env.tasks.task import Task


@dataclass(frozen=True)
class TaskSpec:
    """A registered task.

    Attributes:
        name: what `make_task` takes.
        family: kind of network.
        data: what it was trained on.
        builder: ``module:function``, called with no argument to make the `Task`.
        trainer: ``module:function``, called with the name and a progress callback to train its checkpoint anew.
        split: ``train`` or ``test``: whether agents may train on this network.
    """

    name: str
    family: str
    data: str
    builder: str
    trainer: str
    split: str = "train"


_specs: dict[str, TaskSpec] = {}


def register_task(spec: TaskSpec) -> None:
    """Add a task to the registry.

    Raises:
        ValueError: the name is taken.
    """
    if spec.name in _specs:
        raise ValueError(f"task {spec.name!r} is registered already; choose another name")
    _specs[spec.name] = spec


def task_spec(name: str) -> TaskSpec:
    """The spec of a registered task; an unknown name answers with the known ones and the nearest."""
    if name not in _specs:
        raise unknown("task", name, _specs)
    return _specs[name]


@functools.cache
def references() -> dict[str, dict[str, Any]]:
    """Calibration of the built-in tasks (written by ``python -m benchmarks checkpoints``)."""
    text = resources.files("reptile_env.tasks").joinpath("references.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def tasks() -> list[dict[str, Any]]:
    """All registered tasks: name, family, split, data, groups and params of each."""
    rows = []
    for spec in _specs.values():
        known = references().get(spec.name, {})
        row = asdict(spec) | {"groups": known.get("groups"), "params": known.get("params")}
        del row["builder"], row["trainer"]
        rows.append(row)
    return rows


def resolve(path: str) -> Any:
    """The object that ``module:name`` names."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


@functools.cache
def make_task(name: str) -> Task:
    """The built-in task `name`; one shared, read-only object a process.

    Raises:
        ValueError: unknown name.
    """
    spec = task_spec(name)
    # Libraries that a builder imports may draw from the global generator as they load (rich does, behind scikit-learn).
    state = random.getstate()
    try:
        task: Task = resolve(spec.builder)()
    finally:
        random.setstate(state)
    task.registered = True
    return task


def best_known(name: str, settings: Any, cost: str, uniform_rate: float) -> float:
    """Return of the best plan known for a task under exactly these settings and best uniform rate, or NaN."""
    known = references().get(name)
    if known is None or known["uniform"]["rate"] != uniform_rate:
        return math.nan
    given = {
        "recovery": settings.recovery,
        "importance": settings.importance,
        "granularity": settings.granularity,
        "cost": cost,
    }
    same = all(known["settings"][key] == value for key, value in given.items())
    return float(known["best_known"]["return"]) if same else math.nan


def forget() -> None:
    """Drop what is cached of the shipped files, for the script that rewrites them."""
    references.cache_clear()
    make_task.cache_clear()


_DIGITS = "scikit-learn digits, 1,797 images of 8x8"
_TRAIN = "reptile_env.tasks.digits:train_network"
register_task(TaskSpec("digits-cnn", "cnn", _DIGITS, "reptile_env.tasks.digits:digits_cnn", _TRAIN))
register_task(TaskSpec("digits-mlp", "mlp", _DIGITS, "reptile_env.tasks.digits:digits_mlp", _TRAIN))
