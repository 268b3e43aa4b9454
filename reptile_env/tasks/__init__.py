"""Tasks: what is compressed, and the registry of built-in ones."""

from reptile_env.tasks.catalogue.spec import TaskSpec
from reptile_env.tasks.registry import make_task, references, register_task, task_spec, tasks

__all__ = ["TaskSpec", "make_task", "references", "register_task", "task_spec", "tasks"]
