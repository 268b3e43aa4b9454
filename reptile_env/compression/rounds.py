"""Rounds of cutting and training: each starts from the network that the round before it trained."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from reptile_env.compression.engine import Engine
from reptile_env.compression.plan import Kept, Plan
from reptile_env.tasks.splits import Split

KEPT = 4  # engines of later rounds; each holds a network and second moments


class Rounds:
    """Carries out plans, those of later rounds on the network that was trained after their parent.

    Plans number channels as the dense network does; the engine of a later round numbers those that are left.

    Args:
        engine: of the dense network.
    """

    def __init__(self, engine: Engine) -> None:
        self._first = engine
        self._later: OrderedDict[Plan, Engine] = OrderedDict()

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed, as its parent's training left them."""
        engine, own = self._of(plan)
        keep = engine.cut(own, group, count).keep[group]
        return plan.replace(group, keep if plan.parent is None else _outer(keep, plan.parent.keep[group]))

    def build(self, plan: Plan) -> nn.Module:
        """As `Engine.build`."""
        engine, own = self._of(plan)
        return engine.build(own)

    def outputs(self, plan: Plan, data: str, split: Split) -> Any:
        """As `Engine.outputs`."""
        engine, own = self._of(plan)
        return engine.outputs(own, data, split)

    def masks(self, plan: Plan) -> dict[str, Tensor]:
        """As `granularity.Pruner.masks`."""
        engine, own = self._of(plan)
        return engine.pruner.masks(own)

    def _of(self, plan: Plan) -> tuple[Engine, Plan]:
        """The engine that carries out `plan`, and the plan as that engine numbers channels."""
        if plan.parent is None:
            return self._first, plan
        # Bits come after training: parents that differ in them alone leave one network.
        parent = Plan(plan.names, plan.parent.keep, ranks=plan.parent.ranks, parent=plan.parent.parent)
        if parent not in self._later:
            engine, own = self._of(parent)
            self._later[parent] = engine.child(own)
            while len(self._later) > KEPT:
                self._later.popitem(last=False)
        self._later.move_to_end(parent)
        keep = [_inner(kept, whole) for kept, whole in zip(plan.keep, parent.keep, strict=True)]
        return self._later[parent], Plan(plan.names, keep, plan.bits, plan.ranks)


def check_parents(plan: Plan) -> None:
    """Refuse a plan that brings back what its parent has removed.

    Raises:
        ValueError: it does.
    """
    if plan.parent is None:
        return
    for name, kept, whole in zip(plan.names, plan.keep, plan.parent.keep, strict=True):
        fits = kept <= whole if isinstance(kept, int) and isinstance(whole, int) else set(_listed(kept)) <= set(_listed(whole))
        if not fits:
            raise ValueError(
                f"the plan keeps what its parent, the plan after which the network was trained, removed from group {name!r}; "
                "later rounds only remove more"
            )


def _listed(keep: Kept) -> Sequence[int]:
    assert not isinstance(keep, int)
    return keep


def _inner(keep: Kept, whole: Kept) -> Kept:
    """Channels as their places among those of the parent; counts of weights stay."""
    if isinstance(keep, int) or isinstance(whole, int):
        return keep
    place = {channel: index for index, channel in enumerate(whole)}
    return tuple(place[channel] for channel in keep)


def _outer(keep: Kept, whole: Kept) -> Kept:
    """The inverse of `_inner`."""
    if isinstance(keep, int) or isinstance(whole, int):
        return keep
    return tuple(whole[index] for index in keep)
