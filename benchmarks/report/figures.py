"""The figures of the report as pictures, in the colours, dashes and markers of its page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.report.cases import Case
from benchmarks.report.estimates import Curves, ScopeResults
from benchmarks.report.page import FOLDER
from benchmarks.report.tables import scope_name
from benchmarks.statistics.pareto import front

GREY, BLACK = "#D9D9D9", "#000000"
COST_NAMES = {"macs": "MACs"}
# As page/agents.js has them.
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.5), (4.5, 1.5, 1, 1.5))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_COLOURS = re.findall(r"--series-\d: light-dark\((#\w{6})", (FOLDER / "style.css").read_text(encoding="utf-8"))
_COLUMNS, _WIDTH, _HEIGHT = 3, 4.6, 3.4  # panels beside each other, and inches of each
_MARKS_A_LINE = 6
_LEAST_SPREAD = 0.3  # as page/scores.js has it


class Looks:
    """How each agent looks, as on the page.

    Args:
        agents: all of the report, sorted.
    """

    def __init__(self, agents: Sequence[str]) -> None:
        self._places = {agent: place for place, agent in enumerate(agents)}

    def colour(self, agent: str) -> str:
        """A hexadecimal colour."""
        return _COLOURS[self._places[agent] % len(_COLOURS)]

    def marker(self, agent: str) -> str:
        """A marker of matplotlib."""
        return _MARKERS[self._places[agent] % len(_MARKERS)]

    def dash(self, agent: str) -> tuple[float, tuple[float, ...] | None]:
        """A line style of matplotlib."""
        return 0, _DASHES[self._places[agent] % len(_DASHES)] or None


def scores(results: Sequence[ScopeResults], looks: Looks) -> Figure:
    """Interquartile means with their intervals, a panel for each scope."""

    def draw(axes: Axes, each: ScopeResults) -> None:
        for place, line in enumerate(reversed(each.lines)):
            colour, main = looks.colour(line.agent), line.main
            if main.has_interval:
                axes.hlines(place, main.low, main.high, color=colour, lw=3)
            axes.plot([main.value], [place], looks.marker(line.agent), color=colour, ms=7)
        names = [f"{line.agent} (n={line.main.n})" for line in reversed(each.lines)]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(f"{each.scope.number} (mean of the middle half, 95 %)")

    most = max((len(each.lines) for each in results), default=1)
    return _panels(results, draw, height=max(1.6, 0.32 * most + 1.1))


def profiles(results: Sequence[ScopeResults], looks: Looks) -> Figure:
    """Performance profiles, a panel for each scope."""

    def draw(axes: Axes, each: ScopeResults) -> None:
        _lines(axes, each.profiles, looks)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel(each.scope.number)
        axes.set_ylabel("share of runs above it")

    return _panels(results, draw, legend=True)


def anytime(results: Sequence[ScopeResults], axis: str, regret: bool, looks: Looks) -> Figure:
    """Anytime curves, a panel for each scope that has them."""

    def curves_of(each: ScopeResults) -> Curves | None:
        return each.curves.get((axis, "regret" if regret else each.scope.number))

    def draw(axes: Axes, each: ScopeResults) -> None:
        curves = curves_of(each)
        assert curves is not None
        _lines(axes, curves, looks)
        ends = [band.value[~np.isnan(band.value)][-1] for band in curves.lines.values() if (~np.isnan(band.value)).any()]
        if ends:
            spread = max(max(ends) - min(ends), _LEAST_SPREAD)
            low, high = (0.0, max(ends) + spread) if regret else (min(ends) - spread, max(ends) + 0.1 * spread)
            axes.set_ylim(low, high)
        if curves.points[-1] > 0:
            axes.set_xlim(left=curves.points[curves.points > 0][0])
            axes.set_xscale("log")
        axes.set_xlabel("evaluated plans" if axis == "evaluations" else "simulated seconds")
        axes.set_ylabel("regret" if regret else f"{each.scope.number} of the best plan so far")

    return _panels([each for each in results if curves_of(each)], draw, legend=True)


def improvement(each: ScopeResults) -> Figure:
    """The chance that the agent on the left beats the one below, as a matrix."""
    names = [line.agent for line in each.lines]
    chances = np.full((len(names), len(names)), np.nan)
    for (first, second), found in each.improvement.items():
        chances[names.index(first), names.index(second)] = found.value
        chances[names.index(second), names.index(first)] = 1 - found.value
    side = 0.55 * len(names) + 1.8
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    axes.imshow(chances, cmap="PuOr_r", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for i, j in np.argwhere(~np.isnan(chances)):
        strong = abs(chances[i, j] - 0.5) > 0.3
        axes.text(j, i, f"{chances[i, j]:.2f}", ha="center", va="center", fontsize=9, color="white" if strong else BLACK)
    axes.set_title(f"{scope_name(each.scope.name)}: left beats below", fontsize=10, loc="left")
    return figure


def plans(case: Case, looks: Looks) -> Figure:
    """Every plan of a task, cost against metric, with the front."""
    figure = _figure(8, 5.4)
    axes = figure.subplots()
    costs = np.concatenate([case.relative_cost(run) for run in case.runs])
    metrics = np.concatenate([run.columns["metric"] for run in case.runs])
    owners = np.concatenate([[run.agent] * run.evaluated for run in case.runs])
    for agent in dict.fromkeys(owners.tolist()):
        own = owners == agent
        # Thousands of dots as one image: as shapes they would make an SVG that nothing opens.
        style: dict[str, Any] = {"s": 8, "alpha": 0.5, "lw": 0, "rasterized": True}
        axes.scatter(costs[own], metrics[own], color=looks.colour(agent), marker=looks.marker(agent), **style)
        axes.scatter([], [], s=30, color=looks.colour(agent), marker=looks.marker(agent), label=f"{agent}, {own.sum():,} plans")
    upward, dense = (1 if case.higher_is_better else -1), float(case.lead.dense["metric"])
    best = front(costs, upward * metrics)
    axes.step(costs[best], metrics[best], where="post", color=BLACK, lw=1.5, label="front")
    axes.plot([1], [dense], "D", color=BLACK, ms=6, label="dense")
    if case.budget is not None:
        axes.axvline(case.budget, color=BLACK, lw=1, ls=":", label=f"budget {case.budget:g}")
    # Bad plans are many and far away.
    edge = 0.75 * dense if case.higher_is_better else dense / 0.75
    far = max(upward * np.append(metrics, dense)) * upward
    axes.set_ylim(*sorted((edge, far + 0.04 * (far - edge))))
    axes.set_xlim(0, 1.03)
    axes.set_xlabel(f"{COST_NAMES.get(case.cost, case.cost)} relative to dense")
    axes.set_ylabel(f"validation {case.metric_name}")
    axes.set_title(f"{case.name}: every plan, and the front that none beats in both", fontsize=11, loc="left")
    _plain(axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _lines(axes: Axes, curves: Curves, looks: Looks) -> None:
    for place, (agent, band) in enumerate(curves.lines.items()):
        every = max(1, len(curves.points) // _MARKS_A_LINE)
        marks = slice(every * (place + 1) // 8 % every, None, every)
        style: dict[str, Any] = {
            "color": looks.colour(agent),
            "ls": looks.dash(agent),
            "marker": looks.marker(agent),
            "ms": 5,
            "markevery": marks,
        }
        axes.plot(curves.points, band.value, lw=1.5, label=agent, **style)
        axes.fill_between(curves.points, band.low, band.high, color=looks.colour(agent), alpha=0.14, lw=0)
    drawn = np.any([~np.isnan(band.value) for band in curves.lines.values()], axis=0)
    if drawn.sum() > 1:
        axes.set_xlim(curves.points[0], curves.points[drawn][-1])


def _panels(
    results: Sequence[ScopeResults], draw: Callable[[Axes, ScopeResults], None], height: float = _HEIGHT, legend: bool = False
) -> Figure:
    columns = min(_COLUMNS, max(1, len(results)))
    lines = -(-len(results) // columns) or 1
    figure = _figure(_WIDTH * columns, height * lines + (0.5 if legend else 0))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, each in zip(panels, results, strict=False):
        draw(axes, each)
        axes.set_title(scope_name(each.scope.name), fontsize=11, loc="left")
        _plain(axes)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    if legend:
        _legend(figure, panels[: len(results)])
    return figure


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: nothing global is touched and no display is needed.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color=GREY, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
