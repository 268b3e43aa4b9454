"""Candidate groups from torch-pruning's dependency graph (Fang et al., DepGraph, CVPR 2023)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from reptile_env.compression.assembly import Candidate
from reptile_env.compression.producers import CONVS, PER_CHANNEL, TRANSPOSED, Slot, is_depthwise
from reptile_env.tasks.splits import Inputs, call


def graph_candidates(model: nn.Module, inputs: Inputs, order: dict[str, int]) -> Iterator[Candidate]:
    """Candidates for the convolutions and linear layers of a network.

    Args:
        model: a network in evaluation mode; it is not altered.
        inputs: a few examples.
        order: for each layer when it ran.
    """
    traced = copy.deepcopy(model).requires_grad_(True)
    names = {module: name for name, module in traced.named_modules()}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(traced, inputs, forward_fn=call, verbose=False)
            groups = list(graph.get_all_groups(root_module_types=[*CONVS, nn.Linear]))
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError):
            # The graph gives up on some networks (bidirectional recurrent layers, say); `tracing` then finds what it didn't.
            return
    for found in groups:
        candidate = _candidate(found, graph, names, order)
        if candidate is not None:
            yield candidate


def _candidate(
    found: torch_pruning.Group, graph: torch_pruning.DependencyGraph, names: dict[nn.Module, str], order: dict[str, int]
) -> Candidate | None:
    candidate = Candidate("", "conv", len(found[0].idxs))
    for item in found:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            candidate.reason = candidate.reason or "a bare parameter depends on its channels"
            continue
        name = names.get(module)
        if name is None:  # concatenation, reshape, element-wise: no tensor of their own
            continue
        outwards = graph.is_out_channel_pruning_fn(item.dep.handler)
        dims = _dims(module, outwards)
        if dims is None:
            candidate.reason = candidate.reason or f"{name} ({type(module).__name__}) can't follow its cut"
            continue
        if isinstance(module, (*CONVS, nn.Linear)):
            (candidate.producers if outwards or is_depthwise(module) else candidate.consumers).append(name)
        positions, channels = np.asarray(item.idxs), np.asarray([-1 if i is None else i for i in item.root_idxs])
        for tensor, dim in dims:
            size = getattr(module, tensor).shape[dim]
            if (channels < 0).any() or (channels >= candidate.size).any() or positions.max(initial=0) >= size:
                candidate.reason = candidate.reason or f"its channels can't be followed into {name}"
                break
            candidate.slots.append(Slot(f"{name}.{tensor}".lstrip("."), dim, positions, channels))
    if not candidate.producers:
        return None
    candidate.root = min(candidate.producers, key=lambda n: order.get(n, len(order)))
    modules = {name: module for module, name in names.items()}
    if any(is_depthwise(modules[name]) for name in candidate.producers):
        candidate.kind = "depthwise"
    elif isinstance(modules[candidate.root], nn.Linear):
        candidate.kind = "linear"
    return candidate


def _dims(module: nn.Module, outwards: bool) -> list[tuple[str, int]] | None:
    """Tensors and dimensions along which a module follows a cut of its outputs or inputs; None: it can't."""
    vectors = [n for n in ("weight", "bias", "running_mean", "running_var") if isinstance(getattr(module, n, None), Tensor)]
    if isinstance(module, PER_CHANNEL) and not isinstance(module, nn.GroupNorm):
        last = isinstance(module, nn.LayerNorm)
        return [(n, getattr(module, n).dim() - 1 if last else 0) for n in vectors if getattr(module, n).numel() > 1]
    if isinstance(module, (*CONVS, nn.Linear)):
        groups = getattr(module, "groups", 1)
        bias = [("bias", 0)] if module.bias is not None else []
        if groups > 1:
            return [("weight", 0), *bias] if groups == module.in_channels == module.out_channels else None
        out, into = (1, 0) if isinstance(module, TRANSPOSED) else (0, 1)
        return [("weight", out), *bias] if outwards else [("weight", into)]
    return None if vectors else []
