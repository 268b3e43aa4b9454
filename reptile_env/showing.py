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
    cost = scene.relative_cost(at.plan)
    return View(
        evaluator=scene.evaluator,
        plan=at.plan,
        group=at.group,
        quality=scene.reference.quality(at.measurement),
        relative_cost=cost,
        progress=1.0 if at.ended else (at.round * groups + at.group) / (rules.rounds * groups),
        budget_left=max(cost - rules.budget, 0.0) if rules.budget is not None else 0.0,
        previous_rate=at.previous_rate,
        components=rules.components,
    )


def info(
    scene: Scene, rules: Rules, at: Position, group: str, requested: Request, outcome: Outcome, *, measured: bool
) -> dict[str, Any]:
    """The info of a step that led to `at`, JSON-able."""
    data = {
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
    return data | {
        "measured": measured,
        "budget_bit": outcome.bit,
        "metric": at.measurement.metric,
        "loss": at.measurement.loss,
        **scene.evaluator.costs.all(*at.plan.levels),
        "utility": scene.reference.utility(at.measurement),
        "plan": at.plan.to_dict(),
        "seconds": at.measurement.seconds if measured else 0.0,
    }


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
        relative_cost=scene.relative_cost(at.plan),
        budget=rules.budget,
        total=at.total,
        history=history,
    )
