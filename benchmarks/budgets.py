"""Calibration under budgets: what uniform, random and searched plans yield when the final cost is capped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from agents.cma_es import CmaEs
from agents.random_search import RandomSearch
from agents.uniform import Uniform
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv

BUDGETS = (0.25, 0.5, 0.75)  # of the dense network's MACs
SAMPLE = 200  # plans of "best of 200"

Progress = Callable[[str, float], None]


class Found(NamedTuple):
    """A plan that may be the best known one.

    Attributes:
        value: its return.
        by: what found it.
        plan: the plan.
        command: what finds it again, where that is known.
    """

    value: float
    by: str
    plan: Plan
    command: str | None = None

    @property
    def origin(self) -> dict[str, str]:
        """Its part of an entry of ``references.json``."""
        return {"found_by": self.by} | ({"command": self.command} if self.command else {})


def best_of(returns: Sequence[float], size: int = SAMPLE) -> float:
    """Mean of the best returns of samples of `size` plans; what makes no whole sample is left out, unless there is no other."""
    whole = max(len(returns) // size, 1) * size
    return float(np.mean([max(returns[i : i + size]) for i in range(0, whole, size)]))


def budgeted(
    name: str,
    budget: float,
    plans: int,
    evaluations: int,
    progress: Progress,
    known: Mapping[str, Any] | None = None,
    command: str | None = None,
    w: float | None = None,
) -> dict[str, Any]:
    """References of a task whose final MACs are capped.

    Args:
        name: a built-in task.
        budget: cap as a fraction of the dense network's MACs.
        plans: random ones; they fill the budget.
        evaluations: of the search for the best known plan.
        progress: told of the step and the fraction of it done.
        known: the references so far; their best plan stays where no better one is found.
        command: what finds again what is found here.
        w: weight of the metric in the utility; None takes the task's own.

    Returns:
        ``uniform``, ``random`` and ``best_known``, each with returns on the scale of the task without a cap.
    """
    env = gym.make("ReptilePrune-v0", task=name, measure="round", budget=budget, w=w)
    step = f"{budget:.0%} of the MACs"
    uniform = Uniform("uniform").run(env, len(inner_of(env).uniform_sweep), 0).best
    drawn = RandomSearch("random").run(
        env, plans, 0, listeners=[lambda trace, row, improved: progress(f"{step}, random", row.evaluation / plans)]
    )
    searched = CmaEs("cma-es").run(
        env, evaluations, 0, listeners=[lambda trace, row, improved: progress(f"{step}, cma-es", row.evaluation / evaluations)]
    )
    assert uniform is not None
    assert drawn.best is not None
    assert searched.best is not None
    candidates = [
        Found(uniform.plan_return, "the uniform sweep", uniform.plan, command),
        Found(drawn.best.plan_return, f"random, {plans} plans, seed 0", drawn.best.plan, command),
        Found(searched.best.plan_return, f"cma-es, {evaluations} evaluations, seed 0", searched.best.plan, command),
        *(optimum._replace(command=command) for optimum in table_optimum(env, name, budget=budget, w=w)),
        *known_best(env, known, budget),
    ]
    best = max(candidates, key=lambda candidate: candidate.value)
    returns = [row.plan_return for row in drawn.rows]
    inner = inner_of(env)
    dense, measured = inner.reference.dense.macs, inner.measure(best.plan)
    return {
        "uniform": {"rate": uniform.rate, "return": uniform.plan_return},
        "random": {
            "plans": plans,
            "mean": float(np.mean(returns)),
            "best_of_200": best_of(returns),
            "mean_relative_cost": float(np.mean([row.macs for row in drawn.rows])) / dense,
        },
        "best_known": {
            "return": best.value,
            "valid": measured.metric,
            "relative_cost": measured.macs / dense,
            **best.origin,
            "plan": best.plan.to_dict(),
        },
    }


def share_best(entry: dict[str, Any], test: Callable[[Plan], float]) -> None:
    """Let every cap of an entry of ``references.json`` have the best plan that was found under any and meets it.

    A search under one cap may find what those under the others missed.

    Args:
        entry: with ``best_known`` and ``budgets``; changed in place.
        test: metric of a plan on the test split.
    """
    caps = {budget: float(budget) for budget in entry["budgets"]}
    found = {"none": dict(entry["best_known"])} | {budget: dict(entry["budgets"][budget]["best_known"]) for budget in caps}
    for budget, cap in {"none": np.inf, **caps}.items():
        fitting = {other: best for other, best in found.items() if best["relative_cost"] <= cap}
        other = max(fitting, key=lambda name: (fitting[name]["return"], name == budget))
        if other == budget:
            continue
        shared = ("return", "valid", "relative_cost", "found_by", "command", "plan")
        best = {key: fitting[other][key] for key in shared if key in fitting[other]}
        where = "without a cap" if other == "none" else f"with at most {float(other):.0%} of the MACs"
        best["found_by"] = f"{best['found_by']} ({where})"
        if budget == "none":
            entry["best_known"].pop("command", None)  # of the plan that gives way; the other's may not be known
            entry["best_known"] |= best | {"test": test(Plan.from_dict(best["plan"]))}
        else:
            entry["budgets"][budget]["best_known"] = best


def table_optimum(env: gym.Env[Any, Any], name: str, **settings: Any) -> Iterator[Found]:
    """The best plan of the task's table, if there is one, as the running network measures it.

    Args:
        env: the environment of the running network.
        name: of the task.
        settings: of the environment on the table.
    """
    try:
        table = gym.make("ReptilePrune-v0", task=name, evaluator="table", measure="round", **settings)
    except ValueError as error:
        if "no table" in str(error) or "can't be reached" in str(error):
            return
        raise
    plan, _ = inner_of(table).optimum()
    inner = inner_of(env)
    yield Found(inner.reference.return_of(inner.measure(plan)), "the optimum of the task's table", plan)


def known_best(env: gym.Env[Any, Any], known: Mapping[str, Any] | None, budget: float = math.inf) -> Iterator[Found]:
    """The best plan known so far, as the running network measures it; none where the network has changed since.

    Args:
        env: the environment of the running network.
        known: entry of ``references.json``, or of one of its budgets; None for a task that was never calibrated.
        budget: cap as a fraction of the dense network's MACs, which the plan has to meet.
    """
    if known is None:
        return
    best, inner = known["best_known"], inner_of(env)
    plan = Plan.from_dict(best["plan"])
    try:
        measured = inner.measure(plan)
    except ValueError:  # groups or channels of another network
        return
    if measured.macs <= budget * inner.reference.dense.macs:
        yield Found(inner.reference.return_of(measured), best["found_by"], plan, best.get("command"))


def described(inner: ReptilePruneEnv, plan: Plan) -> dict[str, Any]:
    """What ``references.json`` says of a best known plan, but where it comes from."""
    measured, reference = inner.measure(plan), inner.reference
    return {
        "return": reference.return_of(measured),
        "valid": measured.metric,
        "relative_cost": measured.cost(reference.cost) / reference.dense_cost,
        "plan": plan.to_dict(),
    }


def inner_of(env: gym.Env[Any, Any]) -> ReptilePruneEnv:
    """The environment within its wrappers."""
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    return inner
