"""What a compression did, as a picture: kept channels beside the trade-off of every plan seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.table import Entry, label
from agents.trace import Trace
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.reference import Reference

COST_NAMES = {"macs": "MACs"}  # where a cost is written otherwise than it is named
# Okabe & Ito's palette, which the colour-blind tell apart too.
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#E69F00", "#009E73", "#000000", "#D9D9D9"


def draw(path: Path, env: ReptilePruneEnv, entries: list[Entry], traces: dict[str, Trace]) -> None:
    """Write the picture.

    Args:
        path: a PNG file.
        env: of the task.
        entries: the table; the first is the dense network, the second the best uniform rate, one is chosen.
        traces: whose plans are shown, by agent.
    """
    # Without pyplot: nothing global is touched and no display is needed.
    figure = Figure(figsize=(12, 0.42 * max(len(env.groups), 8) + 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    _channels(left, env, entries)
    _tradeoff(right, env, entries, traces)
    figure.suptitle(_headline(env, entries), fontsize=12)
    figure.savefig(path, dpi=130)


def _headline(env: ReptilePruneEnv, entries: list[Entry]) -> str:
    dense, chosen = entries[0], next(entry for entry in entries if entry.chosen)
    which = "valid" if chosen.test is None else "test"
    before, after = getattr(dense, which), getattr(chosen, which)
    cost, dense_cost = getattr(chosen, env.reference.cost), getattr(dense, env.reference.cost)
    name = COST_NAMES.get(env.reference.cost, env.reference.cost)
    return (
        f"{env.evaluator.name}: {_amount(dense_cost)} to {_amount(cost)} {name} ({cost / dense_cost:.0%}), "
        f"{which} {env.evaluator.metric_name} {before:.4f} to {after:.4f}"
    )


def _amount(cost: float) -> str:
    return f"{cost:,}" if isinstance(cost, int) else f"{1000 * cost:.3g} ms"


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)


def _channels(axes: Axes, env: ReptilePruneEnv, entries: list[Entry]) -> None:
    chosen = next(entry for entry in entries if entry.chosen)
    uniform = entries[1]
    assert chosen.plan is not None
    assert uniform.plan is not None
    sizes, kept, evenly = env.evaluator.sizes, chosen.plan.widths, uniform.plan.widths
    rows = np.arange(len(sizes))
    axes.barh(rows, sizes, color=GREY, height=0.72, label="dense")
    axes.barh(rows, kept, color=GREEN, height=0.72, label=f"kept ({chosen.name})")
    if chosen is not uniform:
        axes.vlines(evenly, rows - 0.36, rows + 0.36, color=BLACK, lw=2, label="kept (best uniform)")
    for row, size, width in zip(rows, sizes, kept, strict=True):
        axes.annotate(f"{width} of {size}", (size, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(rows, env.evaluator.group_names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(sizes))
    axes.set_xlabel("channels")
    axes.set_title("Kept channels of each group", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes)


def _tradeoff(axes: Axes, env: ReptilePruneEnv, entries: list[Entry], traces: dict[str, Trace]) -> None:
    reference = env.reference
    upward = 1 if reference.higher_is_better else -1
    known = [entry.valid for entry in entries if entry.valid is not None]
    # Bad plans are many and far away: the axis shows where the good ones are, and what lies beyond sits on its edge.
    span = max(2.5 * (max(known) - min(known)), 0.05 * abs(reference.dense.metric))
    edge = reference.dense.metric - upward * span
    colors = dict(zip(traces, (ORANGE, BLUE), strict=False))
    for name, trace in traces.items():
        _plans(axes, name, trace, reference, edge, colors[name])
    _same_return(axes, reference)
    _marks(axes, entries, reference, {label(name): color for name, color in colors.items()})
    budget = next(iter(traces.values())).env_settings.get("budget")
    if budget is not None:
        axes.axvline(budget, color=BLACK, lw=1, ls=":", label=f"budget {budget:g}")
    axes.set_ylim(*sorted([edge - upward * 0.03 * span, max(known, key=lambda v: upward * v) + upward * 0.12 * span]))
    axes.set_xlim(0, 1.05)
    axes.set_xlabel(f"{COST_NAMES.get(reference.cost, reference.cost)} relative to dense")
    axes.set_ylabel(f"validation {env.evaluator.metric_name}")
    axes.set_title("Every plan seen (triangles: worse than the axis shows)", fontsize=11, loc="left")
    axes.grid(color=GREY, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes)


def _plans(axes: Axes, name: str, trace: Trace, reference: Reference, edge: float, color: str) -> None:
    upward = 1 if reference.higher_is_better else -1
    costs = np.array([getattr(row, reference.cost) for row in trace.rows]) / reference.dense.cost(reference.cost)
    metrics = np.array([row.metric for row in trace.rows])
    beyond = upward * (metrics - edge) < 0
    at_edge = np.full(int(beyond.sum()), edge)
    axes.scatter(costs[~beyond], metrics[~beyond], s=10, color=color, alpha=0.5, lw=0)
    axes.scatter(costs[beyond], at_edge, s=14, color=color, alpha=0.3, lw=0, marker="v" if upward > 0 else "^")
    # Drawn for the legend alone: the dots themselves are too small and pale there.
    axes.scatter([], [], s=30, color=color, lw=0, label=f"{label(name)}, {len(metrics):,} plans")


def _marks(axes: Axes, entries: list[Entry], reference: Reference, colors: dict[str, str]) -> None:
    for position, entry in enumerate(entries):
        if entry.valid is None:
            continue
        if entry.chosen:
            marker, size, color, text = "*", 280.0, GREEN, f"chosen ({entry.name})"
        elif position < 2:
            marker, size, color, text = "D" if position == 0 else "s", 60.0, BLACK, entry.name
        else:
            marker, size, color, text = "P", 110.0, colors[entry.name], f"best of {entry.name}"
        cost = getattr(entry, reference.cost) / reference.dense.cost(reference.cost)
        axes.scatter([cost], [entry.valid], s=size, color=color, marker=marker, edgecolors=BLACK, lw=0.8, zorder=5, label=text)


def _same_return(axes: Axes, reference: Reference) -> None:
    """The line on which plans are worth as much as the best uniform rate: better ones lie left of it."""
    costs = np.linspace(0, 1, 50)
    quality = (reference.w + reference.scale - (1 - reference.w) * (1 - costs)) / reference.w
    metrics = reference.dense.metric * (quality if reference.higher_is_better else 1 / quality)
    axes.plot(costs[quality > 0], metrics[quality > 0], color=BLACK, lw=1, ls="--", label="return 1")
