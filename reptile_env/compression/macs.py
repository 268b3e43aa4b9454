"""The cost model of a network: sizes of its tensors and how often each is used."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

from reptile_env.compression import hooks, prune
from reptile_env.compression.cost import CostModel
from reptile_env.compression.groups import Structure, tensors_of
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.modules import can_be_factored
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import CONVS, TRANSPOSED
from reptile_env.compression.skipped import OUTPUT
from reptile_env.tasks.splits import Inputs, call, map_inputs

FEW_OUTPUTS = 256  # of the network itself, which no product of two thinner layers makes


def cost_model(structure: Structure, inputs: Inputs) -> CostModel:
    """The cost model of a network, held against torch's own operation counter, dense and cut.

    What no weight stands for (products of activations, as in attention) is found from the counter: it is taken to be
    proportional to the width of each group, and that is checked.

    Args:
        structure: the network and its groups.
        inputs: at least one example; MACs are those of the first.

    Raises:
        ValueError: multiply-accumulates that are not proportional to the widths of groups.
    """
    model, one = structure.model, map_inputs(lambda t: t[:1], inputs)
    tensors = saved_tensors(model)
    uses, output_uses, dense = weight_uses(model, one)
    rank = max(1, *(t.dim() for t in tensors.values()))
    fixed = np.ones((len(tensors), rank), dtype=np.int64)
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
    costs = CostModel(fixed, per_channel, weights, **_coded(structure, model, list(tensors), output_uses))
    return _with_products(costs, structure, one, dense)


def count_macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates by torch's operation counter, kernels that it can't see into replaced by those it can."""
    recurrent = any(isinstance(module, RECURRENT) for module in model.modules())
    with contextlib.ExitStack() as stack, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if recurrent:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # switching oneDNN off and on warns about unrelated hardware
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        counter = stack.enter_context(FlopCounterMode(display=False))
        call(model, inputs)
    return int(counter.get_total_flops()) // 2


def _with_products(costs: CostModel, structure: Structure, inputs: Inputs, dense: int) -> CostModel:
    sizes = structure.sizes
    rest = dense - costs.all(sizes)["macs"]
    if rest == 0:
        return costs
    half = [max(1, size // 2) for size in sizes]
    shares = []
    for group, size in enumerate(sizes):
        widths = [half[group] if i == group else s for i, s in enumerate(sizes)]
        lost = rest - (_cut_macs(structure, widths, inputs) - costs.all(widths)["macs"])
        share, remainder = divmod(lost, size - half[group]) if size > half[group] else (0, lost)
        if remainder:
            raise ValueError(f"the multiply-accumulates of group {structure.names[group]!r} are not proportional to its width")
        shares.append(share)
    constant = rest - sum(share * size for share, size in zip(shares, sizes, strict=True))
    row = np.ones((1, costs.fixed.shape[1]), dtype=np.int64)
    row[0, 0] = constant
    owned = np.zeros((1, *costs.per_channel.shape[1:]), dtype=np.int64)
    owned[0, 0] = shares
    weights = {name: np.append(weight, int(name == "macs")) for name, weight in costs.weights.items()}
    assert costs.owner is not None and costs.outputs is not None and costs.output_uses is not None and costs.leads is not None
    costs = CostModel(
        np.vstack([costs.fixed, row]),
        np.concatenate([costs.per_channel, owned]),
        weights,
        owner=np.append(costs.owner, -1),
        outputs=np.append(costs.outputs, 0),
        output_uses=np.append(costs.output_uses, 0),
        leads=np.append(costs.leads, False),
    )
    # Two more points beside the dense and the halved ones: what grows with a product or a square of widths shows there.
    for part in (2, 4):
        widths = [max(1, size // part) for size in sizes]
        found, expected = _cut_macs(structure, widths, inputs), costs.all(widths)["macs"]
        if found != expected:
            raise ValueError(
                f"the cut network computes {found:,} multiply-accumulates, not {expected:,}: its products of activations depend "
                "on several groups at once, which the cost model does not follow"
            )
    return costs


def _cut_macs(structure: Structure, widths: list[int], inputs: Inputs) -> int:
    plan = Plan(structure.names, [range(width) for width in widths])
    model = copy.deepcopy(structure.model)
    prune.install(model, prune.cut(tensors_of(structure.model), structure, plan))
    return count_macs(model, inputs)


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, shared ones once."""
    saved = set(model.state_dict(keep_vars=True))
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    return tensors | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def _coded(structure: Structure, model: nn.Module, names: list[str], output_uses: dict[str, int]) -> dict[str, Any]:
    """Who decides on the bits and rank of each tensor, and what costs need to know of it."""
    owner = np.full(len(names), -1, dtype=np.int64)
    outputs, second, leads = np.zeros_like(owner), np.zeros_like(owner), np.zeros(len(names), dtype=bool)
    modules = dict(model.named_modules())
    coded: set[str] = set()
    for row, name in enumerate(names):
        path, _, leaf = name.rpartition(".")
        layer = modules[path]
        if path not in structure.owners or not leaf.startswith("weight") or not isinstance(layer, (*CONVS, *RECURRENT, nn.Linear)):
            continue
        owner[row], outputs[row], leads[row] = structure.owners[path], int(isinstance(layer, TRANSPOSED)), path not in coded
        coded.add(path)
        if is_ranked(structure, path):
            second[row] = output_uses.get(name, 0)
    return {"owner": owner, "outputs": outputs, "output_uses": second, "leads": leads}


def is_ranked(structure: Structure, path: str) -> bool:
    """Whether the rank of its group holds for a layer.

    Few outputs of the network itself (classes, say) have no components to spare: such a small layer stays whole.
    """
    layer: Any = structure.model.get_submodule(path)
    if path in structure.unfactorable or not can_be_factored(layer):
        return False
    outputs = layer.weight.shape[int(isinstance(layer, TRANSPOSED))]
    return structure.skipped.get(path) != OUTPUT or outputs > FEW_OUTPUTS


def weight_uses(model: nn.Module, inputs: Inputs) -> tuple[dict[str, int], dict[str, int], int]:
    """How often an example uses each weight element, how often each output is made, and all multiply-accumulates.

    The last is counted by torch's own operation counter.
    """
    uses: dict[str, int] = {}
    outputs: dict[str, int] = {}
    names = {id(p): name for name, p in model.named_parameters()}

    def hook(layer: Any, given: Any, output: Any) -> None:
        if isinstance(layer, RECURRENT):
            sequence = given.data if isinstance(given, PackedSequence) else given
            used = {getattr(layer, n): math.prod(sequence.shape[:-1]) for n in layer._flat_weights_names if "weight" in n}
            made = {}
        elif isinstance(layer, CONVS):
            seen = given if isinstance(layer, TRANSPOSED) else output
            used = {layer.weight: math.prod(seen.shape[2:]) * len(seen)}
            made = {layer.weight: math.prod(output.shape[2:]) * len(output)}
        else:
            used = made = {layer.weight: math.prod(output.shape[:-1])}
        for weight, positions in used.items():
            # A parametrised weight is no parameter; its layer is never cut, so its share is part of the constant rest.
            if id(weight) in names:
                name = names[id(weight)]
                uses[name] = uses.get(name, 0) + positions
                outputs[name] = outputs.get(name, 0) + made.get(weight, 0)

    handles = [hooks.after(m, hook) for m in model.modules() if isinstance(m, (*CONVS, *RECURRENT, nn.Linear))]
    with hooks.attached(handles):
        return uses, outputs, count_macs(model, inputs)
