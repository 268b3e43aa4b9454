"""Quantization."""

from __future__ import annotations

from reptile_env.compression.plan import Plan
from reptile_env.compression.recovery import Workbench


def quantize(bench: Workbench, plan: Plan, rounding: str) -> set[str]:
    """Not yet."""
    raise NotImplementedError
