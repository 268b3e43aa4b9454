"""Second moments of the dense inputs of every layer that reads prunable channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.compression.groups import TRANSPOSED, Structure
from reptile_env.tasks.splits import Split, call

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Moments:
    """Second moments of one consumer's inputs, float64.

    With rows ``x`` of inputs (patches of a convolution, channel-major; a last 1 where the layer has a bias), dense weights
    ``V`` of shape ``(features, outputs)`` with the bias as last row:

    Attributes:
        gram: ``XᵀX / rows``.
        cross: ``XᵀX V / rows``.
        dense: ``V``.
        kernel: features that one input channel has (kernel positions).
        ridge: added to the diagonal, pulls the solution towards the dense weights where the data says nothing.
    """

    gram: Tensor
    cross: Tensor
    dense: Tensor
    kernel: int
    bias: bool
    ridge: float

    def solve(self, channels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights ``(outputs, len(channels) * kernel)`` and bias that best rebuild the dense outputs from kept channels.

        The normal equations of least squares, solved by Cholesky (He et al., Channel Pruning, ICCV 2017).
        """
        features = (channels[:, None] * self.kernel + torch.arange(self.kernel)).flatten()
        if self.bias:
            features = torch.cat([features, torch.tensor([len(self.gram) - 1])])
        gram = self.gram[features][:, features]
        gram.diagonal().add_(self.ridge)
        target = self.cross[features] + self.ridge * self.dense[features]
        solution = torch.cholesky_solve(target, torch.linalg.cholesky(gram))
        if self.bias:
            return solution[:-1].T, solution[-1]
        return solution.T, None


def patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Rows of inputs that the layer's weights see: ``(rows, in_channels * kernel)``, channel-major.

    Args:
        layer: a linear layer or an ungrouped convolution.
        inputs: its input, batch first.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    assert isinstance(layer, nn.modules.conv._ConvNd)
    # _reversed_padding_repeated_twice is what the layer itself hands to F.pad, also for padding="same".
    padding = list(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, padding, mode=mode)
    spatial = inputs.dim() - 2
    for i, (size, dilation, stride) in enumerate(zip(layer.kernel_size, layer.dilation, layer.stride, strict=True)):
        padded = padded.unfold(2 + i, dilation * (size - 1) + 1, stride)[..., ::dilation]
    order = [0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial)]
    columns = padded.permute(order)
    return columns.reshape(-1, inputs.shape[1] * math.prod(layer.kernel_size))


def refittable(structure: Structure, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Layers that read prunable channels and whose weights can be refitted, by name."""
    found = {}
    for group in structure.groups:
        for name in group.consumers:
            layer = modules[name]
            if getattr(layer, "groups", 1) == 1 and not isinstance(layer, TRANSPOSED):
                found[name] = layer
    return found


def collect(model: nn.Module, structure: Structure, calibration: Split, batch_size: int) -> dict[str, Moments]:
    """Moments of every refittable consumer from one pass of the dense network over the calibration examples."""
    layers = refittable(structure, dict(model.named_modules()))
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = dict.fromkeys(layers, 0)

    def hook_of(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            example_bytes = 12 * patches(layer, inputs[0][:1]).numel()
            step = max(1, _CHUNK_BYTES // example_bytes)
            for start in range(0, len(inputs[0]), step):
                x = patches(layer, inputs[0][start : start + step])
                if layer.bias is not None:
                    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
                # In double: float32 sums can leave the matrix indefinite beyond what the ridge mends.
                x = x.double()
                sums[name] = sums.get(name, 0) + x.T @ x
                rows[name] += len(x)

        return hook

    hooks = [layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in calibration.batches(batch_size):
                call(model, batch.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _moments(layers[name], sums[name] / rows[name]) for name in sums}


def _moments(layer: Any, gram: Tensor) -> Moments:
    weight = layer.weight.flatten(1).T.double()
    bias = layer.bias is not None
    dense = torch.cat([weight, layer.bias.double()[None]]) if bias else weight
    kernel = math.prod(layer.kernel_size) if isinstance(layer, nn.modules.conv._ConvNd) else 1
    # Relative 1e-6: far below what changes a fit, enough for a Cholesky factor where channels are constant or dead.
    ridge = max(1e-6 * float(gram.diagonal().mean()), 1e-12)
    return Moments(gram, gram @ dense, dense, kernel, bias, ridge)
