"""What the plans that a run is scored by are worth here: on the validation split once more, and on the test split.

Agents choose plans by the validation split, so the one that looks hardest fits its examples best; the test split nobody chose by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from agents.uniform import Uniform
from benchmarks.budgets import inner_of
from benchmarks.replay import Replay
from benchmarks.results import Run, best_row
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import Reference
from reptile_env.rewards import quality, utility


@dataclass(frozen=True)
class HeldOut:
    """Returns of the plans that count, on the run's own scale, as they are measured now.

    Attributes:
        valid: ``best`` and ``policy`` on the validation split; None where the run has no such plan.
        test: ``best``, ``policy`` and ``uniform``, the best uniform setting's, with the metric of the test split; None where the
            task has none.
    """

    valid: dict[str, float | None]
    test: dict[str, float | None] | None


def held_out(run: Run) -> HeldOut:
    """Measure the plans that a run is scored by.

    Args:
        run: that is done, and whose decisions can be made again.
    """
    replay = Replay(run)
    try:
        env, plans = replay.env, _plans(run, replay)
        valid = {name: None if plan is None else env.reference.return_of(env.measure(plan)) for name, plan in plans.items()}
        return HeldOut(valid, _tested(env, plans | {"uniform": best_uniform(run, env)}))
    finally:
        replay.close()


def return_on_test(reference: Reference, dense: Measurement, measured: Measurement) -> float:
    """The return with the metric of the test split, on the scale of the validation return.

    Args:
        reference: of the validation split.
        dense: the dense network on the test split.
        measured: a plan there.
    """
    relative = quality(measured.metric, dense.metric, reference.higher_is_better)
    cost = measured.cost(reference.cost) / reference.dense_cost
    return (utility(reference.w, relative, cost) - utility(reference.w, 1.0, 1.0)) / reference.scale


def _plans(run: Run, replay: Replay) -> dict[str, Plan | None]:
    rows = {"best": best_row(run), "policy": None if run.policy_evaluation is None else run.policy_evaluation - 1}
    plans: dict[str, Plan | None] = {}
    for name, row in rows.items():
        reached = row is not None and replay.measured(row) is not None
        plans[name] = replay.env.plan if reached else None
    return plans


def best_uniform(run: Run, env: ReptilePruneEnv) -> Plan | None:
    """The plan of the best uniform setting; under a budget, of those that meet it."""
    if run.settings.get("budget") is None:
        return env.reference.uniform_plan
    settings: dict[str, Any] = run.settings | {"measure": "round"}
    capped = gym.make(run.env_id, **settings)
    try:
        best = Uniform("uniform").run(capped, len(inner_of(capped).uniform_sweep), 0).best
    finally:
        capped.close()
    return None if best is None else best.plan


def _tested(env: ReptilePruneEnv, plans: dict[str, Plan | None]) -> dict[str, float | None] | None:
    if not env.evaluator.has_test:
        return None
    dense = env.evaluator.test(env.evaluator.dense)
    return {
        name: None if plan is None else return_on_test(env.reference, dense, env.evaluator.test(plan))
        for name, plan in plans.items()
    }
