"""Columns of a run that follow from others: costs are exact functions of what is kept, returns of metric and cost.

They are left out of files, and worked out again when these are read, by the arithmetic of `reptile_env.rewards`, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.run_file import Columns
from reptile_env.evaluation.table_head import costs_from_json
from reptile_env.rewards import utility

Head = Mapping[str, Any]
COSTS = ("params", "macs", "bytes")
Column = NDArray[Any]


def _evaluation(head: Head, columns: Columns) -> Column:
    return np.arange(1, len(columns["metric"]) + 1)


def _episode(head: Head, columns: Columns) -> Column:
    """A new one begins wherever the same group, or one before it, is decided on again."""
    group = columns["group"]
    return 1 + np.cumsum(np.concatenate([[False], group[1:] <= group[:-1]]))[: len(group)]


def _rate(head: Head, columns: Columns) -> Column:
    """What one round of decisions removed."""
    group, sizes = columns["group"], np.array(head["sizes"])
    return np.asarray((sizes[group] - columns["widths"][np.arange(len(group)), group]) / sizes[group])


def _cost(name: str) -> Callable[[Head, Columns], Column]:
    def derived(head: Head, columns: Columns) -> Column:
        costs = costs_from_json(head["cost_model"])
        levels = (columns["widths"], columns.get("bits"), columns.get("ranks"))
        return np.asarray(costs.cost(name, *levels))

    return derived


def _plan_return(head: Head, columns: Columns) -> Column:
    scale, metric, dense = head["scale"], columns["metric"], head["dense"]["metric"]
    if scale["higher_is_better"]:
        quality = metric / dense
    else:
        worse = metric > dense
        quality = np.where(worse, dense / np.where(worse, metric, 1.0), 2 - metric / dense)
    relative = columns[scale["cost"]] / head["dense"][scale["cost"]]
    w: float = scale["w"]
    return np.asarray((utility(w, quality, relative) - utility(w, 1.0, 1.0)) / scale["scale"])


def _episode_return(head: Head, columns: Columns) -> Column:
    return columns["plan_return"]


def _within_budget(head: Head, columns: Columns) -> Column:
    cost, budget = head["scale"]["cost"], head["settings"].get("budget")
    if budget is None:
        return np.ones(len(columns["metric"]), bool)
    return np.asarray(columns[cost] <= budget * head["dense"][cost])


def _simulated_seconds(head: Head, columns: Columns) -> Column:
    return np.cumsum(columns["measured_seconds"])


# In an order in which each needs only those before it, and those that are never left out.
DERIVED: dict[str, Callable[[Head, Columns], Column]] = {
    "evaluation": _evaluation,
    "episode": _episode,
    "rate": _rate,
    **{name: _cost(name) for name in COSTS},
    "plan_return": _plan_return,
    "episode_return": _episode_return,
    "within_budget": _within_budget,
    "simulated_seconds": _simulated_seconds,
}


def without_derived(head: Head, columns: Columns) -> Columns:
    """The columns that do not follow, bit for bit, from the others."""
    kept = {name: column for name, column in columns.items() if name not in DERIVED}
    known = dict(kept)
    for name, derive in DERIVED.items():
        given = known[name] = columns[name]
        derived = derive(head, known) if name not in COSTS or head["cost_model"] is not None else None
        if (
            derived is None
            or derived.dtype != given.dtype
            or not np.array_equal(derived, given, equal_nan=given.dtype == np.float64)
        ):
            kept[name] = given
    return kept


def with_derived(head: Head, kept: Columns) -> Columns:
    """All columns, from those that `without_derived` gave.

    Raises:
        ValueError: the columns do not fit the head.
    """
    columns = dict(kept)
    try:
        with np.errstate(all="ignore"):  # what comes of forged numbers is looked at by the caller
            for name, derive in DERIVED.items():
                if name not in columns:
                    columns[name] = derive(head, columns)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"is damaged: its columns do not fit its head: {type(error).__name__}: {error}") from error
    return columns
