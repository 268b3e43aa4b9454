"""Built-in tasks by name. Listing them imports no torch."""

from __future__ import annotations

import functools
import importlib
import json
import math
import random
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reptile_env.errors import unknown
from reptile_env.tasks.catalogue.spec import TaskSpec

if TYPE_CHECKING:
    from reptile_env.tasks.task import Task


_specs: dict[str, TaskSpec] = {}
# Files of plain data, each with a tuple SPECS; a new one is named here.
_CATALOGUES = ("core", "images", "language", "transfer")

_REFERENCES = ("references.json", "transfer/references.json")


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
        families = [known for known, spec in _specs.items() if spec.suite == "transfer"]
        raise unknown("task", name, [known for known in _specs if known not in families], families)
    return _specs[name]


@functools.cache
def references() -> dict[str, dict[str, Any]]:
    """Calibration of the built-in tasks (``python -m benchmarks checkpoints``, ``transfer-family``, ``better-plans`` write it)."""
    known: dict[str, dict[str, Any]] = {}
    for path in _REFERENCES:
        known |= json.loads(resources.files("reptile_env.tasks").joinpath(path).read_text(encoding="utf-8"))
    return known


def tasks() -> list[dict[str, Any]]:
    """All registered tasks, a row each.

    Returns:
        Of each: name, family, data, licence, suite, split and what others report for the data (``reported``); and, as
        calibrated, the number of groups, params, macs, the dense network's metric on the validation and test split (``valid``,
        ``test``), ``uniform_rate``, ``best_known`` (return of the best plan known), and ``seconds`` of a measurement of a
        whole plan and ``step_seconds`` of an environment's step on the machine that calibrated it. None where it was not.
    """
    rows = []
    for spec in _specs.values():
        row = asdict(spec)
        del row["builder"], row["trainer"]
        known = references().get(spec.name, {})
        dense, uniform, best = (known.get(part, {}) for part in ("dense", "uniform", "best_known"))
        row |= {key: known.get(key) for key in ("groups", "params", "macs", "seconds", "step_seconds")}
        row |= {"valid": dense.get("valid"), "test": dense.get("test")}
        rows.append(row | {"uniform_rate": uniform.get("rate"), "best_known": best.get("return")})
    return rows


def resolve(path: str) -> Any:
    """The object that ``module:name`` names.

    Raises:
        ImportError: no such module, or nothing of that name in it.
        ValueError: `path` has another form.
    """
    module, _, name = path.partition(":")
    if not (module and name):
        raise ValueError(f"{path!r} names no function; write module:function")
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise ImportError(f"module {module!r} has no {name!r}; name one of its functions")
    return found


@functools.cache
def make_task(name: str) -> Task:
    """The built-in task `name`; one shared, read-only object a process.

    Raises:
        ValueError: unknown name, or a builder that makes no task of that name.
    """
    spec = task_spec(name)
    # Libraries that a builder imports may draw from the global generator as they load (rich does, behind scikit-learn).
    state = random.getstate()
    try:
        task: Task = resolve(spec.builder)(name)
    finally:
        random.setstate(state)
    # By its name other processes make it again, and its calibration is found.
    made = getattr(task, "name", None)
    if made != name:
        raise ValueError(
            f"{spec.builder}({name!r}) must return a reptile_env.Task of that name, it returned {type(task).__name__} {made!r}; "
            "hand the name on: Task(..., name=name)"
        )
    task.registered = True
    return task


Returns = TypeVar("Returns", float, NDArray[np.float64])


class Anchors(NamedTuple):
    """What scores are measured between.

    Attributes:
        uniform: return of the best uniform rate: score 0.
        best: return of the best plan known: score 1.
    """

    uniform: float
    best: float

    def score(self, episode_return: Returns) -> Returns:
        """A return, or an array of them, on the scale of scores; NaN where nothing is known, or nothing better than uniform."""
        span = self.best - self.uniform
        return (episode_return - self.uniform) / (span if span > 0 else math.nan)


UNKNOWN = Anchors(math.nan, math.nan)


def known_anchors(name: str, settings: Any, cost: str, uniform_rate: float, budget: float | None) -> Anchors:
    """The anchors of a task under exactly these settings, best uniform rate and budget; NaN where it was not calibrated so."""
    known = references().get(name)
    if known is None or known["uniform"]["rate"] != uniform_rate:
        return UNKNOWN
    given = {
        "recovery": settings.recovery,
        "importance": settings.importance,
        "granularity": settings.granularity,
        "cost": cost,
    }
    same = all(known["settings"][key] == value for key, value in given.items())
    if not same:
        return UNKNOWN
    if budget is None:
        return Anchors(1.0, float(known["best_known"]["return"]))
    capped = known.get("budgets", {}).get(f"{budget:g}")
    return UNKNOWN if capped is None else Anchors(float(capped["uniform"]["return"]), float(capped["best_known"]["return"]))


def anchors_on(scale: float, w: float, name: str, settings: Any, cost: str, rate: float, budget: float | None) -> Anchors:
    """As `known_anchors`, told on another scale where other rates to choose from have another best uniform one.

    Args:
        scale: utility of a return of 1 there.
        w: weight of the metric there.
        name: of the task.
        settings: of the evaluator.
        cost: that is traded.
        rate: the best uniform one there.
        budget: cap on the final cost, relative to dense.
    """
    known = references().get(name)
    if known is None or known["w"] != w:
        return UNKNOWN
    calibrated = known["uniform"]["rate"]
    uniform, best = known_anchors(name, settings, cost, calibrated, budget)
    # With the same best uniform rate the scale is the same but for what another processor rounds otherwise.
    factor = 1.0 if rate == calibrated else float(known["scale"]) / scale
    return Anchors(factor * uniform, factor * best)


def anchors_today(settings: Mapping[str, Any], scale: Mapping[str, Any]) -> Anchors:
    """The anchors of a built-in task as they are known today, as returns on another scale; NaN where it was not calibrated so.

    Args:
        settings: arguments of ``gym.make``, the task among them.
        scale: ``cost`` that is traded, ``w``, weight of the metric, and ``scale``, the utility of a return of 1.
    """
    known = references().get(settings["task"])
    if known is None or (known["settings"]["cost"], known["w"]) != (scale["cost"], scale["w"]):
        return UNKNOWN
    if any(settings.get(key, value) != value for key, value in known["settings"].items()):
        return UNKNOWN
    # Other rates to choose from have another best uniform one, and so another scale.
    factor = float(known["scale"]) / float(scale["scale"])
    budget = settings.get("budget")
    if budget is None:
        return Anchors(factor, factor * float(known["best_known"]["return"]))
    capped = known.get("budgets", {}).get(f"{budget:g}")
    if capped is None:
        return UNKNOWN
    return Anchors(factor * float(capped["uniform"]["return"]), factor * float(capped["best_known"]["return"]))


def forget() -> None:
    """Drop what is cached of the shipped files, for the script that rewrites them."""
    references.cache_clear()
    make_task.cache_clear()


for _catalogue in _CATALOGUES:
    for _spec in importlib.import_module(f"reptile_env.tasks.catalogue.{_catalogue}").SPECS:
        register_task(_spec)
