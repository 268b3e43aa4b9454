"""What an episode shows: to observations, in info, in pictures."""

from __future__ import annotations

from typing import Any

from reptile_env.actions import RATE_ALONE
from reptile_env.compression.plan import Request
from reptile_env.deciding import Outcome
from reptile_env.episode import Position, Rules, Scene
from reptile_env.observations import View
from reptile_env.rendering import Frame


def view(scene: Scene, rules: Rules, at: Position) -> View:
    """What observations are made of."""
    groups = len(scene.evaluator.sizes)
    cost = at.relative_cost
    return View(
        evaluator=scene.evaluator,
        plan=at.plan,
        group=at.group,
        quality=at.quality,
        relative_cost=cost,
        progress=1.0 if at.ended else (at.round * groups + at.group) / (rules.rounds * groups),
        budget_left=max(cost - rules.budget, 0.0) if rules.budget is not None else 0.0,
        previous_rate=at.previous_rate,
        components=rules.components,
        w=scene.reference.w,
    )


def info(
    scene: Scene, rules: Rules, at: Position, group: str, requested: Request, outcome: Outcome, *, measured: bool
) -> dict[str, Any]:
    """The info of a step that led to `at`, JSON-able."""
    measurement = at.measurement
    data: dict[str, Any] = {
        "task": scene.evaluator.name,
        "group": group,
        "rate_requested": requested.rate,
        "rate": outcome.rate,
    }
    if rules.components != RATE_ALONE:
        data |= {
            "bits_requested": requested.bits,
            "bits": outcome.bits,
            "rank_requested": requested.rank,
            "rank": outcome.rank,
        }
    data["measured"], data["budget_bit"] = measured, outcome.bit
    data["metric"], data["loss"] = measurement.metric, measurement.loss
    data.update(at.costs)
    data["utility"], data["plan"] = at.utility, at.plan.to_dict()
    data["seconds"] = measurement.seconds if measured else 0.0
    return data


def frame(scene: Scene, rules: Rules, at: Position, history: tuple[tuple[float, float], ...]) -> Frame:
    """What renderers draw."""
    return Frame(
        task=scene.evaluator.name,
        metric_name=scene.evaluator.metric_name,
        names=scene.evaluator.group_names,
        sizes=scene.evaluator.sizes,
        widths=at.plan.widths,
        current=None if at.ended else at.group,
        metric=at.measurement.metric,
        dense_metric=scene.reference.dense.metric,
        cost_name=rules.cost,
        relative_cost=at.relative_cost,
        budget=rules.budget,
        total=at.total,
        history=history,
        bits=at.plan.bits if "bits" in rules.components else None,
        ranks=at.plan.ranks if "rank" in rules.components else None,
    )
