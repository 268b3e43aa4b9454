"""What recoveries work with, and what they make of a solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reptile_env.compression import consumers, prune
from reptile_env.compression.bounded import Bounded
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.groups import Structure
from reptile_env.compression.moments import Moments
from reptile_env.compression.plan import Plan
from reptile_env.compression.prefix import Prefixes
from reptile_env.compression.running import Running
from reptile_env.tasks.splits import Split


@dataclass(frozen=True)
class Targets:
    """Sampled rows of a consumer's dense outputs: which rows, and what the dense network has there."""

    picked: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Workbench:
    """What a recovery works with.

    Attributes:
        model: the network, cut to the plan at hand.
        structure: its groups.
        state: dense parameters and buffers.
        consumers: layers to refit, in the order in which they run.
        moments: gives the second moments of their dense inputs.
        targets: sampled dense outputs, for sequential refits.
        calibration: training examples set aside for recovery.
        batch_size: examples a forward pass.
        masks: by weight what it keeps, where single weights were removed.
        swapped: layers that were replaced by others, by path in `model`, in the order in which that happened; whoever replaces
            one notes the old one here, and the engine puts it back before the next plan.
        fitted: by weight the last mask that it was refitted to from dense inputs, and the tensors of that.
        maps: what plans keep of every tensor.
        solved: refits from dense inputs, by weight and what is kept of the groups that it reads and makes.
        layers: the dense network's layers that consumers belong to, by path.
        running: how the network is run.
        prefixes: what passes over the calibration examples left at boundaries; None: every pass is run whole.
    """

    model: nn.Module
    structure: Structure
    state: dict[str, Tensor]
    consumers: Sequence[Consumer]
    moments: Callable[[], Mapping[Consumer, Moments]]
    targets: Mapping[Consumer, Targets]
    calibration: Split
    batch_size: int
    masks: Mapping[str, Tensor]
    swapped: dict[str, nn.Module]
    fitted: dict[str, tuple[Tensor, dict[str, Tensor]]]
    maps: prune.IndexMaps
    solved: Bounded[Any, dict[str, Tensor]]
    layers: Mapping[str, nn.Module]
    prefixes: Prefixes | None
    running: Running


# Returns the names of the tensors that it replaced in the network.
Recovery = Callable[[Workbench, Plan], set[str]]


def kept_of(bench: Workbench, plan: Plan, consumer: Consumer, dim: int) -> Tensor | None:
    """Kept positions of a consumer's weight along a dimension; None: all."""
    return bench.maps.positions(consumer.weight, dim, plan)


def tensors_for(
    bench: Workbench, plan: Plan, consumer: Consumer, layer: nn.Module, solution: Tensor, constants: Tensor | None
) -> dict[str, Tensor]:
    """The solution as the tensors of the cut network, outputs that are gone left out."""
    dense = bench.state[consumer.weight]
    weight = consumers.weight_of(consumer, layer, solution, dense)
    outputs = kept_of(bench, plan, consumer, consumer.out)
    tensors = {consumer.weight: bench.running.arranged(weight if outputs is None else weight.index_select(consumer.out, outputs))}
    if constants is not None and consumer.shift is not None:
        base = 0.0 if consumer.sign > 0 else bench.state[consumer.shift].double()
        shift = (base + consumer.sign * constants).to(dense.dtype)
        tensors[consumer.shift] = shift if outputs is None else shift[outputs]
    return tensors
