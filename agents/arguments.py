"""From the command line's words to tasks and environments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

import reptile_env
from agents.cli import BadArgumentError
from agents.registry import AgentSpec
from reptile_env.errors import unknown

if TYPE_CHECKING:
    from reptile_env.tasks.task import Task


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    Attributes:
        task: name of a built-in task, or ``module:function``.
        steps: plans to evaluate, at least 1.
        seed: of everything that is drawn.
        budget: cap on the final cost as a fraction of dense, or None.
        cost: ``macs``, ``params``, ``bytes`` or ``latency``.
        recovery: what follows a cut.
        rounds: passes over all groups in an episode.
        measure: ``step``, ``round``, or None for the agent's own.
        threads: torch threads.
        evaluator: ``live`` runs the network, ``table`` looks plans up.
    """

    task: str
    steps: int
    seed: int = 0
    budget: float | None = None
    cost: str = "macs"
    recovery: str = "reconstruct"
    rounds: int = 1
    measure: str | None = None
    threads: int = 1
    evaluator: str = "live"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadArgumentError(f"--steps {self.steps}: evaluate at least 1 plan")
        if not 0 <= self.seed < 2**32:
            raise BadArgumentError(f"--seed {self.seed}: give a number from 0 to 2**32 - 1")
        if self.threads < 1:
            raise BadArgumentError(f"--threads {self.threads}: give at least 1")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def resolve_task(text: str) -> Task:
    """The task that ``NAME`` or ``module:function`` names; modules are looked for in the current directory too.

    Raises:
        BadArgumentError: no such task, module or function, or one that does not make a task.
    """
    if ":" not in text:
        try:
            return reptile_env.make_task(text)
        except ValueError as error:
            raise BadArgumentError(f"--task: {error}; or module:function for a task of your own") from error
    module_name, _, function_name = text.partition(":")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(module_name) if module_name else None
    except (ModuleNotFoundError, ValueError):
        found = None
    if found is None:
        raise BadArgumentError(f"--task {text}: there is no module {module_name!r} in {Path.cwd()} or on PYTHONPATH")
    module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadArgumentError(f"--task {text}: {unknown(f'function of {module_name}', function_name, functions)}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise BadArgumentError(f"--task {text}: {function_name}() must take no argument: {error}") from error
    except ValueError:
        pass  # a builtin without a signature: the call itself will tell
    task = function()
    if not isinstance(task, reptile_env.Task):
        raise BadArgumentError(
            f"--task {text}: {function_name}() must return a reptile_env.Task, it returned {type(task).__name__}"
        )
    return task


def task_of(options: Options) -> Task | str:
    """What the environment is made with: the task, or for a table its name alone."""
    return options.task if options.evaluator == "table" else resolve_task(options.task)


def make_env(spec: AgentSpec, task: Task | str, options: Options) -> gym.Env[Any, Any]:
    """The environment of an agent.

    Raises:
        BadArgumentError: a budget that can't be reached, an unknown cost, and the like.
    """
    settings: dict[str, Any] = {
        "budget": options.budget,
        "cost": options.cost,
        "recovery": options.recovery,
        "rounds": options.rounds,
        "measure": options.measure or spec.measure,
        "evaluator": options.evaluator,
    }
    try:
        return gym.make(spec.env_id, task=task, **settings)
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
