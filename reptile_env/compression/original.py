"""The dense network that a saved one was cut from: written down, so that neither its plan nor ``into=`` can be another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from reptile_env.compression.groups import Structure
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.layout import MEND, whole
from reptile_env.compression.plan import FLOAT_BITS, Plan
from reptile_env.compression.producers import CONVS

# For each dimension along which a tensor shrinks, and each group, the positions that one of its channels owns.
Cuts = dict[int, dict[str, int]]


def describe(structure: Structure) -> dict[str, Any]:
    """The JSON form of an `Original`."""
    owners, modules = structure.owners, dict(structure.model.named_modules())
    coded = {path: owner for path, owner in owners.items() if isinstance(modules[path], (*CONVS, *RECURRENT, nn.Linear))}
    groups: dict[str, Any] = {}
    for index, group in enumerate(structure.groups):
        groups[group.name] = {"size": group.size, "layers": [path for path, owner in coded.items() if owner == index]}
        if structure.weights:
            groups[group.name]["weight"] = structure.weights[index]
    tensors: dict[str, Any] = {n: {"shape": list(t.shape), "cuts": {}} for n, t in structure.model.state_dict().items()}
    for (name, dim), axis in structure.axes.items():
        if name in tensors:
            owned = {group.name: int((axis.group == i).sum()) // group.size for i, group in enumerate(structure.groups)}
            tensors[name]["cuts"][str(dim)] = {group: each for group, each in owned.items() if each}
    return {"groups": groups, "tensors": tensors}


@dataclass(frozen=True)
class _Group:
    size: int
    layers: tuple[str, ...]  # whose bits and rank are the group's
    weight: str | None  # from which single elements are removed


class Original:
    """What is known of the dense network.

    Args:
        given: as `describe` gave it; from anywhere.

    Raises:
        ValueError: anything that `describe` does not write.
    """

    def __init__(self, given: Any) -> None:
        try:
            self.groups = {name: _group(entry) for name, entry in given["groups"].items()}
            self.shapes = {name: tuple(map(_size, entry["shape"])) for name, entry in given["tensors"].items()}
            self.cuts = {name: self._cuts(len(self.shapes[name]), entry["cuts"]) for name, entry in given["tensors"].items()}
            if not all(group.weight is None or group.weight in self.shapes for group in self.groups.values()):
                raise ValueError("a weight that is no tensor")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'dense' does not describe a network ({type(error).__name__}: {error!s:.80}); {MEND}") from error

    def shape(self, tensor: str, plan: Plan) -> tuple[int, ...]:
        """Shape of a tensor of the network that `plan` leaves."""
        widths = dict(zip(plan.names, plan.widths, strict=True))
        shape = list(self.shapes[tensor])
        for dim, owned in self.cuts[tensor].items():
            shape[dim] -= sum(each * (self.groups[name].size - widths[name]) for name, each in owned.items())
        return tuple(shape)

    def check_plan(self, plan: Plan, sparsity: tuple[float, ...]) -> None:
        """Refuse a plan that is not one of this network's, and a sparsity that is not the plan's.

        Raises:
            ValueError: see above.
        """
        if plan.names != tuple(self.groups):
            raise ValueError(f"the plan's groups {list(plan.names)!r:.200} are not those of the network; {MEND}")
        for name, keep, width, share in zip(plan.names, plan.keep, plan.widths, sparsity, strict=True):
            group, counted = self.groups[name], isinstance(keep, int)
            last = width - 1 if isinstance(keep, int) else keep[-1]
            if counted != (group.weight is not None) or last >= group.size:
                raise ValueError(f"the plan's entry of group {name!r} does not fit its size, {group.size}; {MEND}")
            if share != 1 - width / group.size:
                raise ValueError(f"group {name!r} keeps {width} of {group.size}, and its sparsity is {share!r:.80}; {MEND}")

    def check_bits(self, plan: Plan, bits: Mapping[str, int], factored: list[str]) -> None:
        """Refuse layers whose bits or factors are not what the plan says.

        Args:
            plan: of this network.
            bits: of each quantized layer, by path.
            factored: paths of the factored layers.

        Raises:
            ValueError: see above.
        """
        expected: dict[str, int] = {}
        ranked: set[str] = set()
        for group, each, rank in zip(self.groups.values(), plan.bits, plan.ranks, strict=True):
            ranked.update(group.layers if rank < 1 else ())
            for path in group.layers if each < FLOAT_BITS else ():
                expected |= dict.fromkeys([f"{path}.first", f"{path}.second"] if path in factored else [path], each)
        if bits != expected:
            wrong = sorted(path for path in bits.keys() | expected.keys() if bits.get(path) != expected.get(path))
            raise ValueError(f"the bits of {', '.join(wrong[:5])} are not those of the plan; {MEND}")
        stray = sorted(set(factored) - ranked)
        if stray:
            raise ValueError(f"{', '.join(stray[:5])} has factors, and the plan leaves it whole; {MEND}")

    def check_kept(self, plan: Plan, kept: Mapping[str, int]) -> None:
        """Refuse weights stored with another number of elements left than the plan says.

        Args:
            plan: of this network.
            kept: for each weight that is stored as a bitmap how many are left.

        Raises:
            ValueError: see above.
        """
        expected: dict[str, int] = {}
        for group, width in zip(self.groups.values(), plan.widths, strict=True):
            if group.weight is not None:
                expected[group.weight] = math.prod(self.shapes[group.weight]) * width // group.size
        wrong = sorted(name for name, count in kept.items() if expected.get(name) != count)
        if wrong:
            raise ValueError(f"{', '.join(wrong[:5])}: the elements left are not as many as the plan says; {MEND}")

    def _cuts(self, dims: int, given: Any) -> Cuts:
        cuts = {int(dim): {name: _size(each) for name, each in owned.items()} for dim, owned in given.items()}
        if not all(0 <= dim < dims for dim in cuts) or not all(name in self.groups for owned in cuts.values() for name in owned):
            raise ValueError("a cut along no dimension, or by no group")
        return cuts


def _group(entry: Any) -> _Group:
    if not set(entry) <= {"size", "layers", "weight"} or not isinstance(entry["layers"], list):
        raise ValueError(f"a group {entry!r:.80}")
    weight = entry.get("weight")
    if not all(isinstance(name, str) for name in [*entry["layers"], *([] if weight is None else [weight])]):
        raise TypeError("a layer that is no name")
    return _Group(max(_size(entry["size"]), 1), tuple(entry["layers"]), weight)


def _size(value: Any) -> int:
    if not whole(value):
        raise ValueError(f"{value!r:.80} is no size")
    return int(value)
