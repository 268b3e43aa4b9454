"""Every figure of the report as PNG, SVG, CSV and Parquet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.report import figures, tables
from benchmarks.report.cases import Suite
from benchmarks.report.estimates import ALL, AXES, ScopeResults
from benchmarks.report.explanations import BestPlan, Explanations

# A name without its suffix, its table, and its picture where there is one.
Item = tuple[str, pd.DataFrame, Callable[[], Figure] | None]


def write_files(
    folder: Path,
    suite: Suite,
    results: Mapping[str, list[ScopeResults]],
    plans: Sequence[BestPlan],
    explanations: Explanations,
    looks: figures.Looks,
) -> None:
    """Write the figures of a suite.

    Args:
        folder: is made.
        suite: the runs.
        results: what is estimated, by track.
        plans: the best ones.
        explanations: of these.
        looks: of the agents.
    """
    items = [*_of_suite(suite, plans, explanations, looks)]
    for track, found in results.items():
        items += [(f"{track}/{name}", table, picture) for name, table, picture in _of_track(found, looks)]
    for name, table, picture in items:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not table.empty:
            # Plans are many: their CSV is compressed.
            table.to_csv(f"{path}.csv.gz" if name.startswith("plans") else f"{path}.csv", index=False)
            table.to_parquet(f"{path}.parquet", index=False)
        if picture is not None:
            figure = picture()
            figure.savefig(f"{path}.png", dpi=150)
            figure.savefig(f"{path}.svg", dpi=150, metadata={"Date": None})


def _of_suite(suite: Suite, plans: Sequence[BestPlan], explanations: Explanations, looks: figures.Looks) -> Iterator[Item]:
    yield "runs", tables.runs(suite), None
    yield "why", tables.explained([plan for plan in plans if plan.case in suite.cases], explanations), None
    for case in suite.cases:
        if any(run.evaluated for run in case.runs):
            yield f"plans-{case.name}", tables.plans(case), functools.partial(figures.plans, case, looks)


def _of_track(results: Sequence[ScopeResults], looks: figures.Looks) -> Iterator[Item]:
    if not results:
        return
    yield "scores", tables.scores(results), functools.partial(figures.scores, results, looks)
    yield "profiles", tables.profiles(results), functools.partial(figures.profiles, results, looks)
    pairs = [each for each in results if each.improvement]
    if pairs:
        whole = next((each for each in pairs if each.scope.name == ALL), pairs[0])
        yield "improvement", tables.improvement(results), functools.partial(figures.improvement, whole)
    for axis in AXES:
        for regret in (False, True):
            table = tables.anytime(results, axis, regret)
            if not table.empty:
                name = f"{'regret' if regret else 'anytime'}-{axis}"
                yield name, table, functools.partial(figures.anytime, results, axis, regret, looks)
