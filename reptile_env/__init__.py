"""Model compression as a Gymnasium environment.

Importing registers the environment ids and nothing more: torch is loaded when the first environment is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reptile_env.compression.plan import Plan
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.registry import tasks as _list_tasks

if TYPE_CHECKING:
    from reptile_env.compression.timing import measure_latency
    from reptile_env.explaining import explain
    from reptile_env.saving import Compressed, compress, load
    from reptile_env.tasks.task import Task

__version__ = "0.1.0"
__all__ = ["Compressed", "Plan", "Task", "compress", "explain", "load", "make_task", "measure_latency", "tasks"]

# The folder tasks/ stays importable; the public name `reptile_env.tasks` is the function that lists them.
tasks = _list_tasks

_LAZY = {
    "Compressed": "reptile_env.saving",
    "Task": "reptile_env.tasks.task",
    "compress": "reptile_env.saving",
    "explain": "reptile_env.explaining",
    "load": "reptile_env.saving",
    "measure_latency": "reptile_env.compression.timing",
}

_ONE = ("reptile_env.env:ReptilePruneEnv", "reptile_env.vector:make_vector")
_MANY = ("reptile_env.transfer:ReptilePruneTransferEnv", "reptile_env.transfer:make_vector")
_IDS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "ReptilePrune-v0": (_ONE, {}),
    "ReptilePruneDiscrete-v0": (_ONE, {"action": "discrete"}),
    # MACs do not see bits, so bytes is what this id saves.
    "ReptileCompress-v0": (_ONE, {"action": "joint", "cost": "bytes"}),
    "ReptilePruneTransfer-v0": (_MANY, {}),
}

for _id, ((_entry, _vector_entry), _kwargs) in _IDS.items():
    gym.register(_id, entry_point=_entry, vector_entry_point=_vector_entry, kwargs=_kwargs)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'reptile_env' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
