"""The speed table as a picture: how far each number is from its goal, and where a step's time goes."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.picture import BLACK, BLUE, GREEN, GREY, ORANGE
from benchmarks.speed.rows import Row, number

FARTHEST = 1e-2, 1e2  # from a goal that is drawn


def draw(path: Path, done: list[Row]) -> None:
    """Write the picture: goals on the left, the profile on the right."""
    goals = [row for row in done if row.goal and math.isfinite(row.measured)]
    phases = [row for row in done if row.part == "profile" and math.isfinite(row.measured)]
    lines = max(len(goals), len(phases), 4)
    figure = Figure(figsize=(19, 0.33 * lines + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _goals(left, goals)
    _phases(right, phases)
    figure.savefig(path, dpi=110)


def _goals(axes: Axes, rows: list[Row]) -> None:
    """How many times better than its goal each number is, on a log axis: met ones reach to the right of 1."""
    margins = [min(max(row.margin or 0.0, FARTHEST[0]), FARTHEST[1]) for row in rows]
    colors = [GREEN if row.met else ORANGE for row in rows]
    axes.barh(range(len(rows)), [margin - 1 for margin in margins], left=1, color=colors, height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(min([0.5, *margins]) / 1.5, max([2.0, *margins]) * 20)  # room for what is written behind the bars
    for position, row in enumerate(rows):
        text = f"{number(row.measured)} {row.unit}".strip() + f" ({row.goal})"
        _write(axes, text, max(margins[position], 1), position, "left")  # behind the bar, or behind the goal that it misses
    axes.axvline(1, color=BLACK, lw=1)
    _labels(axes, rows)
    axes.set_xlabel("times better than the goal (green: met)")
    axes.set_title("Goals", loc="left")


def _phases(axes: Axes, rows: list[Row]) -> None:
    colors = [BLUE if "profiler" not in row.details else GREY for row in rows]
    axes.barh(range(len(rows)), [row.measured for row in rows], color=colors, height=0.7)
    for position, row in enumerate(rows):
        _write(axes, f"{number(row.measured)} ms", row.measured, position, "left")
    axes.set_xlim(0, 1.15 * max([row.measured for row in rows], default=1.0))
    _labels(axes, rows)
    axes.set_xlabel("ms of a step (blue: phases; grey: operations of torch, profiled)")
    axes.set_title("Where a live step's time goes", loc="left")


def _write(axes: Axes, text: str, x: float, y: float, alignment: str) -> None:
    shift = 4 if alignment == "left" else -4
    axes.annotate(text, (x, y), (shift, 0), textcoords="offset points", va="center", ha=alignment, fontsize=8)


def _labels(axes: Axes, rows: list[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row.what for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
