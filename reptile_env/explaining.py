"""Why a plan is as it is: what undoing or deepening each cut would do, measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reptile_env.actions import BITS, DEFAULT_MAX_RATE, LOWEST_RANK, RATE_ALONE, check_components, uniform_rates
from reptile_env.compression.plan import FLOAT_BITS, Plan, removal_count
from reptile_env.evaluation.base import Evaluator, make_evaluator
from reptile_env.evaluation.reference import Reference, make_reference
from reptile_env.evaluation.settings import check_cost, make_settings

if TYPE_CHECKING:
    from reptile_env.evaluation.live import LiveEvaluator
    from reptile_env.evaluation.table import TableEvaluator

STEP = 0.1  # of a group's dense channels, or of its layers' parameters: how much deeper "one step deeper" is
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
            nearest to that); 0, as the next two, where no more of it can go or nothing is decided about channels.
        deeper_cost: change of the cost, relative to dense, by that.
        deeper_return: change of the return by that.
        reason: these numbers in a sentence.
        deeper_kept: channels that it would keep then.
        fewer_bits: bits of its weights one level lower; None, as the next three, where nothing is decided about bits or none are
            left.
        bits_metric: change of the metric by that.
        bits_cost: change of the cost, relative to dense, by that.
        bits_return: change of the return by that.
        lower_rank: a rank that is lower by 0.1; None, as the next three, where nothing is decided about ranks or none is left.
        rank_metric: change of the metric by that.
        rank_cost: change of the cost, relative to dense, by that.
        rank_return: change of the return by that.
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
    deeper_kept: int
    fewer_bits: int | None = None
    bits_metric: float | None = None
    bits_cost: float | None = None
    bits_return: float | None = None
    lower_rank: float | None = None
    rank_metric: float | None = None
    rank_cost: float | None = None
    rank_return: float | None = None


def explain(
    task: Any,
    plan: Plan | Mapping[str, Any],
    cost: str = "macs",
    w: float | None = None,
    evaluator: str = "live",
    components: Sequence[str] = RATE_ALONE,
    **settings: Any,
) -> list[GroupExplanation]:
    """Explain each group of a plan by measuring its neighbours: the cut undone, and the cut one step deeper.

    Args:
        task: a `Task` or the name of a built-in one.
        plan: a `Plan` or its JSON form.
        cost: which cost the return weighs.
        w: weight of the metric in the utility; default the task's own.
        evaluator: ``"live"`` runs the network, ``"table"`` looks the neighbours up.
        components: what decisions are about: some of ``rate``, ``bits`` and ``rank``. One step deeper is measured of each.
        **settings: of `Settings`, those that the plan was found with.

    Returns:
        One explanation a group, in network order. Takes an evaluation a group, and one more for each component.

    Raises:
        ValueError: a plan of another network, an unknown cost, setting or component.
    """
    made = make_evaluator(evaluator, task, make_settings(**settings))
    reference = make_reference(made, check_cost(cost), uniform_rates(DEFAULT_MAX_RATE), w)
    return explain_measured(made, reference, plan if isinstance(plan, Plan) else Plan.from_dict(plan), components)


def explain_measured(
    evaluator: Evaluator, reference: Reference, plan: Plan, components: Sequence[str] = RATE_ALONE
) -> list[GroupExplanation]:
    """As `explain`, where evaluator and scale are at hand, such as those of an environment.

    Args:
        evaluator: measures the neighbours.
        reference: the scale of returns; its cost is the one that is told of.
        plan: what is explained.
        components: what decisions are about.

    Raises:
        ValueError: a plan of another network, or an unknown component.
    """
    components = check_components(components)
    # Where the network was trained in between, what the round before removed can't be given back.
    whole = evaluator.dense if plan.parent is None else plan.parent
    here, cost, dense_cost = evaluator.measure(plan), reference.cost, reference.dense_cost
    chosen_by = cast("LiveEvaluator | TableEvaluator", evaluator).chosen
    explanations = []
    for index, (name, size, sensitivity) in enumerate(
        zip(evaluator.group_names, evaluator.sizes, evaluator.sensitivity(), strict=True)
    ):
        count = _deeper(evaluator, index, plan.widths[index]) if "rate" in components else 0
        undone = evaluator.measure(plan.replace(index, whole.keep[index], bits=whole.bits[index], rank=whole.ranks[index]))
        deeper = evaluator.measure(evaluator.cut(plan, index, count))
        only = evaluator.dense.replace(index, plan.keep[index], bits=plan.bits[index], rank=plan.ranks[index])
        alone = evaluator.costs.all(*only.levels)[cost]
        neighbours = {"undo": undone, "deeper": deeper}
        bits = _fewer_bits(plan.bits[index]) if "bits" in components else None
        if bits is not None:
            neighbours["bits"] = evaluator.measure(plan.replace(index, bits=bits))
        rank = _lower_rank(plan.ranks[index]) if "rank" in components and evaluator.rankable[index] else None
        if rank is not None:
            neighbours["rank"] = evaluator.measure(plan.replace(index, rank=rank))
        changes: dict[str, Any] = {
            f"{what}_{quantity}": value
            for what, other in neighbours.items()
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
        told = functools.partial(_told, evaluator.metric_name, cost, changes)
        sentences = [keeps, "Nothing was done to it" if only == evaluator.dense else f"Giving back all would be {told('undo')}"]
        if "rate" in components:
            sentences.append(f"Removing {count} more would be {told('deeper')}" if count else "No more of it can go")
        sentences += [] if bits is None else [f"At {bits} bits it would be {told('bits')}"]
        sentences += [] if rank is None else [f"In factors of {rank:.0%} it would be {told('rank')}"]
        explanations.append(
            GroupExplanation(
                *(name, kept, size, sensitivity, 1 - alone / dense_cost),
                reason=". ".join(sentences) + ".",
                deeper_kept=kept - count,
                fewer_bits=bits,
                lower_rank=rank,
                **changes,
            )
        )
    return explanations


def live_step(size: int, kept: int) -> int:
    """How many channels one step deeper removes of a group where every width can be measured; 0 where no more can go.

    Args:
        size: channels of the dense network.
        kept: channels that the plan keeps.
    """
    return min(max(1, removal_count(size, STEP)), kept - 1)


def _deeper(evaluator: Evaluator, group: int, width: int) -> int:
    """How many channels one step deeper removes; 0 where no more can go."""
    size = evaluator.sizes[group]
    if evaluator.grid is None:
        return live_step(size, width)
    step = max(1, removal_count(size, STEP))
    counts = [count for count in evaluator.grid.counts(group, width) if count]
    return min(counts, key=lambda count: abs(count - step), default=0)


def _fewer_bits(bits: int) -> int | None:
    """The next level of an action's bits; None below the lowest."""
    return next((level for level in BITS if level < bits), None)


def _lower_rank(rank: float) -> float | None:
    """A step less of a layer's parameters, in the decimals of an action; None below the lowest."""
    return round(max(LOWEST_RANK, rank - STEP), 3) if rank > LOWEST_RANK else None


def _extras(plan: Plan, index: int) -> str:
    bits = f", at {plan.bits[index]} bits" if plan.bits[index] != FLOAT_BITS else ""
    return bits + (f", in factors of {plan.ranks[index]:.0%} of its parameters" if plan.ranks[index] < 1 else "")


def _told(metric: str, cost: str, changes: Mapping[str, float], what: str) -> str:
    change, share, worth = (changes[f"{what}_{quantity}"] for quantity in ("metric", "cost", "return"))
    return f"{metric} {change:+.4f} for {share:+.1%} of {cost} (return {worth:+.3f})"
