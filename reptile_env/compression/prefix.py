"""What the part of a network before the current group computes, kept from one plan to the next.

A plan that differs from an earlier one in later groups alone computes the same up to the first layer that those groups touch. What
the earlier one left there is held and put back, so that a decision costs the rest of the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from reptile_env.compression.bounded import Bounded
from reptile_env.compression.groups import Structure
from reptile_env.compression.plan import Plan
from reptile_env.compression.replay import Held, Replay, ReplayError
from reptile_env.tasks.splits import Inputs, call

DEFAULT_BYTES = 3 * 2**28
_FIRST = -1  # group before the first one

Level = tuple[Any, int, float]


@dataclass
class Stage:
    """What a pass over some data left at a boundary.

    Attributes:
        batches: for each batch.
        tensors: what the pass had put into layers before the boundary, for passes that refit.
        changed: whether it had changed any.
    """

    batches: list[Held]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    changed: bool = False


Key = tuple[str, int, tuple[bool, ...], tuple[Level, ...]]


class Prefixes:
    """Runs a network from the deepest boundary before which a plan is known.

    Args:
        name: of the task, for warnings.
        structure: the dense network and its groups.
        dense: the plan that changes nothing.
        recovery: by name.
        inputs: of a few examples.
    """

    def __init__(self, name: str, structure: Structure, dense: Plan, recovery: str, inputs: Inputs) -> None:
        self._name, self._dense = name, dense
        self._everywhere = "recalibrate" in recovery.split("+")
        self.replay: Replay | None = Replay(structure.model, inputs)
        self.boundaries = _boundaries(structure, self.replay)
        self._held: Bounded[Key, Stage] = Bounded(DEFAULT_BYTES, lambda _, stage: stage_bytes(stage))
        self._last: dict[str, Plan] = {}
        self._warned = False
        # Groups that touch anything before each boundary: all that what is held there depends on.
        self._before = {b: tuple(g for g, start in enumerate(self.boundaries) if start < b) for b in set(self.boundaries)}

    @property
    def held(self) -> Bounded[Key, Stage]:
        """The activations."""
        return self._held

    def find(self, data: str, plan: Plan) -> tuple[int, Stage] | None:
        """The deepest boundary at which a pass over `data` is known up to there, and what it left."""
        for b in sorted(self._before, reverse=True):
            key = self._key(data, b, plan)
            if key in self._held:
                found = self._held.get(key)
                assert found is not None
                return b, found
        return None

    def wanted(self, data: str, plan: Plan, start: int) -> list[int]:
        """Boundaries that the next plans probably need: those of the group decided on and of the one after it."""
        before = self._last.get(data)
        self._last[data] = plan
        near = {_last_different(plan, self._dense)}
        near |= {_first_different(plan, before)} if before is not None else set()
        groups = {g for group in near for g in (group, group + 1) if 0 <= g < len(self.boundaries)}
        found = sorted({self.boundaries[g] for g in groups})
        return [b for b in found if b > start and self._usable(b) and self._key(data, b, plan) not in self._held]

    def keep(self, data: str, plan: Plan, boundary: int, stage: Stage) -> None:
        """Hold what a pass left at a boundary."""
        self._held.put(self._key(data, boundary, plan), stage)

    def outputs(self, data: str, plan: Plan, model: nn.Module, batches: Sequence[Inputs]) -> list[Any]:
        """Outputs of the network cut to `plan`, batch by batch, from the deepest boundary that is known."""
        if self.replay is None:
            return [call(model, inputs) for inputs in batches]
        known = self.find(data, plan)
        start = known[0] if known else 0
        hold = self.wanted(data, plan, start)
        outputs, stages = [], {b: Stage([]) for b in hold}
        try:
            for number, inputs in enumerate(batches):
                output, held = self.replay.run(model, inputs, known[1].batches[number] if known else None, hold)
                outputs.append(output)
                for b, stage in stages.items():
                    stage.batches.append(held[b])
        except (ReplayError, KeyError, RuntimeError) as error:
            self.give_up(error)
            return [call(model, inputs) for inputs in batches]
        for b, stage in stages.items():
            self.keep(data, plan, b, stage)
        return outputs

    def give_up(self, error: Exception) -> None:
        """Run the whole network from now on, and say so."""
        self.replay = None
        self._held.clear()
        self._warn(str(error).splitlines()[0] if str(error) else type(error).__name__)

    def _usable(self, boundary: int) -> bool:
        assert self.replay is not None
        if not self.replay.usable(boundary):
            self._warn(f"it does not give the same from the call of {self.replay.path_of(boundary)} on")
            return False
        return self.replay.saves(boundary)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"task {self._name!r}: the whole network runs for each plan where less would do: {reason}", stacklevel=2)

    def _key(self, data: str, boundary: int, plan: Plan) -> Key:
        # Batch norms everywhere are recalibrated as soon as anything is cut, and once more where anything is factored.
        how = (plan.levels == self._dense.levels, any(rank < 1 for rank in plan.ranks)) if self._everywhere else ()
        return data, boundary, how, tuple([(plan.keep[g], plan.bits[g], plan.ranks[g]) for g in self._before[boundary]])


def _boundaries(structure: Structure, replay: Replay) -> tuple[int, ...]:
    """For each group the first call of a layer that the group's decision changes."""
    touched: list[set[str]] = [set() for _ in structure.groups]
    for (tensor, _), axis in structure.axes.items():
        for group in {int(g) for g in axis.group if g >= 0}:
            touched[group].add(tensor.rpartition(".")[0])
    for group, weight in enumerate(structure.weights):
        touched[group].add(weight.rpartition(".")[0])
    for layer, group in structure.owners.items():
        touched[group].add(layer)
    return tuple(min(replay.first_call(path) for path in paths) for paths in touched)


def _last_different(plan: Plan, other: Plan) -> int:
    return max((g for g in range(len(plan.keep)) if _level(plan, g) != _level(other, g)), default=_FIRST)


def _first_different(plan: Plan, other: Plan) -> int:
    return min((g for g in range(len(plan.keep)) if _level(plan, g) != _level(other, g)), default=_FIRST)


def _level(plan: Plan, group: int) -> Level:
    return plan.keep[group], plan.bits[group], plan.ranks[group]


def stage_bytes(stage: Stage) -> int:
    """Bytes that a stage holds."""
    found: dict[int, int] = {}
    for held in stage.batches:
        found |= held.storages()
    return sum(found.values()) + sum(t.nbytes for t in stage.tensors.values())
