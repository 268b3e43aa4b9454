"""How a network is run: in which memory format and how many examples at a time.

Both are chosen from the network's shapes alone, by what was measured once (docs/speed.md), so that they are the same in every
process and a measurement stays a pure function of its plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import hooks
from reptile_env.compression.nested import tensors_in
from reptile_env.tasks.splits import Inputs, Split, call, map_inputs

# Of the largest result of a layer for one batch: more falls out of the caches, less leaves the cores idle.
BATCH_BYTES = 2**22
SMALLEST_BATCH, LARGEST_BATCH = 32, 512


@dataclass(frozen=True)
class Running:
    """How a network is run.

    Attributes:
        channels_last: whether images and the weights of 2-d convolutions are kept in that memory format.
        batch_size: examples at a time.
    """

    channels_last: bool
    batch_size: int

    def batches(self, split: Split) -> list[Inputs]:
        """Inputs of a split in batches."""
        return [map_inputs(self.arranged, batch.inputs) for batch in split.batches(self.batch_size)]

    def arranged(self, tensor: Tensor) -> Tensor:
        """The tensor in the format in which the network is run."""
        if not self.channels_last or tensor.dim() != 4 or not tensor.is_floating_point():
            return tensor
        last = tensor.contiguous(memory_format=torch.channels_last)
        _, channels, height, width = last.shape
        # Dimensions of size 1 have any stride there, and kernels are chosen by strides: equal tensors must look alike.
        return last.as_strided(last.shape, (channels * height * width, 1, width * channels, channels))


def choose(model: nn.Module, examples: Split) -> Running:
    """How `model` is run, from one pass over a few examples."""
    largest = 1

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        largest = max([largest, *(t.nbytes for t in tensors_in(output))])

    modules = list(model.modules())
    with torch.no_grad(), hooks.attached([hooks.after(module, watch) for module in modules]):
        call(model, examples.inputs)
    wanted = BATCH_BYTES * len(examples) // largest
    size = 2 ** max(wanted, 1).bit_length() // 2
    convs = any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in modules)
    return Running(convs, min(max(size, SMALLEST_BATCH), LARGEST_BATCH))
