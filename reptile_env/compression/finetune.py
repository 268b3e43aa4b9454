"""Fine-tuning."""

from __future__ import annotations

from typing import Any

from torch import nn

from reptile_env.compression.plan import Plan
from reptile_env.compression.recovery import Workbench
from reptile_env.tasks.task import Task


def finetune(bench: Workbench, plan: Plan, task: Task, settings: Any, teacher: nn.Module) -> set[str]:
    """Not yet."""
    raise NotImplementedError
