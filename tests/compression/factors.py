"""Plans with ranks, and the factors that come of them, for tests."""

from __future__ import annotations

from torch import nn

from reptile_env.compression.modules import Factored
from reptile_env.compression.plan import Plan


def ranked(plan: Plan, rank: float) -> Plan:
    """`plan` with one rank in every group."""
    return Plan(plan.names, plan.keep, ranks=[rank] * len(plan.keep))


def factors_of(model: nn.Module) -> dict[str, Factored]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Factored)}
