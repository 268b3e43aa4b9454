"""Calibration of a task: what dense, uniform, random and searched plans yield, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

import reptile_env
from agents.base import Agent
from agents.cma_es import CmaEs
from agents.coordinate_ascent import CoordinateAscent
from agents.random_search import RandomSearch
from agents.trace import Row
from benchmarks.budgets import BUDGETS, SAMPLE, Found, best_of, budgeted, inner_of, known_best, share_best, table_optimum
from benchmarks.times import measured_times
from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.reference import uniform_plan

RANDOM_PLANS = 2000  # ten samples of 200, so that "best of 200" is a mean and not one draw
SEARCH_EVALUATIONS = 5000  # of each search
CAPPED_PLANS = 600  # random ones under each budget
CAPPED_SHARE = 2  # a search under a budget has this part of the evaluations
Progress = Callable[[str, float], None]


def calibrate(
    name: str,
    progress: Progress = lambda step, done: None,
    evaluations: int = SEARCH_EVALUATIONS,
    w: float | None = None,
    budgets: Sequence[float] = BUDGETS,
    known: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The entry of a task in ``references.json``.

    Args:
        name: a built-in task; its environment is made with the default settings.
        progress: told of the step and the fraction of it done.
        evaluations: of each search; random plans are at most as many.
        w: weight of the metric in the utility; None takes the task's own.
        budgets: caps under which it is calibrated too.
        known: the entry so far; its best plans, measured anew, stay where the searches find no better ones.
        command: what calibrates it so; None for ``checkpoints``.

    Raises:
        ValueError: the task shows too little: mean random < 0 < uniform 1 < best of 200 random + 0.1 < best known, and best
            known at least 1.15, are what a benchmark task has to show.
    """
    env = gym.make("ReptilePrune-v0", task=name, measure="round", w=w)
    inner = inner_of(env)
    evaluator, reference = inner.evaluator, inner.reference
    assert isinstance(evaluator, LiveEvaluator)
    settings = evaluator.settings
    sweep = [(rate, evaluator.measure(uniform_plan(evaluator, rate))) for rate in uniform_rates(DEFAULT_MAX_RATE)]
    plans = min(RANDOM_PLANS, max(evaluations, SAMPLE))
    rows = _rows(env, RandomSearch("random"), plans, lambda done: progress("random plans", done))
    drawn = [row.plan_return for row in rows]
    best_of_200 = best_of(drawn)
    command = command or f"python -m benchmarks checkpoints {name} --calibrate-only --evaluations {evaluations}"
    found = []
    for agent in (CoordinateAscent("coordinate-ascent"), CmaEs("cma-es")):
        trace = agent.run(env, evaluations, 0, listeners=[_told(agent.name, evaluations, progress)])
        assert trace.best is not None
        by = f"{agent.name}, {evaluations} evaluations, seed 0"
        found.append(Found(trace.best.plan_return, by, trace.best.plan, command))
    found.extend(optimum._replace(command=command) for optimum in table_optimum(env, name, w=w))
    found.extend(known_best(env, known))
    best = max(found, key=lambda candidate: candidate.value)
    dense_test, best_test = evaluator.test(evaluator.dense), evaluator.test(best.plan)
    entry = {
        "settings": {
            "recovery": settings.recovery,
            "importance": settings.importance,
            "granularity": settings.granularity,
            "cost": reference.cost,
            "max_rate": DEFAULT_MAX_RATE,
        },
        "groups": len(evaluator.sizes),
        "params": reference.dense.params,
        "macs": reference.dense.macs,
        "w": reference.w,
        "scale": reference.scale,
        "dense": {"valid": reference.dense.metric, "test": dense_test.metric},
        "uniform": {
            "rate": reference.uniform_rate,
            "sweep": [{"rate": rate, "metric": m.metric, "cost": m.cost(reference.cost)} for rate, m in sweep],
        },
        "random": {"plans": plans, "mean": float(np.mean(drawn)), "best_of_200": best_of_200, "best": max(drawn)},
        "best_known": {
            "return": best.value,
            "valid": evaluator.measure(best.plan).metric,
            "test": best_test.metric,
            "relative_cost": best_test.cost(reference.cost) / reference.dense.cost(reference.cost),
            **best.origin,
            "plan": best.plan.to_dict(),
        },
        "reptile_env": reptile_env.__version__,
    }
    check(name, entry)
    entry |= measured_times(name, w)  # the machine's numbers, not the task's
    capped = max(evaluations // CAPPED_SHARE, 1)
    before = (known or {}).get("budgets", {})
    entry["budgets"] = {
        f"{budget:g}": budgeted(name, budget, min(CAPPED_PLANS, capped), capped, progress, before.get(f"{budget:g}"), command, w)
        for budget in budgets
    }
    share_best(entry, lambda better: evaluator.test(better).metric)
    return entry


def check(name: str, entry: dict[str, Any]) -> None:
    """Refuse a task that separates nothing.

    Raises:
        ValueError: says which of the conditions does not hold.
    """
    mean, best_of_200, best = entry["random"]["mean"], entry["random"]["best_of_200"], entry["best_known"]["return"]
    conditions = {
        f"mean random ({mean:.3f}) < 0": mean < 0,
        f"best of 200 random ({best_of_200:.3f}) > uniform 1": best_of_200 > 1,
        f"best of 200 random ({best_of_200:.3f}) + 0.1 <= best known ({best:.3f})": best_of_200 + 0.1 <= best,
        f"best known ({best:.3f}) >= 1.15": best >= 1.15,
    }
    broken = [text for text, holds in conditions.items() if not holds]
    if broken:
        raise ValueError(f"task {name!r} is no benchmark: not {'; not '.join(broken)}. Change its network or its w")


def _rows(env: gym.Env[Any, Any], agent: Agent, plans: int, progress: Callable[[float], None]) -> list[Row]:
    return agent.run(env, plans, 0, listeners=[lambda trace, row, improved: progress(row.evaluation / plans)]).rows


def _told(name: str, evaluations: int, progress: Progress) -> Callable[..., None]:
    return lambda trace, row, improved: progress(name, row.evaluation / evaluations)
