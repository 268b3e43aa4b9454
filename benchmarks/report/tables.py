"""Every figure of the report as a table, in pandas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.report.cases import COSTS, Case, Suite, judged, tracks_of
from benchmarks.report.estimates import ALL, Line, ScopeResults
from benchmarks.report.explanations import BestPlan, Explanations
from benchmarks.statistics.intervals import Estimate

ALL_TASKS = "all tasks"
_PLAN_COLUMNS = (
    *("evaluation", "episode", "rate", "metric", "loss", *COSTS, "plan_return", "episode_return", "within_budget"),
    *("measured_seconds", "simulated_seconds"),
)


def scope_name(name: str) -> str:
    """What a scope is called where there is no empty name."""
    return ALL_TASKS if name == ALL else name


def runs(suite: Suite) -> pd.DataFrame:
    """A row for each run and track in which it is judged; failed runs have no numbers."""
    rows = [
        {
            "track": track,
            "task": case.name,
            "agent": run.agent,
            "seed": run.seed,
            "status": run.status,
            **{number: judged(case, run, track, number) for number in ("score", "return", "regret")},
            "on_test": case.on_test(run, track),
            "validation": case.validation.of(run),
            "hypervolume": case.hypervolume(run) if track == "search" else np.nan,
            "evaluations": run.evaluated,
            "seconds": run.seconds,
        }
        for case in suite.cases
        for run in case.runs
        for track in tracks_of(run)
    ]
    failed = [
        {"track": run.track, "task": run.task, "agent": run.agent, "seed": run.seed, "status": run.status, "seconds": run.seconds}
        for run in suite.failed
    ]
    return pd.DataFrame([*rows, *failed])


def scores(results: Iterable[ScopeResults]) -> pd.DataFrame:
    """The score table."""
    return pd.DataFrame([_score(each, line) for each in results for line in each.lines])


def _score(results: ScopeResults, line: Line) -> dict[str, Any]:
    head = {"task": scope_name(results.scope.name), "agent": line.agent, "number": results.scope.number}
    told = head | _columns(line.main) | {"planned": line.planned, "best_return": line.highest} | _columns(line.test, "on_test_")
    if line.regret is not None:
        told |= _columns(line.regret, "regret_") | {"optimum_found": line.optimal}
    if line.hypervolume is not None:
        told |= _columns(line.hypervolume, "hypervolume_")
    return told | {"stands_out": line.agent == results.winner}


def _columns(estimate: Estimate, prefix: str = "") -> dict[str, Any]:
    names = {"iqm": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
    return {f"{prefix}{name}": value for name, value in names.items()}


def improvement(results: Iterable[ScopeResults]) -> pd.DataFrame:
    """The chance that a run of the first agent beats one of the second."""
    rows = [
        {"task": scope_name(each.scope.name), "first": first, "second": second, "probability": found.value}
        | {"low": found.low, "high": found.high, "n": found.n}
        for each in results
        for (first, second), found in each.improvement.items()
    ]
    return pd.DataFrame(rows, columns=["task", "first", "second", "probability", "low", "high", "n"])


def profiles(results: Iterable[ScopeResults]) -> pd.DataFrame:
    """Performance profiles, a row a point."""
    return _curves([(each, each.scope.number, each.profiles) for each in results], "threshold", "share")


def anytime(results: Iterable[ScopeResults], axis: str, regret: bool) -> pd.DataFrame:
    """Anytime curves, a row a point."""
    found = [
        (each, number, curves)
        for each in results
        for (against, number), curves in each.curves.items()
        if against == axis and (number == "regret") == regret
    ]
    return _curves(found, axis, "iqm")


def _curves(found: Iterable[tuple[ScopeResults, str, Any]], place: str, value: str) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "task": scope_name(each.scope.name),
                "agent": agent,
                "number": number,
                place: curves.points,
                value: band.value,
                "low": band.low,
                "high": band.high,
                "n": band.n,
            }
        )
        for each, number, curves in found
        for agent, band in curves.lines.items()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def plans(case: Case) -> pd.DataFrame:
    """Every evaluated plan of a task; ``width:GROUP`` is how many channels of a group it keeps."""
    frames = []
    for run in case.runs:
        columns = {name: run.columns[name] for name in _PLAN_COLUMNS} | {name: case.returns(run, name) for name in _RETURNS}
        columns["group"] = np.array(run.groups)[run.columns["group"]]
        for name, shown in (("widths", "width"), ("bits", "bits"), ("ranks", "rank")):
            if name in run.columns:
                columns |= {f"{shown}:{group}": run.columns[name][:, i] for i, group in enumerate(run.groups)}
        frames.append(pd.DataFrame({"agent": run.agent, "seed": run.seed} | columns))
    return pd.concat(frames, ignore_index=True)


_RETURNS = ("plan_return", "episode_return")


def explained(plans: Sequence[BestPlan], explanations: Explanations) -> pd.DataFrame:
    """What undoing or deepening each cut of the best plans would do."""
    rows = []
    for plan in plans:
        groups, _ = explanations.of(plan)
        head = {"task": plan.case.name, "agent": plan.run.agent, "seed": plan.run.seed, "evaluation": plan.row + 1}
        rows += [head | group for group in groups or ()]
    return pd.DataFrame(rows)
