"""ONNX models of compressed networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import program
from reptile_env.compression.modules import Quantized, round_input
from reptile_env.compression.packing import codes_of, top_code
from reptile_env.compression.stand_ins import output_axis
from reptile_env.errors import first_line
from reptile_env.tasks.splits import Inputs


def to_onnx(model: nn.Module, example: Inputs, path: Path) -> None:
    """Write an ONNX model with a dynamic batch dimension.

    Quantized layers become int8: a QuantizeLinear and a DequantizeLinear around their input, and weights of int8 with a
    DequantizeLinear for each output. ONNX Runtime runs them with integer kernels; on x86 processors without VNNI those may
    saturate on weights of 8 bits (its own documentation names the remedies), not on fewer.

    Args:
        model: a network in evaluation mode.
        example: inputs of at least one example.
        path: of the file.

    Raises:
        ImportError: the extra is missing.
        ValueError: torch can't export this network.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('export to ONNX needs the extra: pip install "reptile-env[onnx]"') from error
    coded = copy.deepcopy(model)
    for name, module in list(coded.named_modules()):
        if isinstance(module, Quantized):
            coded.set_submodule(name, _Coded(module))
    traced = program.trace(coded, example)
    try:
        exported = torch.onnx.export(traced, dynamo=True, verbose=False)
    except Exception as error:  # torch's exporter fails in its own ways
        raise ValueError(f"torch.onnx can't export this network: {first_line(error)}") from error
    assert exported is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    exported.save(str(path))


class _Coded(Quantized):
    """A quantized layer that computes its weights from their codes, as an exporter is to see it."""

    def __init__(self, source: Quantized) -> None:
        scales = {name: source.scale(name) for name in source.scaled}
        super().__init__(source.layer, source.bits, scales, source.input_scale, source.input_zero_point)
        self.axis = output_axis(source.layer)
        for name, scale in scales.items():
            self.register_buffer(f"{name}_codes", codes_of(getattr(source.layer, name), scale, self.axis))

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the quantized layer."""
        weights = {name: self._weight(name) for name in self.scaled}
        return torch.func.functional_call(
            self.layer, weights, (round_input(input, self.input_scale, self.input_zero_point), *args), kwargs
        )

    def _weight(self, name: str) -> Tensor:
        codes, top = getattr(self, f"{name}_codes"), top_code(8)
        made: Tensor = torch.ops.quantized_decomposed.dequantize_per_channel.default(
            codes, self.scale(name), None, self.axis, -top, top, torch.int8
        )
        dtype = getattr(self.layer, name).dtype
        return made if dtype == made.dtype else made.to(dtype)
