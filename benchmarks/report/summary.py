"""What the page is told of the runs, as JSON-able data; page/*.js draws it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.cases import COSTS, Case, Suite, tracks_of
from benchmarks.report.estimates import Curves, Line, ScopeResults
from benchmarks.report.explanations import BestPlan, Explanations
from benchmarks.report.origin import what_was_run
from benchmarks.report.packing import pack
from benchmarks.report.thinning import Rows, rows_on_page
from benchmarks.report.validation import CONFIRMED, REFUSED
from benchmarks.results import Run
from benchmarks.statistics.intervals import Estimate

DIGITS, CURVE_DIGITS = 7, 4
PLANS_ON_PAGE = 50_000  # of a task: what a browser draws and answers about at once
_SAME = 1e-6
# By suite and track.
Results = Mapping[str, Mapping[str, list[ScopeResults]]]


def page_data(
    suites: Sequence[Suite],
    results: Results,
    explanations: Mapping[str, Explanations],
    plans: Sequence[BestPlan],
    most: int = PLANS_ON_PAGE,
) -> tuple[dict[str, Any], dict[str, str]]:
    """All that the page shows.

    Args:
        suites: the runs.
        results: what is estimated, by suite and track.
        explanations: by suite.
        plans: the best ones, which are explained.
        most: plans of a task that the page holds, about; see `benchmarks.report.thinning`.

    Returns:
        The summary, and by name the packed plans of each task.
    """
    blocks: dict[str, str] = {}
    told = [
        _suite(i, suite, results[suite.name], explanations.get(suite.name), plans, blocks, most) for i, suite in enumerate(suites)
    ]
    agents = sorted({agent for suite in suites for agent in suite.agents})
    return {"title": " and ".join(suite.name for suite in suites), "agents": agents, "suites": told}, blocks


def _suite(
    index: int,
    suite: Suite,
    results: Mapping[str, list[ScopeResults]],
    explanations: Explanations | None,
    plans: Sequence[BestPlan],
    blocks: dict[str, str],
    most: int,
) -> dict[str, Any]:
    tasks = []
    for place, case in enumerate(suite.cases):
        block = f"plans-{index}-{place}"
        rows = rows_on_page(case, most)
        columns, blocks[block] = pack(_columns(case, rows))
        explained = [_explained(plan, explanations) for plan in plans if plan.case is case]
        tasks.append(_task(case, rows) | {"block": block, "columns": columns, "explanations": _by_plan(explained)})
    return {
        "name": suite.name,
        "tracks": [_track(track, results[track]) for track in suite.tracks],
        "tasks": tasks,
        "failures": [*map(_failure, suite.failed), *_without_plan(suite)],
        "on_test": [{"agent": run.agent, "task": run.task, "seed": run.seed} for run in suite.on_test],
        "validation": suite.validation.told(suite.runs),
        "unconfirmed": not _all_confirmed(suite),
        "refused": [_failure(run) | {"error": suite.validation.refusal(run)} for run in _refused(suite)],
        "run": what_was_run(suite),
        "counts": _counts(suite),
    }


def _refused(suite: Suite) -> list[Run]:
    return [run for run in suite.runs if suite.validation.of(run) == REFUSED]


def _all_confirmed(suite: Suite) -> bool:
    return all(suite.validation.of(run) == CONFIRMED for run in suite.runs if run.status == "done")


def _counts(suite: Suite) -> dict[str, int]:
    plans = sum(run.evaluated for run in suite.runs)
    seeds = len({run.seed for run in suite.runs})
    names = len({run.task for run in suite.runs})
    return {
        "runs": len(suite.runs),
        "failed": len(suite.failed),
        "plans": plans,
        "agents": len(suite.agents),
        "tasks": names,
        "seeds": seeds,
    }


def _track(track: str, results: Sequence[ScopeResults]) -> dict[str, Any]:
    agents = sorted({agent for each in results for agent in each.scope.agents})
    return {"name": track, "agents": agents, "scopes": {each.scope.name: _scope(each) for each in results}}


def _scope(results: ScopeResults) -> dict[str, Any]:
    scope = results.scope
    return {
        "number": scope.number,
        "tasks": len(scope.cases),
        "left_out": scope.left_out,
        "exact": scope.exact,
        "lines": [_line(line) for line in results.lines],
        "winner": results.winner,
        "profile": _curves(results.profiles),
        "improvement": [
            {"first": first, "second": second} | _estimate(each) for (first, second), each in results.improvement.items()
        ],
        "anytime": {f"{axis}:{number}": _curves(curves) for (axis, number), curves in results.curves.items()},
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "agent": line.agent,
        "main": _estimate(line.main),
        "test": _estimate(line.test),
        "regret": line.regret and _estimate(line.regret),
        "optimal": line.optimal,
        "hypervolume": line.hypervolume and _estimate(line.hypervolume),
        "highest": number(line.highest),
        "planned": line.planned,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    ends = {"low": number(estimate.low), "high": number(estimate.high)}
    return {"value": number(estimate.value)} | ends | {"n": estimate.n, "alike": estimate.alike}


def _curves(curves: Curves) -> dict[str, Any]:
    told = [
        {"agent": agent, "n": band.n} | {name: _numbers(getattr(band, name)) for name in ("value", "low", "high")}
        for agent, band in curves.lines.items()
    ]
    return {"points": _numbers(curves.points), "lines": told}


def _task(case: Case, rows: Sequence[Rows]) -> dict[str, Any]:
    start, runs = 0, []
    for run, held in zip(case.runs, rows, strict=True):
        best = case.best(run)
        runs.append(
            {
                "agent": run.agent,
                "seed": run.seed,
                "tracks": tracks_of(run),
                "start": start,
                "count": len(held),
                "refused": case.validation.of(run) == REFUSED,
                "episodes": int(run.columns["episode"].max(initial=0)),
                "best": None if best is None else start + int(np.searchsorted(held, best)),
                "best_return": None if best is None else number(float(case.returns(run)[best])),
            }
        )
        start += len(held)
    lead = case.lead
    return {
        "name": case.name,
        "groups": lead.groups,
        "sizes": lead.sizes,
        "metric": case.metric_name,
        "higher_is_better": case.higher_is_better,
        "dense": {name: lead.dense[name] for name in ("metric", *COSTS)},
        "cost": case.cost,
        "w": lead.scale["w"],
        "scale": lead.scale["scale"],
        "budget": case.budget,
        "exact": case.exact,
        "example_worth": number(case.example_worth),
        "uniform": number(case.anchors.uniform),
        "best_known": number(case.anchors.best),
        "count": start,
        "evaluated": sum(run.evaluated for run in case.runs),
        "runs": runs,
    }


def _columns(case: Case, rows: Sequence[Rows]) -> dict[str, NDArray[Any]]:
    """The plans that the page holds of all runs of a task, one run after the other."""
    runs = list(zip(case.runs, rows, strict=True))
    names = ["metric", *COSTS, "episode", "group", "within_budget", "widths"]
    names += [name for name in ("bits", "ranks") if name in case.lead.columns]
    if sum(map(len, rows)) < sum(run.evaluated for run in case.runs):
        names.append("evaluation")  # else it follows from the place
    columns = {name: np.concatenate([run.columns[name][held] for run, held in runs]) for name in names}
    returns = np.concatenate([case.returns(run)[held] for run, held in runs])
    episodes = np.concatenate([case.returns(run, "episode_return")[held] for run, held in runs])
    # The page works returns out of metric and cost; those that are nothing else need no place in it.
    if not np.allclose(returns, _from_columns(case, columns), rtol=0, atol=_SAME):
        columns["plan_return"] = returns
    if not np.allclose(returns, episodes, rtol=0, atol=_SAME):
        columns["episode_return"] = episodes
    return columns


def _from_columns(case: Case, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Returns as page/blocks.js works them out."""
    scale, dense = case.lead.scale, case.lead.dense
    metric, cost = columns["metric"] / dense["metric"], columns[case.cost] / dense[case.cost]
    with np.errstate(divide="ignore"):
        quality = metric if case.higher_is_better else np.where(metric > 1, 1 / metric, 2 - metric)
    return np.asarray((scale["w"] * (quality - 1) + (1 - scale["w"]) * (1 - cost)) / scale["scale"])


def _explained(plan: BestPlan, explanations: Explanations | None) -> dict[str, Any]:
    groups, error = explanations.of(plan) if explanations is not None else (None, None)
    found = {"agent": plan.run.agent, "seed": plan.run.seed, "evaluation": plan.row + 1}
    found["refused"] = plan.case.validation.of(plan.run) == REFUSED
    told = {name: number(float(plan.run.columns[name][plan.row])) for name in ("metric", *COSTS)}
    told["return"] = number(float(plan.case.returns(plan.run)[plan.row]))
    return {
        "found": [found],
        "plan": told,
        "levels": plan.levels,
        "groups": groups and [_rounded(each) for each in groups],
        "error": error,
    }


def _by_plan(explained: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Agents that found the same plan share one explanation; the best plan comes first."""
    shared: dict[Any, dict[str, Any]] = {}
    for each in explained:
        levels = each.pop("levels")
        if levels in shared:
            shared[levels]["found"] += each["found"]
        else:
            shared[levels] = each
    return sorted(shared.values(), key=lambda each: -each["plan"]["return"])


def _failure(run: Run) -> dict[str, Any]:
    return {"agent": run.agent, "task": run.task, "seed": run.seed, "error": run.error}


def _without_plan(suite: Suite) -> list[dict[str, Any]]:
    """Runs that are done and found no plan within the budget: they have no score either."""
    found = [run for case in suite.cases for run in case.of_track("search") if case.best(run) is None]
    return [_failure(run) | {"error": f"none of its {run.evaluated} plans met the budget"} for run in found]


def number(value: float, digits: int = DIGITS) -> float | None:
    """A number that JSON can hold, of so many significant digits; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.{digits}g}")


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [number(value, CURVE_DIGITS) for value in values.tolist()]


def _rounded(explanation: dict[str, Any]) -> dict[str, Any]:
    return {name: number(value) if isinstance(value, float) else value for name, value in explanation.items()}
