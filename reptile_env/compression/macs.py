"""The cost model of a network: sizes of its tensors and how often each is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reptile_env.compression.cost import CostModel
from reptile_env.compression.groups import CONVS, TRANSPOSED, Structure
from reptile_env.tasks.splits import Inputs, call, map_inputs


def cost_model(model: nn.Module, structure: Structure, inputs: Inputs) -> CostModel:
    """The cost model of `model`, held against torch's own operation counter on the dense network.

    Args:
        model: the dense network.
        structure: its groups.
        inputs: at least one example; MACs are those of the first.
    """
    tensors = _unique_tensors(model)
    uses, counted = _uses(model, map_inputs(lambda t: t[:1], inputs))
    fixed = np.ones((len(tensors), max(1, *(t.dim() for t in tensors.values()))), dtype=np.int64)
    per_channel = np.zeros((*fixed.shape, len(structure.groups)), dtype=np.int64)
    weights = {name: np.zeros(len(tensors), dtype=np.int64) for name in ("params", "macs", "bytes")}
    for row, (name, tensor) in enumerate(tensors.items()):
        for dim, size in enumerate(tensor.shape):
            axis = structure.axes.get((name, dim))
            fixed[row, dim] = size if axis is None else int((axis.group < 0).sum())
            if axis is not None:
                for group, channels in enumerate(structure.sizes):
                    owned = int((axis.group == group).sum())
                    if owned % channels:
                        raise ValueError(
                            f"channels of group {structure.names[group]!r} own different numbers of positions of {name}"
                        )
                    per_channel[row, dim, group] = owned // channels
        weights["params"][row] = isinstance(tensor, nn.Parameter)
        weights["bytes"][row] = tensor.element_size()
        weights["macs"][row] = uses.get(name, 0)
    model_costs = CostModel(fixed, per_channel, weights)
    uncounted = counted - model_costs.all(structure.sizes)["macs"]
    return CostModel(fixed, per_channel, weights, uncounted)


def _unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, shared ones once."""
    saved = set(model.state_dict(keep_vars=True))
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    return tensors | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def _uses(model: nn.Module, inputs: Inputs) -> tuple[dict[str, int], int]:
    """How often an example uses each weight element, and all multiply-accumulates by torch's operation counter."""
    uses: dict[str, int] = {}
    names = {id(p): name for name, p in model.named_parameters()}

    def hook(layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        seen = given[0] if isinstance(layer, TRANSPOSED) else output
        positions = math.prod(seen.shape[2:]) * len(seen) if isinstance(layer, CONVS) else math.prod(seen.shape[:-1])
        assert isinstance(layer.weight, Tensor)
        name = names[id(layer.weight)]
        uses[name] = uses.get(name, 0) + positions

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, (*CONVS, nn.Linear))]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return uses, counter.get_total_flops() // 2


def check_macs(model: nn.Module, expected: int, inputs: Inputs) -> None:
    """Refuse a network whose cut form does not compute the multiply-accumulates that the cost model says.

    Raises:
        ValueError: torch's operation counter finds another number.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(model, map_inputs(lambda t: t[:1], inputs))
    found = counter.get_total_flops() // 2
    if found != expected:
        raise ValueError(
            f"the cut network computes {found:,} multiply-accumulates, not {expected:,}: it multiplies activations outside "
            "its convolutions and linear layers, which the cost model does not follow"
        )
