"""Why a plan is as it is: what undoing or deepening each cut would do, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.compression.plan import FLOAT_BITS, Plan, removal_count
from reptile_env.evaluation.base import Evaluator, make_evaluator
from reptile_env.evaluation.reference import Reference, make_reference
from reptile_env.evaluation.settings import check_cost, make_settings

if TYPE_CHECKING:
    from reptile_env.evaluation.live import LiveEvaluator
    from reptile_env.evaluation.table import TableEvaluator

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
        deeper_metric: change of the metric if the group lost a tenth of its dense channels more (on a table: what of its grid is
            nearest to that).
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
    task: Any,
    plan: Plan | Mapping[str, Any],
    cost: str = "macs",
    w: float | None = None,
    evaluator: str = "live",
    **settings: Any,
) -> list[GroupExplanation]:
    """Explain each group of a plan by measuring its two neighbours: the cut undone, and the cut one step deeper.

    Args:
        task: a `Task` or the name of a built-in one.
        plan: a `Plan` or its JSON form.
        cost: which cost the return weighs.
        w: weight of the metric in the utility; default the task's own.
        evaluator: ``"live"`` runs the network, ``"table"`` looks the neighbours up.
        **settings: of `Settings`, those that the plan was found with.

    Returns:
        One explanation a group, in network order. Takes two evaluations a group.

    Raises:
        ValueError: a plan of another network, an unknown cost or setting.
    """
    made = make_evaluator(evaluator, task, make_settings(**settings))
    reference = make_reference(made, check_cost(cost), uniform_rates(DEFAULT_MAX_RATE), w)
    return explain_measured(made, reference, plan if isinstance(plan, Plan) else Plan.from_dict(plan))


def explain_measured(evaluator: Evaluator, reference: Reference, plan: Plan) -> list[GroupExplanation]:
    """As `explain`, where evaluator and scale are at hand, such as those of an environment.

    Args:
        evaluator: measures the neighbours.
        reference: the scale of returns; its cost is the one that is told of.
        plan: what is explained.

    Raises:
        ValueError: a plan of another network.
    """
    # Where the network was trained in between, what the round before removed can't be given back.
    whole = evaluator.dense if plan.parent is None else plan.parent
    here, cost, dense_cost = evaluator.measure(plan), reference.cost, reference.dense_cost
    chosen_by = cast("LiveEvaluator | TableEvaluator", evaluator).chosen
    explanations = []
    for index, (name, size, sensitivity) in enumerate(
        zip(evaluator.group_names, evaluator.sizes, evaluator.sensitivity(), strict=True)
    ):
        count = _deeper(evaluator, index, plan.widths[index])
        undone = evaluator.measure(plan.replace(index, whole.keep[index], bits=whole.bits[index], rank=whole.ranks[index]))
        deeper = evaluator.measure(evaluator.cut(plan, index, count))
        only = evaluator.dense.replace(index, plan.keep[index], bits=plan.bits[index], rank=plan.ranks[index])
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
        kept = plan.widths[index]
        keeps = f"{name} keeps {kept} of {size} {UNITS[evaluator.settings.granularity]}{_extras(plan, index)}"
        if name in chosen_by:
            keeps += f", chosen by {chosen_by[name]}"
        reason = _reason(keeps, only == evaluator.dense, count, evaluator.metric_name, cost, changes)
        saved = 1 - alone / dense_cost
        explanations.append(GroupExplanation(name, kept, size, sensitivity, saved, **changes, reason=reason))
    return explanations


def _deeper(evaluator: Evaluator, group: int, width: int) -> int:
    """How many channels one step deeper removes; 0 where no more can go."""
    step = max(1, removal_count(evaluator.sizes[group], STEP))
    if evaluator.grid is None:
        return min(step, width - 1)
    counts = [count for count in evaluator.grid.counts(group, width) if count]
    return min(counts, key=lambda count: abs(count - step), default=0)


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
