"""What the file of a run may say: types, ranges, and numbers that are finite. Whoever writes a hash can write anything under it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)  # networks compute, and pages keep, in single precision
MOST = 2**31 - 1  # of what is counted one by one
LARGEST_COST = 2**53  # above it pages don't hold whole numbers exactly


class Rule(NamedTuple):
    """What a value must be.

    Attributes:
        accepts: whether a value is that.
        words: the same for a message.
    """

    accepts: Callable[[Any], bool]
    words: str


def _whole(low: int, high: int) -> Rule:
    return Rule(lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")


def _number(low: float, high: float = LARGEST) -> Rule:
    return Rule(lambda value: type(value) in (int, float) and low <= value <= high, f"a number from {low:g} to {high:g}")


def _or_none(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.accepts(value), f"{rule.words}, or null")


def _or_nan(rule: Rule) -> Rule:
    return Rule(lambda value: value != value or rule.accepts(value), f"{rule.words}, or NaN")


def _list_of(rule: Rule) -> Rule:
    return Rule(lambda value: type(value) is list and all(map(rule.accepts, value)), f"a list, in which each is {rule.words}")


def _is_text(value: Any) -> bool:
    """Halves of surrogate pairs can't be written to any page."""
    return type(value) is str and value.encode(errors="ignore").decode() == value


def _is_date(value: Any) -> bool:
    try:
        datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


_TEXT = Rule(_is_text, "a text")
_TRUTH = Rule(lambda value: type(value) is bool, "true or false")
_DICT = Rule(lambda value: type(value) is dict, "a table of values by name")
_TEXTS = Rule(lambda value: type(value) is dict and all(map(_is_text, value.values())), "a table of texts by name")
_DATE = Rule(_is_date, "a date and time in ISO 8601")
_COUNT, _COST = _whole(1, MOST), _whole(1, LARGEST_COST)
_RETURN, _POSITIVE, _SECONDS = _number(-LARGEST), _number(1 / LARGEST), _number(0)

# Everything beside the columns, of runs that are done and of those that failed.
HEAD: dict[str, Rule] = {
    **dict.fromkeys(("suite", "agent", "task", "track", "status", "env_id"), _TEXT),
    **dict.fromkeys(("error", "git"), _or_none(_TEXT)),
    **dict.fromkeys(("settings", "agent_settings", "dense", "scale"), _DICT),
    **dict.fromkeys(("versions", "machine"), _TEXTS),
    **dict.fromkeys(("training_networks", "groups"), _list_of(_TEXT)),
    **dict.fromkeys(("uniform_return", "best_known_return"), _or_nan(_RETURN)),
    "seed": _whole(0, 2**32 - 1),
    "evaluations": _whole(0, MOST),
    "threads": _COUNT,
    "on_test": _TRUTH,
    "started": _DATE,
    "seconds": _SECONDS,
    "sizes": _list_of(_COUNT),
    "cost_model": _or_none(_DICT),
    "policy_return": _or_none(_RETURN),
    "policy_evaluation": _or_none(_COUNT),
}
SETTINGS: dict[str, Rule] = {"task": _TEXT, "budget": _or_none(_POSITIVE)}
# Of runs that are done.
DENSE: dict[str, Rule] = {"metric": _POSITIVE, "loss": _RETURN, "params": _COST, "macs": _COST, "bytes": _COST}
SCALE: dict[str, Rule] = {
    "cost": _TEXT,
    "w": _number(0, 1),
    "scale": _POSITIVE,
    "higher_is_better": _TRUTH,
    "metric_name": _TEXT,
}
# Lowest and highest number of each column; what is decided on depends on the network.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("evaluation", "episode"), (1, MOST)),
    **dict.fromkeys(("params", "macs", "bytes"), (0, LARGEST_COST)),
    **dict.fromkeys(("metric", "loss", "plan_return", "episode_return"), (-LARGEST, LARGEST)),
    **dict.fromkeys(("measured_seconds", "simulated_seconds"), (0, LARGEST)),
    **dict.fromkeys(("rate", "ranks"), (0, 1)),
    "bits": (1, 32),
}


def check_head(head: Mapping[str, Any]) -> None:
    """Refuse a head that holds what no run says.

    Args:
        head: as JSON gives it, with the keys of `HEAD`.

    Raises:
        ValueError: a value of another type, not finite, or out of range; the message names it.
    """
    _check("", HEAD, head)
    _check("settings: ", SETTINGS, head["settings"])
    if head["status"] == "done":
        _check("dense: ", DENSE, head["dense"])
        _check("scale: ", SCALE, head["scale"])
        if len(head["groups"]) != len(head["sizes"]):
            raise ValueError(f"is damaged: it has {len(head['groups'])} groups and sizes of {len(head['sizes'])}")


def check_numbers(columns: Mapping[str, NDArray[Any]], sizes: Sequence[int]) -> None:
    """Refuse columns that hold numbers which no run has.

    Args:
        columns: of a run, in their shapes and dtypes.
        sizes: dense channels of each group.

    Raises:
        ValueError: a number that is not finite (NaN is allowed as a loss), or out of range; the message names the column.
    """
    ranges: dict[str, tuple[Any, Any]] = RANGES | {"group": (0, len(sizes) - 1)} | {"widths": (1, np.array(sizes, np.int64))}
    for name, (low, high) in ranges.items():
        if name not in columns:
            continue
        column = columns[name]
        wrong = ~((column >= low) & (column <= high))
        if name == "loss":
            wrong &= ~np.isnan(column)
        if wrong.any():
            most = "the size of its group" if name == "widths" else f"{high:g}"
            raise ValueError(f"is damaged: column {name!r} holds {column[wrong][0]}; numbers from {low:g} to {most} are needed")


def _check(where: str, rules: Mapping[str, Rule], values: Mapping[str, Any]) -> None:
    for name, rule in rules.items():
        value = values.get(name)
        if not rule.accepts(value):
            raise ValueError(f"is damaged: {where}{name}={value!r:.80}; it must be {rule.words}")
