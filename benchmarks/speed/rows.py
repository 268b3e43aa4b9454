"""Rows of the speed table: what was measured, the goal, and whether it is met."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.outputs import write
from benchmarks.speed.measure import Interval

FARTHEST = 1e6  # times better than a goal, where a number is zero or less
Progress = Callable[[float], None]  # is told the fraction done


@dataclass(frozen=True)
class Goal:
    """A number that is to be reached, or not to be passed."""

    least: float | None = None
    most: float | None = None

    def margin(self, measured: float) -> float:
        """How many times better than the goal a number is: 1 or more meets it."""
        if self.least is not None:
            return measured / self.least
        assert self.most is not None
        return min(self.most / measured, FARTHEST) if measured > 0 else FARTHEST

    def __str__(self) -> str:
        if self.least is not None:
            return f"at least {number(self.least)}"
        assert self.most is not None
        return f"at most {number(self.most)}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: of the benchmark.
        what: was measured.
        measured: the number; NaN where it failed.
        unit: of the number.
        low: lower end of its 95 % interval, where there is one.
        high: upper end.
        goal: in words; empty where the number stands for itself.
        margin: how many times better than the goal; None without one.
        met: whether the goal is met; None without one.
        details: in words.
        error: a traceback, or why it was left out.
    """

    part: str
    what: str
    measured: float = math.nan
    unit: str = ""
    low: float | None = None
    high: float | None = None
    goal: str = ""
    margin: float | None = None
    met: bool | None = None
    details: str = ""
    error: str = ""


def row(part: str, what: str, measured: Interval | float, goal: Goal | None = None, unit: str = "", details: str = "") -> Row:
    """A row from a number, with or without an interval."""
    if isinstance(measured, Interval):
        value, low, high = measured.value, measured.low, measured.high
    else:
        value, low, high = measured, None, None
    if goal is None:
        return Row(part, what, value, unit, low, high, details=details)
    margin = goal.margin(value)
    return Row(part, what, value, unit, low, high, str(goal), margin, margin >= 1, details)


def failed(part: str, what: str, why: str) -> Row:
    """Something that gave no number; its goal counts as missed."""
    return Row(part, what, met=False, error=why)


def attempt(part: str, what: str, make: Callable[[], Row]) -> Row:
    """The row that `make` makes; whatever it raises is a row too, since what comes after is still worth measuring."""
    try:
        return make()
    except Exception:
        return failed(part, what, traceback.format_exc())


def save(folder: Path, done: list[Row], machine: dict[str, Any]) -> None:
    """Write what is there so far as JSON and Markdown."""
    write(folder / "speed.json", json.dumps({"machine": machine, "rows": [_plain(each) for each in done]}, indent=1) + "\n")
    write(folder / "speed.md", markdown(done, machine))


def _plain(each: Row) -> dict[str, Any]:
    """As JSON knows it, which has no NaN."""
    return {name: None if value != value else value for name, value in asdict(each).items()}


def markdown(done: list[Row], machine: dict[str, Any]) -> str:
    """The machine, then a table a part."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "warning")
    lines = [f"Machine: {facts}.", ""]
    if machine["warning"]:
        lines += [f"**Warning: {machine['warning']}.**", ""]
    for part in dict.fromkeys(each.part for each in done):
        lines += [f"## {part}", "", "| what | measured | goal | met | details |", "|---|---|---|---|---|"]
        lines += [_line(each) for each in done if each.part == part]
        lines.append("")
    return "\n".join(lines)


def _line(each: Row) -> str:
    if each.error:
        return f"| {each.what} | **failed** | | no | {each.error.strip().splitlines()[-1]} |"
    interval = "" if each.low is None or each.high is None else f" ({number(each.low)} to {number(each.high)})"
    met = {None: "", True: "yes", False: "**no**"}[each.met]
    measured = f"{number(each.measured)}{interval} {each.unit}".strip()
    return f"| {each.what} | {measured} | {each.goal} | {met} | {each.details} |"


def number(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
