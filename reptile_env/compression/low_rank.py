"""Low rank: a layer as the product of two thinner ones."""

from __future__ import annotations

from reptile_env.compression.plan import Plan
from reptile_env.compression.recovery import Workbench


def factor(bench: Workbench, plan: Plan) -> None:
    """Not yet."""
    raise NotImplementedError
