"""Why a plan is as it is: what undoing or deepening each cut would do, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.compression.plan import FLOAT_BITS, Plan, removal_count
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.reference import make_reference
from reptile_env.evaluation.settings import check_cost, make_settings

STEP = 0.1  # of a group's dense channels: how much deeper "one step deeper" is
UNITS = {"structured": "channels", "unstructured": "weights", "2:4": "pairs of every four weights"}


@dataclass(frozen=True)
class GroupExplanation:
    """One group of a plan, with what the alternatives measure on the validation split.

    Attributes:
        group: name of the group.
        kept: channels that the plan keeps.
        size: channels of the dense network.
        sensitivity: rise of the calibration loss when this group alone is halved.
        saved: share of the dense cost that this cut alone saves.
        undo_metric: change of the metric if this group were given back whole.
        undo_cost: change of the cost, relative to dense, by that.
        undo_return: change of the return by that.
        deeper_metric: change of the metric if the group lost a tenth of its dense channels more.
        deeper_cost: change of the cost, relative to dense, by that.
        deeper_return: change of the return by that.
        reason: these numbers in a sentence.
    """

    group: str
    kept: int
    size: int
    sensitivity: float
    saved: float
    undo_metric: float
    undo_cost: float
    undo_return: float
    deeper_metric: float
    deeper_cost: float
    deeper_return: float
    reason: str


def explain(
    task: Any, plan: Plan | Mapping[str, Any], cost: str = "macs", w: float | None = None, **settings: Any
) -> list[GroupExplanation]:
    """Explain each group of a plan by measuring its two neighbours: the cut undone, and the cut one step deeper.

    Args:
        task: a `Task` or the name of a built-in one.
        plan: a `Plan` or its JSON form.
        cost: which cost the return weighs.
        w: weight of the metric in the utility; default the task's own.
        **settings: of `Settings`, those that the plan was found with.

    Returns:
        One explanation a group, in network order. Takes two evaluations a group.

    Raises:
        ValueError: a plan of another network, an unknown cost or setting.
    """
    evaluator = live_evaluator(task, make_settings(**settings))
    chosen = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
    reference = make_reference(evaluator, check_cost(cost), uniform_rates(DEFAULT_MAX_RATE), w)
    # Where the network was trained in between, what the round before removed can't be given back.
    whole = evaluator.dense if chosen.parent is None else chosen.parent
    here, dense_cost = evaluator.measure(chosen), reference.dense.cost(cost)
    explanations = []
    for index, (name, size, sensitivity) in enumerate(
        zip(evaluator.group_names, evaluator.sizes, evaluator.sensitivity(), strict=True)
    ):
        kept = chosen.widths[index]
        count = min(max(1, removal_count(size, STEP)), kept - 1)
        undone = evaluator.measure(chosen.replace(index, whole.keep[index], bits=whole.bits[index], rank=whole.ranks[index]))
        deeper = evaluator.measure(evaluator.cut(chosen, index, count))
        only = evaluator.dense.replace(index, chosen.keep[index], bits=chosen.bits[index], rank=chosen.ranks[index])
        alone = evaluator.costs.all(*only.levels)[cost]
        changes = {
            f"{what}_{quantity}": value
            for what, other in (("undo", undone), ("deeper", deeper))
            for quantity, value in (
                ("metric", other.metric - here.metric),
                ("cost", (other.cost(cost) - here.cost(cost)) / dense_cost),
                ("return", reference.return_of(other) - reference.return_of(here)),
            )
        }
        keeps = f"{name} keeps {kept} of {size} {UNITS[evaluator.settings.granularity]}{_extras(chosen, index)}"
        if name in evaluator.chosen:
            keeps += f", chosen by {evaluator.chosen[name]}"
        untouched = only == evaluator.dense
        reason = _reason(keeps, untouched, count, evaluator.metric_name, cost, changes)
        explanations.append(
            GroupExplanation(
                group=name, kept=kept, size=size, sensitivity=sensitivity, saved=1 - alone / dense_cost, **changes, reason=reason
            )
        )
    return explanations


def _extras(plan: Plan, index: int) -> str:
    bits = f", at {plan.bits[index]} bits" if plan.bits[index] != FLOAT_BITS else ""
    return bits + (f", in factors of {plan.ranks[index]:.0%} of its parameters" if plan.ranks[index] < 1 else "")


def _reason(keeps: str, untouched: bool, count: int, metric: str, cost: str, changes: dict[str, float]) -> str:
    undo = (
        f"{metric} {changes['undo_metric']:+.4f} for {changes['undo_cost']:+.1%} of {cost} (return {changes['undo_return']:+.3f})"
    )
    deeper = (
        f"{metric} {changes['deeper_metric']:+.4f} for {changes['deeper_cost']:+.1%} of {cost} "
        f"(return {changes['deeper_return']:+.3f})"
    )
    whole = "Nothing was done to it." if untouched else f"Giving back all would be {undo}."
    last = "No more of it can go." if count == 0 else f"Removing {count} more would be {deeper}."
    return f"{keeps}. {whole} {last}"
