"""Quantized and factored layers of a saved network: written down, and put back into a dense network of the user's own class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.layers import prepare
from reptile_env.compression.layout import MEND, Coding, Entry
from reptile_env.compression.modules import INPUT_LEVELS, Factored, Quantized, can_be_factored, factored
from reptile_env.compression.original import Original
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import TRANSPOSED

FACTORED, QUANTIZED = "factored", "quantized"
_STEP, _ZERO = "input_scale", "input_zero_point"


def describe(model: nn.Module) -> dict[str, str]:
    """Layers that are stand-ins, by path: ``factored`` or ``quantized``."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, (Factored, Quantized)):
            found[path] = FACTORED if isinstance(module, Factored) else QUANTIZED
    return found


def input_grids(model: nn.Module) -> dict[str, Tensor]:
    """Scale (float32) and zero point (int32) of the input of every quantized layer, as tensors to store."""
    tensors = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantized):
            tensors[f"{path}.{_STEP}"] = torch.tensor(module.input_scale, dtype=torch.float32)
            tensors[f"{path}.{_ZERO}"] = torch.tensor(module.input_zero_point, dtype=torch.int32)
    return tensors


def codings(model: nn.Module) -> dict[str, Coding]:
    """How the weights of every quantized layer are to be stored."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantized):
            for name in module.scaled:
                found[f"{path}.layer.{name}"] = Coding(None, module.bits, output_axis(module.layer), f"{path}.{name}_scale")
    return found


def output_axis(layer: nn.Module) -> int:
    """Dimension of a layer's weights that counts outputs."""
    return int(isinstance(layer, TRANSPOSED))


class StandIns:
    """The stand-ins of a saved network, checked against its tensors.

    Args:
        kinds: path -> kind, as `describe` gave it; from anywhere.
        tensors: the saved tensors; the grids of inputs are taken out.
        entries: how they were stored.

    Raises:
        ValueError: stand-ins that do not fit the tensors or each other.
    """

    def __init__(self, kinds: Mapping[str, Any], tensors: dict[str, Tensor], entries: Mapping[str, Entry]) -> None:
        self.bits: dict[str, int] = {}
        self.inputs: dict[str, tuple[float, int]] = {}
        self.kept = {_plain_name(name, kinds): e.coding.kept for name, e in entries.items() if e.coding.kept is not None}
        self.factored = [path for path, kind in kinds.items() if kind == FACTORED]
        for path, kind in kinds.items():
            if kind not in (FACTORED, QUANTIZED) or not all(path.split(".")):
                raise ValueError(f"{kind!r:.80} of layer {path!r:.80} is no stand-in; known: {FACTORED}, {QUANTIZED}; {MEND}")
            allowed = {f"{path}.first", f"{path}.second"} if kind == FACTORED else set()
            nested = [other for other in kinds if other.startswith(f"{path}.") and other not in allowed]
            if nested:
                raise ValueError(f"{nested[0]} can't be a stand-in inside {path}; {MEND}")
            if kind == QUANTIZED:
                self.bits[path] = _bits(path, entries)
                self.inputs[path] = _input(path, tensors)
        stray = [n for n, e in entries.items() if e.coding.bits is not None and n.rpartition(".layer.")[0] not in self.bits]
        if stray:
            raise ValueError(f"{stray[0]} is stored as codes, but its layer is not listed as quantized; {MEND}")

    def check(self, original: Original, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
        """Refuse what is not the network that `plan` leaves of the original one.

        Raises:
            ValueError: other tensors, shapes, bits, factors or numbers of elements left.
        """
        original.check_bits(plan, self.bits, self.factored)
        original.check_kept(plan, self.kept)
        state, _, factors = self._plain(tensors)
        names = state.keys() | {f"{path}.weight" for path in factors}
        if names != original.shapes.keys():
            raise ValueError(f"{', '.join(sorted(names ^ original.shapes.keys())[:5])}: no tensor of both networks; {MEND}")
        for name, tensor in state.items():
            if tuple(tensor.shape) != original.shape(name, plan):
                raise ValueError(f"{name}: {tuple(tensor.shape)}, and the plan leaves {original.shape(name, plan)}; {MEND}")
        for path, pair in factors.items():
            if original.shape(f"{path}.weight", plan) not in [_product_shape(*pair, axis) for axis in (0, 1)]:
                raise ValueError(f"the factors of {path} do not make the weight that the plan leaves; {MEND}")

    def fill(self, into: nn.Module, original: Original, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A copy of a dense network, shrunk, its layers replaced, holding `tensors`.

        Raises:
            ValueError: a network that is not the original one.
        """
        # Layer norms too: one that lost features lost them with the width of its residual stream.
        model = prepare(into, residual_width=True)[0].eval()
        _check_same(original, tensors, model.state_dict())
        state, scales, factors = self._plain(tensors)
        for path, (first, second) in factors.items():
            layer: Any = model.get_submodule(path)
            shape = _product_shape(first, second, output_axis(layer)) if can_be_factored(layer) else None
            if shape is None:
                raise ValueError(
                    f"the saved factors of {path} do not fit that layer of into=; give the dense network they came from"
                )
            # Of the product's shape, without memory: the layer's own attributes follow.
            state[f"{path}.weight"] = torch.empty(shape, dtype=first.dtype, device="meta")
        prune.install(model, state)
        for path, (first, second) in factors.items():
            model.set_submodule(path, factored(model.get_submodule(path), first, second))
        for path, steps in scales.items():
            model.set_submodule(path, Quantized(model.get_submodule(path), self.bits[path], steps, *self.inputs[path]))
        return model.eval()

    def _plain(
        self, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, tuple[Tensor, Tensor]]]:
        """The tensors under the names that they have without stand-ins; scales by layer; factors, in place of weights, by layer."""
        state = dict(tensors)
        scales: dict[str, dict[str, Tensor]] = {path: {} for path in self.bits}
        for path in self.bits:
            inner = f"{path}.layer."
            for name in [name for name in state if name.startswith(inner)]:
                leaf = name.removeprefix(inner)
                state[f"{path}.{leaf}"] = state.pop(name)
                if f"{path}.{leaf}_scale" in state:
                    scales[path][leaf] = state.pop(f"{path}.{leaf}_scale")
        factors = {}
        for path in self.factored:
            first, second = (state.pop(f"{path}.{part}.weight", None) for part in ("first", "second"))
            if first is None or second is None or first.dim() != second.dim() or first.dim() < 2:
                raise ValueError(f"the saved factors of {path} do not fit each other; {MEND}")
            factors[path] = (first, second)
            if f"{path}.second.bias" in state:
                state[f"{path}.bias"] = state.pop(f"{path}.second.bias")
        return state, scales, factors


def _plain_name(name: str, kinds: Mapping[str, Any]) -> str:
    """A tensor's name in the network without quantized layers."""
    path, _, leaf = name.rpartition(".layer.")
    return f"{path}.{leaf}" if kinds.get(path) == QUANTIZED else name


def _bits(path: str, entries: Mapping[str, Entry]) -> int:
    codes = {name: e.coding for name, e in entries.items() if name.startswith(f"{path}.layer.") and e.coding.bits is not None}
    for name, coding in codes.items():
        leaf = name.removeprefix(f"{path}.layer.")
        if "." in leaf or coding.scale != f"{path}.{leaf}_scale":
            raise ValueError(f"{name}: {coding.scale!r:.80} is not the scale of this weight; {MEND}")
    bits = {coding.bits for coding in codes.values()}
    if len(bits) != 1:
        raise ValueError(f"the weights of quantized layer {path} must be codes of one number of bits; {MEND}")
    (found,) = bits
    assert found is not None
    return found


def _input(path: str, tensors: dict[str, Tensor]) -> tuple[float, int]:
    step, zero = tensors.pop(f"{path}.{_STEP}", None), tensors.pop(f"{path}.{_ZERO}", None)
    if step is None or zero is None or (step.shape, step.dtype, zero.shape, zero.dtype) != ((), torch.float32, (), torch.int32):
        raise ValueError(f"quantized layer {path} needs {_STEP}, a float32 number, and {_ZERO}, an int32 number; {MEND}")
    if not torch.isfinite(step) or step <= 0 or not 0 <= zero <= INPUT_LEVELS:
        raise ValueError(f"quantized layer {path}: input scale {step.item()} or zero point {zero.item()} is out of range; {MEND}")
    return float(step), int(zero)


def _check_same(original: Original, tensors: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> None:
    """Refuse a dense network other than the one that was compressed."""
    if original.shapes.keys() != dense.keys():
        different = ", ".join(sorted(original.shapes.keys() ^ dense.keys())[:5])
        raise ValueError(f"the saved network and into= have different tensors: {different}; give the dense network it came from")
    for name, whole in dense.items():
        if tuple(whole.shape) != original.shapes[name]:
            raise ValueError(
                f"{name} is {tuple(whole.shape)} in into=, and {original.shapes[name]} in the network that was compressed; "
                "give the dense network it came from"
            )
        if name in tensors and tensors[name].dtype != whole.dtype:
            raise ValueError(f"{name} is {whole.dtype} in into=, and was saved as {tensors[name].dtype}; convert into= first")


def _product_shape(first: Tensor, second: Tensor, axis: int) -> tuple[int, ...] | None:
    """Shape of the weight that two factors stand for, outputs along `axis`; None: they don't fit each other."""
    inner = tuple(second.shape[2:]) == (1,) * (second.dim() - 2)
    if first.dim() != second.dim() or not inner or first.shape[axis] != second.shape[1 - axis]:
        return None
    shape = list(first.shape)
    shape[axis] = second.shape[axis]
    return tuple(shape)
