"""What a decision removes: whole channels, single weights, or two of every four."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.cost import Costs
from reptile_env.compression.features import features, inputs_of
from reptile_env.compression.groups import Structure, find_groups
from reptile_env.compression.importance import Scorer
from reptile_env.compression.macs import cost_model
from reptile_env.compression.plan import Plan
from reptile_env.compression.weights import TwoOfFour, Weights
from reptile_env.tasks.splits import Inputs, Split


class Pruner(Protocol):
    """Removes what matters least.

    Attributes:
        names: of the groups, in network order.
        sizes: dense channels (or weights) of each.
        costs: cost model.
        features: for each group its static description (see `observations.GROUP_FEATURES`).
        lists: whether plans list kept channels; else they count weights.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    costs: Costs
    features: tuple[dict[str, Any], ...]
    lists: bool

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of what the group still keeps removed."""

    def tensors(self, plan: Plan) -> dict[str, Tensor]:
        """Tensors that `plan` changes."""

    def masks(self, plan: Plan) -> dict[str, Tensor]:
        """For each weight that has holes what it keeps, bool, of its shape."""


class Channels:
    """Whole channels: the network gets smaller."""

    lists = True
    find = staticmethod(find_groups)

    def __init__(self, structure: Structure, state: Mapping[str, Tensor], inputs: Inputs, scorer: Scorer, importance: str) -> None:
        self._structure, self._state = structure, state
        self.names, self.sizes = structure.names, structure.sizes
        self.costs: Costs = cost_model(structure, inputs)
        modules = dict(structure.model.named_modules())
        layers = [modules[group.producers[0]] for group in structure.groups]
        self.features = tuple(
            features(g.kind, layer, inputs_of(layer), g.size, self.costs, self.sizes, i)
            for i, (g, layer) in enumerate(zip(structure.groups, layers, strict=True))
        )
        scores = [scorer.channels(importance, index).numpy() for index in range(len(structure.groups))]
        # Stable: equal scores leave in a fixed order on every machine.
        self._rank = [np.argsort(np.argsort(score, kind="stable"), kind="stable") for score in scores]

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        rank, keep = self._rank[group], plan.keep[group]
        assert not isinstance(keep, int)
        return plan.replace(group, sorted(sorted(keep, key=rank.__getitem__)[count:]))

    def tensors(self, plan: Plan) -> dict[str, Tensor]:
        """Tensors that get smaller."""
        return prune.cut(self._state, self._structure, plan)

    def masks(self, plan: Plan) -> dict[str, Tensor]:
        """None: the network is really smaller."""
        return {}


# name -> what finds the groups and prunes them
PRUNERS: dict[str, type[Channels] | type[Weights]] = {"structured": Channels, "unstructured": Weights, "2:4": TwoOfFour}


def make_pruner(
    granularity: str, structure: Structure, state: Mapping[str, Tensor], inputs: Inputs, scorer: Scorer, importance: str
) -> Pruner:
    """The pruner of a granularity by name."""
    return PRUNERS[granularity](structure, state, inputs, scorer, importance)


def find_structure(granularity: str, model: nn.Module, example: Split, residual_width: bool = False) -> Structure:
    """The groups of a granularity by name.

    Args:
        granularity: ``structured``, ``unstructured`` or ``2:4``.
        model: a trained network in evaluation mode; it is not altered.
        example: a few examples that it runs on.
        residual_width: see `find_groups`; for ``structured`` alone.

    Raises:
        ValueError: nothing can be cut; the message lists the reasons.
    """
    if residual_width:
        return find_groups(model, example, residual_width=True)
    return PRUNERS[granularity].find(model, example)
