"""Layers that stand in for others in a compressed network: quantized ones and products of two thinner ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed, which exported programs call
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from reptile_env.compression import prune
from reptile_env.compression.producers import CONVS, TRANSPOSED

INPUT_LEVELS = 255  # 8 bits, unsigned


class Quantized(nn.Module):
    """A layer whose weights lie on grids of ``2 ** bits - 1`` levels and whose input is rounded to 8 bits.

    Args:
        layer: the layer; its weights are on the grid already: a whole number of scales, for each output.
        bits: of the weights, 2 to 8.
        scales: for each weight of the layer, by name, the step of its grid for each output, float32 ``(outputs,)``.
        input_scale: step of the input's grid, a float32 number.
        input_zero_point: level that stands for 0, in [0, 255].
    """

    def __init__(self, layer: nn.Module, bits: int, scales: dict[str, Tensor], input_scale: float, input_zero_point: int) -> None:
        super().__init__()
        self.layer, self.bits = layer, bits
        self.scaled = tuple(scales)
        for name, scale in scales.items():
            self.register_buffer(f"{name}_scale", scale)
        # Plain numbers, not buffers: exporters take only constants here.
        self.input_scale, self.input_zero_point = input_scale, input_zero_point

    def scale(self, name: str) -> Tensor:
        """Step of the grid of a weight for each output, ``(outputs,)``."""
        scale: Tensor = getattr(self, f"{name}_scale")
        return scale

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """As the layer, from the rounded input."""
        return self.layer(round_input(input, self.input_scale, self.input_zero_point), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Networks ask their layers for in_features and the like.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)


def round_input(given: Any, scale: float, zero_point: int) -> Any:
    """A tensor, or the tensor of a packed sequence, on a grid of 256 levels: level times `scale`."""
    if isinstance(given, PackedSequence):
        return given._replace(data=round_input(given.data, scale, zero_point))
    if given.dtype != torch.float32:  # the operators below know no other
        rounded: Any = round_input(given.float(), scale, zero_point)
        return rounded.to(given.dtype)
    if torch.compiler.is_exporting():
        # The same numbers; exporters know these operators and write them as QuantizeLinear and DequantizeLinear.
        limits = (scale, zero_point, 0, INPUT_LEVELS, torch.uint8)
        codes = torch.ops.quantized_decomposed.quantize_per_tensor.default(given, *limits)
        return torch.ops.quantized_decomposed.dequantize_per_tensor.default(codes, *limits)
    return torch.fake_quantize_per_tensor_affine(given, scale, zero_point, 0, INPUT_LEVELS)


class Factored(nn.Module):
    """A linear layer or convolution as two: the first with its kernel into `rank` channels, the second 1 x 1 out of them.

    Args:
        first: reads the input, has no bias.
        second: a linear layer, or a convolution of kernel 1.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The second layer of the first, which takes further arguments: the output size of a transposed convolution."""
        made: Tensor = self.second(self.first(input, *args, **kwargs))
        return made

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("first", "second"):
                raise
            # Inputs are the first one's, all else (outputs, bias) the second's.
            return getattr(self.first if name.startswith("in_") else self.second, name)


def can_be_factored(layer: nn.Module) -> bool:
    """Whether a layer is one matrix: linear, or a convolution without groups."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, CONVS) and layer.groups == 1)


def factored(layer: Any, first: Tensor, second: Tensor) -> Factored:
    """The two layers in place of `layer`: its own kind with `first` as weight and no bias; its bias is the second one's."""
    kind: Any = nn.Linear if isinstance(layer, nn.Linear) else next(kind for kind in CONVS if isinstance(layer, kind))
    axis, options = int(isinstance(layer, TRANSPOSED)), {}
    if isinstance(layer, CONVS):
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {name: getattr(layer, name) for name in (*names, *(("output_padding",) if axis else ()))}
    rank = first.shape[axis]
    thin: nn.Module = kind(first.shape[1 - axis], rank, bias=False, device="meta", **options)
    wide: nn.Module = kind(
        rank, second.shape[axis], bias=layer.bias is not None, device="meta", **({"kernel_size": 1} if options else {})
    )
    prune.install(thin, {"weight": first})
    prune.install(wide, {"weight": second} | ({} if layer.bias is None else {"bias": layer.bias.detach()}))
    return Factored(thin, wide).eval()
