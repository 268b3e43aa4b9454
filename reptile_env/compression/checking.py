"""Whether a network with changed layers computes what it should: in double precision, where it runs so."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reptile_env.compression import prune
from reptile_env.compression.modules import can_be_factored, factored
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import TRANSPOSED
from reptile_env.compression.skipped import OUTPUT
from reptile_env.errors import first_line
from reptile_env.tasks.splits import Inputs, call, map_inputs

# Differences that are none: relative to what zeroing changes, and (rounding) to the numbers themselves.
_DOUBLE = 1e-7, 1e-13
_LESS = 80, 8  # times the spacing of numbers just above 1: 1e-5 and 1e-6 of float32
_STATE = "; a first state that is handed to a recurrent layer keeps its width: leave it out where it is zeros"
_DROPPED = "flatten(1) instead of squeeze() keeps a dimension of one channel"


class Checker:
    """Compares changed copies of a network with the network itself, on a few examples.

    Args:
        model: a network in evaluation mode; it is not altered.
        inputs: a few examples that it runs on.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self._model, self._inputs = copy.deepcopy(model).double(), map_inputs(_doubled, inputs)
        try:
            self._dense, spacing = _spied(self._model, self._inputs)
        except Exception:  # a network that fixes its element types
            self._model, self._inputs = model, inputs
            self._dense, spacing = _spied(model, inputs)
        exact = spacing == torch.finfo(torch.double).eps
        self._relative, self._rounding = _DOUBLE if exact else (times * spacing for times in _LESS)
        tensors = itertools.chain(self._model.named_parameters(), self._model.named_buffers())
        self._state = {name: tensor.detach() for name, tensor in tensors}
        self._cut, self._masked = _shell(self._model), _shell(self._model)

    def reason(self, structure: Any) -> str:
        """Why the groups of `structure` can't be cut, or an empty string: removing every second channel must equal zeroing them."""
        return self._compare(structure, [range(0, size, 2) for size in structure.sizes])

    def reason_for_one(self, structure: Any) -> str:
        """As `reason`, with all channels of each group removed but one."""
        reason = self._compare(structure, [range(1)] * len(structure.sizes))
        reason = reason.replace(OUTPUT, "the network's output has another shape")
        return reason and f"with one channel left {reason}; {_DROPPED}"

    def unfactorable(self, layers: set[str]) -> frozenset[str]:
        """Which of `layers` no product of two thinner ones can stand for.

        The network reads the weights of such a layer itself, or the layer is of a class that does more than its kind.
        """
        paths = sorted(path for path in layers if can_be_factored(self._model.get_submodule(path)))
        if self._is_same_with_factors(paths):
            return frozenset()
        return frozenset(path for path in paths if not self._is_same_with_factors([path]))

    def _compare(self, structure: Any, kept: Sequence[range]) -> str:
        plan = Plan(structure.names, kept)
        with torch.no_grad():
            try:
                changed = prune.cut(self._state, structure, plan)
                prune.install(self._cut, changed, self._model)
                prune.install(self._masked, prune.zeroed(self._state, structure, plan), self._model)
                got, want = _leaves(call(self._cut, self._inputs)), _leaves(call(self._masked, self._inputs))
            except Exception as error:  # whatever the network raises
                reason = first_line(error)
                return f"the cut network does not run: {reason}{_STATE if 'xpected hidden' in reason else ''}"
            finally:
                for copied in (self._cut, self._masked):
                    prune.install(copied, {name: self._state[name] for name in structure.tensors}, self._model)
        if [t.shape for t in got] != [t.shape for t in want]:
            return OUTPUT
        same = all(self._is_same(*leaves) for leaves in zip(got, want, self._dense, strict=True))
        return "" if same else "removing its channels is not the same as zeroing them"

    def _is_same_with_factors(self, paths: list[str]) -> bool:
        """Whether the network computes the same with factors of full rank, the second of them the identity."""
        whole: Any = _shell(self._model)
        with torch.no_grad():
            try:
                for path in paths:
                    layer = whole.get_submodule(path)
                    axis, dims = int(isinstance(layer, TRANSPOSED)), layer.weight.dim()
                    unit = torch.eye(layer.weight.shape[axis], dtype=layer.weight.dtype).view(-1, layer.weight.shape[axis])
                    whole.set_submodule(path, factored(layer, layer.weight.detach(), unit[(..., *[None] * (dims - 2))]))
                got = _leaves(call(whole, self._inputs))
            except Exception:  # whatever the network raises
                return False
        same_shapes = [t.shape for t in got] == [t.shape for t in self._dense]
        return same_shapes and all(self._is_same(t, dense, dense) for t, dense in zip(got, self._dense, strict=True))

    def _is_same(self, got: Tensor, want: Tensor, dense: Tensor) -> bool:
        """Whether `got` is `want`, up to rounding and a small part of what lies between `want` and `dense`.

        So that constants tell nothing: those of a mask, say, which may be very large or infinite.
        """
        if not want.is_floating_point():
            return torch.equal(got, want)
        finite = torch.isfinite(want) & torch.isfinite(dense)
        if not torch.equal(got[~finite].nan_to_num(), want[~finite].nan_to_num()):
            return False
        got, want, dense = got[finite].double(), want[finite].double(), dense[finite].double()
        if not want.numel():
            return True
        changed = (want - dense).abs()
        varied = want[changed > 0] if bool((changed > 0).any()) else want
        allowed = self._relative * changed.max() + self._rounding * (want.abs() + varied.abs().median())
        return bool(((got - want).abs() <= allowed).all())


class _Spy(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the least precise type that anything is computed in, by the spacing of its numbers just above 1."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spacing = torch.finfo(torch.double).eps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.spacing = max([self.spacing, *(torch.finfo(t.dtype).eps for t in _leaves(result) if t.is_floating_point())])
        return result


def _spied(model: nn.Module, inputs: Inputs) -> tuple[list[Tensor], float]:
    with torch.no_grad(), _Spy() as spy:
        return _leaves(call(model, inputs)), spy.spacing


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _shell(model: nn.Module) -> nn.Module:
    """A copy that shares its tensors with `model`, to take others in their place."""
    return copy.deepcopy(model, {id(t): t for t in itertools.chain(model.parameters(), model.buffers())})


def _leaves(outputs: object) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in found]
