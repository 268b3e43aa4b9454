"""Which plans a running network can be cut to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reptile_env.compression.plan import Plan
from reptile_env.compression.rounds import check_parents

if TYPE_CHECKING:
    from reptile_env.evaluation.live import LiveEvaluator


def check_plan(evaluator: LiveEvaluator, plan: Any) -> None:
    """Refuse a plan that is not one of the evaluator's network, or does not go with its settings.

    Raises:
        TypeError: not a `Plan`.
        ValueError: the message says what does not fit, and the mend.
    """
    if not isinstance(plan, Plan):
        kind = "dict" if isinstance(plan, dict) else type(plan).__name__  # also where it is the one from info
        raise TypeError(f"a reptile_env.Plan is needed, got {kind}; Plan.from_dict reads its JSON form")
    if plan.names != evaluator.group_names:
        raise ValueError(
            f"the plan's groups {list(plan.names)} are not those of task {evaluator.name!r}: {list(evaluator.group_names)}"
        )
    if not evaluator.lists and any(rank < 1 for rank in plan.ranks):
        raise ValueError(
            f"ranks below 1 do not go with granularity={evaluator.settings.granularity!r}: factors of a layer have none of its "
            "holes; leave rank at 1, or use granularity='structured'"
        )
    if evaluator.settings.latency and any(rank < 1 for rank in plan.ranks):
        raise ValueError(
            "ranks below 1 do not go with cost='latency': its table knows widths alone; leave rank at 1 "
            "(components=('rate', 'bits')), or choose another cost"
        )
    for name, keep, size in zip(plan.names, plan.keep, evaluator.sizes, strict=True):
        if isinstance(keep, int) == evaluator.lists:
            wanted = "a list of channels" if evaluator.lists else "a count of weights"
            raise ValueError(
                f"the plan's entry of group {name!r} must be {wanted} with granularity={evaluator.settings.granularity!r}; "
                "give the settings that the plan was found with"
            )
        if isinstance(keep, int):
            if keep > size:
                raise ValueError(f"the plan keeps {keep} weights of group {name!r}, which has {size}")
        elif keep[-1] >= size:
            raise ValueError(f"the plan keeps channel {keep[-1]} of group {name!r}, which has channels 0 to {size - 1}")
    if plan.parent is not None:
        if not evaluator.trains:
            raise ValueError(
                f"the plan goes on from a trained network, and recovery {evaluator.settings.recovery!r} trains none; give the "
                "settings that the plan was found with"
            )
        check_plan(evaluator, plan.parent)
        check_parents(plan)
