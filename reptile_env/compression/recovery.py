"""What follows a cut to win accuracy back, without training."""

from __future__ import annotations

import math

import torch
from torch import nn

from reptile_env.compression.plan import Plan
from reptile_env.compression.reconstruct import reconstruct, reconstruct_sequential
from reptile_env.compression.workbench import Recovery, Workbench
from reptile_env.errors import unknown
from reptile_env.tasks.splits import call


def recalibrate(bench: Workbench, plan: Plan) -> set[str]:
    """Recompute batch-norm statistics on the calibration examples: the mean over batches of nearly equal size."""
    found = {name: m for name, m in bench.model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    norms = {name: norm for name, norm in found.items() if norm.running_mean is not None}
    kept = {name: (norm.momentum, norm.num_batches_tracked) for name, norm in norms.items()}
    for norm in norms.values():
        # reset_running_stats() writes in place; the dense statistics are shared, so fresh tensors go in first.
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean, norm.running_var = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long)  # counted up in place, so not the shared one either
        norm.train()
    # A short last batch would have poor statistics, so the batches are evened out; the rest weigh by their examples.
    count = len(bench.calibration)
    size = math.ceil(count / math.ceil(count / bench.batch_size))
    seen = 0
    try:
        with torch.no_grad():
            for batch in bench.calibration.batches(size):
                seen += len(batch)
                for norm in norms.values():
                    norm.momentum = len(batch) / seen
                call(bench.model, batch.inputs)
    finally:
        for name, norm in norms.items():
            norm.eval()
            norm.momentum, norm.num_batches_tracked = kept[name]
    return {f"{name}.{leaf}".lstrip(".") for name in norms for leaf in ("running_mean", "running_var")}


RECOVERIES: dict[str, Recovery] = {
    "recalibrate": recalibrate,
    "reconstruct": reconstruct,
    "reconstruct-sequential": reconstruct_sequential,
}


def parse(recovery: str) -> list[Recovery]:
    """The steps of ``"none"``, a name, or names joined by ``+``, carried out in that order. ``finetune`` is none of them.

    Raises:
        ValueError: an unknown name, or `none` joined with another.
    """
    if recovery == "none":
        return []
    names = [name for name in recovery.split("+") if name != "finetune"]
    for name in names:
        if name not in RECOVERIES:
            raise unknown("recovery", name, ["none", *RECOVERIES, "finetune"])
    return [RECOVERIES[name] for name in names]


def check(recovery: str, model: nn.Module, examples: int) -> None:
    """Refuse a recovery that does not fit the network or its data.

    Raises:
        ValueError: `recalibrate` without batch norm, or on fewer than two training examples.
    """
    parse(recovery)
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if "recalibrate" in recovery.split("+") and not norms:
        raise ValueError("recovery 'recalibrate' needs batch normalisation and this network has none; use 'reconstruct' or 'none'")
    if "recalibrate" in recovery.split("+") and examples < 2:
        raise ValueError("recovery 'recalibrate' needs at least 2 training examples; give more, or use 'reconstruct' or 'none'")
