"""The least that a step can cost: a forward pass of what changed, already cut and refitted, from stored activations.

Of a network that is cut group by group, what changed is everything from the group's first layer to the output. The validation
images go through it once; where the recovery looks at what layers read in the cut network, so do the calibration examples, as far
as the last layer to refit. No refit, no cut, no score.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.tasks.digits_networks import DigitsCNN
from reptile_env.tasks.resnet import ResNet

Function = Callable[[Tensor], Tensor]
BATCH_SIZES = (64, 128, 256)


@dataclass(frozen=True)
class Part:
    """A piece of a network between two points at which one tensor is all that goes on.

    Attributes:
        layers: whose names start with one of these lie in here.
        run: the piece.
    """

    layers: tuple[str, ...]
    run: Function


def parts(network: nn.Module) -> list[Part]:
    """A network as the sequence of its parts.

    Raises:
        TypeError: a network that this does not know.
    """
    if isinstance(network, ResNet):
        blocks = [(name, block) for name, block in network.named_modules() if name.startswith("layer") and name.count(".") == 1]
        stem = Part(("conv1", "bn1"), lambda x: torch.relu(network.bn1(network.conv1(x))))
        return [
            stem,
            *(Part((name,), block) for name, block in blocks),
            Part(("linear",), lambda x: network.linear(x.mean((2, 3)))),
        ]
    if isinstance(network, DigitsCNN):
        children = [
            Part(("stem",), network.stem),
            Part(("wide",), network.wide),
            Part(("narrow",), lambda x: network.narrow(network.pool(x))),
            *(Part((name,), network.get_submodule(name)) for name in ("block", "expand", "depthwise", "project")),
            Part(("hidden",), lambda x: torch.relu(network.hidden(network.pool(x).flatten(1)))),
        ]
        return [*children, Part(("head",), network.head)]
    raise TypeError(f"the floor of a {type(network).__name__} is not known; write its parts")


def part_of(found: Sequence[Part], layer: str) -> int:
    """Number of the part that holds a layer.

    Raises:
        ValueError: none does.
    """
    for index, part in enumerate(found):
        if any(f"{layer}.".startswith(f"{name}.") for name in part.layers):
            return index
    raise ValueError(f"no part of the network holds {layer!r}: {[part.layers for part in found]}")


@dataclass(frozen=True)
class Layout:
    """How a forward pass is run: examples at a time and whether channels come last in memory."""

    batch_size: int
    channels_last: bool

    def __str__(self) -> str:
        return f"batches of {self.batch_size}{', channels_last' if self.channels_last else ''}"

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        """Examples as batches in this layout."""
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x.split(self.batch_size)

    def convert(self, network: nn.Module) -> nn.Module:
        """A network with its weights in this layout."""
        mould: Any = network
        return mould.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


class Floor:
    """Forward passes from the first changed layer on, for one plan.

    Args:
        network: cut and refitted; it is converted to the layout.
        group: the one that was decided last.
        valid: validation images.
        calibration: calibration images where the recovery runs them, else None.
        layout: how to run it.
    """

    def __init__(self, network: nn.Module, group: str, valid: Tensor, calibration: Tensor | None, layout: Layout) -> None:
        found = parts(layout.convert(network))
        start = part_of(found, group)
        with torch.inference_mode():
            before = [_through(found[:start], data) for data in (valid, *([] if calibration is None else [calibration]))]
        self._valid, *rest = (layout.prepare(data) for data in before)
        self._calibration = rest[0] if rest else None
        self._changed = found[start:]

    def run(self) -> Tensor:
        """The outputs for the validation images; all that is timed."""
        with torch.inference_mode():
            if self._calibration is not None:
                for batch in self._calibration:
                    # The last layer is refitted from what it reads; it need not run.
                    _through(self._changed[:-1], batch)
            return torch.cat([_through(self._changed, batch) for batch in self._valid])


def fastest_layout(network: nn.Module, valid: Tensor, repeats: int = 3) -> Layout:
    """The layout in which a network runs the validation images fastest."""
    took = {}
    for size, last in itertools.product(BATCH_SIZES, (True, False)):
        layout = Layout(size, last)
        found, batches = parts(layout.convert(network)), layout.prepare(valid)
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            with torch.inference_mode():
                for batch in batches:
                    _through(found, batch)
            times.append(time.perf_counter() - start)
        took[layout] = min(times[1:])
    return min(took, key=took.__getitem__)


def _through(found: Sequence[Part], x: Tensor) -> Tensor:
    for part in found:
        x = part.run(x)
    return x
