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

    def fill(self, into: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A copy of a dense network, shrunk, its layers replaced, holding `tensors`.

        Raises:
            ValueError: tensors that do not fit the network.
        """
        # Layer norms too: one that lost features lost them with the width of its residual stream.
        model = prepare(into, residual_width=True)[0].eval()
        state, scales, factors = self._plain(tensors, dict(model.named_modules()))
        _check_fits(state, model.state_dict())
        prune.install(model, state)
        for path, (first, second) in factors.items():
            model.set_submodule(path, factored(model.get_submodule(path), first, second))
        for path, steps in scales.items():
            model.set_submodule(path, Quantized(model.get_submodule(path), self.bits[path], steps, *self.inputs[path]))
        return model.eval()

    def _plain(
        self, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, tuple[Tensor, Tensor]]]:
        """The tensors under the names that they have without stand-ins; scales by layer; factors by layer.

        In place of two factors stands a tensor of their product's shape that holds no memory.
        """
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
            pair = [state.pop(f"{path}.{part}.weight", None) for part in ("first", "second")]
            if pair[0] is None or pair[1] is None or not _is_product(pair[0], pair[1], modules.get(path)):
                raise ValueError(
                    f"the saved factors of {path} and that layer of into= do not fit; give the dense network they came from"
                )
            factors[path] = (pair[0], pair[1])
            state[f"{path}.weight"] = _product_shape(pair[0], pair[1], modules[path])
            if f"{path}.second.bias" in state:
                state[f"{path}.bias"] = state.pop(f"{path}.second.bias")
        return state, scales, factors


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


def _check_fits(state: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> None:
    if state.keys() != dense.keys():
        different = ", ".join(sorted(state.keys() ^ dense.keys())[:5])
        raise ValueError(f"the saved network and into= have different tensors: {different}; give the dense network it came from")
    for name, tensor in state.items():
        whole = dense[name]
        larger = tensor.dim() != whole.dim() or any(a > b for a, b in zip(tensor.shape, whole.shape, strict=True))
        if larger or tensor.dtype != whole.dtype:
            raise ValueError(f"{name}: saved {tuple(tensor.shape)} {tensor.dtype} does not fit {tuple(whole.shape)} {whole.dtype}")


def _is_product(first: Tensor, second: Tensor, layer: Any) -> bool:
    if layer is None or not can_be_factored(layer):
        return False
    axis, dims = output_axis(layer), layer.weight.dim()
    inner = tuple(second.shape[2:]) == (1,) * (dims - 2)
    return first.dim() == second.dim() == dims and inner and first.shape[axis] == second.shape[1 - axis]


def _product_shape(first: Tensor, second: Tensor, layer: nn.Module) -> Tensor:
    axis = output_axis(layer)
    shape = list(first.shape)
    shape[axis] = second.shape[axis]
    return torch.empty(shape, dtype=first.dtype, device="meta")
