"""What follows a cut to win accuracy back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.groups import Structure
from reptile_env.compression.moments import Moments
from reptile_env.compression.plan import Plan
from reptile_env.errors import unknown
from reptile_env.tasks.splits import Split, call


@dataclass(frozen=True)
class Workbench:
    """What a recovery works with.

    Attributes:
        model: the network, cut to the plan at hand.
        structure: its groups.
        state: dense parameters and buffers.
        moments: second moments of each refittable consumer's dense inputs.
        calibration: training examples set aside for recovery.
        batch_size: examples a forward pass.
    """

    model: nn.Module
    structure: Structure
    state: dict[str, Tensor]
    moments: dict[str, Moments]
    calibration: Split
    batch_size: int


# Returns the names of the tensors that it replaced in the network.
Recovery = Callable[[Workbench, Plan], set[str]]


def reconstruct(bench: Workbench, plan: Plan) -> set[str]:
    """Refit every consumer to its dense outputs, in closed form from cached moments; no data pass."""
    fitted: dict[str, Tensor] = {}
    for name, moments in bench.moments.items():
        weight, bias = f"{name}.weight" if name else "weight", f"{name}.bias" if name else "bias"
        axis = bench.structure.axes[weight, 1]
        channels = prune.kept_positions(axis, bench.structure, plan)
        if len(channels) == len(axis.group):
            continue
        outputs = bench.structure.axes.get((weight, 0))
        rows: Tensor | slice = slice(None)
        if outputs is not None:
            rows = torch.from_numpy(prune.kept_positions(outputs, bench.structure, plan))
        dense = bench.state[weight]
        solution, intercept = moments.solve(torch.from_numpy(channels))
        fitted[weight] = solution[rows].reshape(-1, len(channels), *dense.shape[2:]).to(dense.dtype).contiguous()
        if intercept is not None:
            fitted[bias] = intercept[rows].to(dense.dtype)
    prune.install(bench.model, fitted)
    return set(fitted)


def recalibrate(bench: Workbench, plan: Plan) -> set[str]:
    """Recompute batch-norm statistics on the calibration examples (a cumulative mean over batches)."""
    found = {name: m for name, m in bench.model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    norms = {name: norm for name, norm in found.items() if norm.running_mean is not None}
    kept = {name: (norm.momentum, norm.num_batches_tracked) for name, norm in norms.items()}
    for norm in norms.values():
        # reset_running_stats() writes in place; the dense statistics are shared, so fresh tensors go in first.
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean, norm.running_var = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for batch in bench.calibration.batches(bench.batch_size):
                call(bench.model, batch.inputs)
    finally:
        for name, norm in norms.items():
            norm.eval()
            norm.momentum, norm.num_batches_tracked = kept[name]
    return {f"{name}.{leaf}".lstrip(".") for name in norms for leaf in ("running_mean", "running_var")}


RECOVERIES: dict[str, Recovery] = {"recalibrate": recalibrate, "reconstruct": reconstruct}


def parse(recovery: str) -> list[Recovery]:
    """The steps of ``"none"``, a name, or names joined by ``+``, carried out in that order.

    Raises:
        ValueError: an unknown name, or `none` joined with another.
    """
    if recovery == "none":
        return []
    names = recovery.split("+")
    for name in names:
        if name not in RECOVERIES:
            raise unknown("recovery", name, ["none", *RECOVERIES])
    return [RECOVERIES[name] for name in names]


def check(recovery: str, model: nn.Module) -> None:
    """Refuse a recovery that does not fit the network.

    Raises:
        ValueError: `recalibrate` without batch norm.
    """
    parse(recovery)
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if "recalibrate" in recovery.split("+") and not norms:
        raise ValueError("recovery 'recalibrate' needs batch normalisation and this network has none; use 'reconstruct' or 'none'")
