"""From the command line's words to tasks and environments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import yaml

import reptile_env
from agents.cli import BadArgumentError
from agents.registry import AgentSpec
from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import unknown
from reptile_env.tasks.registry import task_spec
from reptile_env.transfer import SPLITS

if TYPE_CHECKING:
    from reptile_env.tasks.task import Task

DRAWING = "ReptilePruneTransfer-v0"  # the id that draws a network at each reset
DEFAULT_TASK = "digits-cnn"


def task_or_default(task: str | None, env: str | None) -> str | None:
    """The task that was asked for; where none was, the default, or with `DRAWING` all networks of its family."""
    return DEFAULT_TASK if task is None and env != DRAWING else task


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    Attributes:
        task: name of a built-in task, or ``module:function``; None where networks are drawn from a whole family.
        steps: plans to evaluate, at least 1.
        seed: of everything that is drawn.
        budget: cap on the final cost as a fraction of dense, or None.
        cost: ``macs``, ``params``, ``bytes`` or ``latency``; None for the environment's own.
        recovery: what follows a cut.
        rounds: passes over all groups in an episode.
        measure: ``step``, ``round``, or None for the agent's own.
        threads: torch threads.
        evaluator: ``live`` runs the network, ``table`` looks plans up.
        env: id of the environment, or None for the agent's own.
        observation: ``network``, ``group``, or None for the agent's own.
        reward: name of a reward, or None for the agent's own.
        others: further arguments of the environment, by name.
        hyperparameters: those used instead of the agent's file's.
    """

    task: str | None
    steps: int
    seed: int = 0
    budget: float | None = None
    cost: str | None = None
    recovery: str = "reconstruct"
    rounds: int = 1
    measure: str | None = None
    threads: int = 1
    evaluator: str = "live"
    env: str | None = None
    observation: str | None = None
    reward: str | None = None
    others: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)

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
        BadArgumentError: no such task, module or function, one that makes no task, or a task whose data or packages are missing.
    """
    if ":" not in text:
        try:
            task_spec(text)
        except ValueError as error:
            raise BadArgumentError(f"--task: {error}; or module:function for a task of your own") from error
        try:
            return reptile_env.make_task(text)
        except (ValueError, OSError, ImportError) as error:
            raise BadArgumentError(f"--task {text}: {error}") from error
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


def task_of(options: Options) -> Task | str | None:
    """What the environment is made with: the task, or where its name alone is asked for (of tables, of a family) the name."""
    by_name = options.evaluator == "table" or options.env == DRAWING
    return options.task if options.task is None or by_name else resolve_task(options.task)


def make_env(spec: AgentSpec, task: Task | str | None, options: Options) -> gym.Env[Any, Any]:
    """The environment of an agent.

    Args:
        spec: of the agent.
        task: from `task_of`.
        options: what was asked for.

    Raises:
        BadArgumentError: a budget out of reach, an unknown cost, an environment in which the agent can't act, and the like.
    """
    asked = {name: getattr(options, name) for name in ("cost", "measure", "observation", "reward")}
    settings: dict[str, Any] = {
        "budget": options.budget,
        "recovery": options.recovery,
        "rounds": options.rounds,
        "evaluator": options.evaluator,
        **spec.env_settings,
        **{name: value for name, value in asked.items() if value is not None},
        **options.others,
    } | ({} if task is None else {"task": task})
    env_id = spec.env_id if options.env is None else options.env
    known = [registered.id for registered in gym.registry.values() if str(registered.entry_point).startswith("reptile_env.")]
    if env_id not in known:
        raise BadArgumentError(f"--env: {unknown('environment', env_id, known)}")
    try:
        if env_id == DRAWING and isinstance(task, str) and (split := task_spec(task).split) in SPLITS:
            settings["split"] = split  # who names a network has named its split
        env = gym.make(env_id, **settings)
    except (TypeError, ValueError) as error:
        # To a TypeError Gymnasium adds all arguments.
        raise BadArgumentError(str(error).partition(" was raised from the environment creator")[0]) from error
    try:
        spec.check_actions(env.action_space)
    except ValueError as error:
        raise BadArgumentError(f"--env {env_id}: {error}") from error
    return env


# Arguments of the environment that have an option of their own, or that ids decide on.
_TAKEN = ("task", "budget", "cost", "recovery", "rounds", "measure", "evaluator", "observation", "reward", "action", "render_mode")


def read_others(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments of the environment from ``NAME=VALUE``, the value as in YAML.

    Raises:
        BadArgumentError: not of this form, no argument that may be given so, or one that is given twice.
    """
    known = [name for name in inspect.signature(ReptilePruneEnv).parameters if name not in _TAKEN]
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise BadArgumentError(f"--set {pair}: write NAME=VALUE, such as --set max_rate=0.8")
        if name not in known:
            raise BadArgumentError(f"--set {pair}: {unknown('argument', name, known)}")
        if name in found:
            raise BadArgumentError(f"--set {pair}: {name} is given twice; give it once")
        found[name] = _yaml(value, f"--set {pair}")
    return found


def read_hyperparameters(path: Path | None) -> dict[str, Any]:
    """Hyperparameters from a YAML file, by name.

    Raises:
        BadArgumentError: no such file, or not a mapping of names to values.
    """
    if path is None:
        return {}
    try:
        data = _yaml(path.read_text(encoding="utf-8"), f"--hyperparameters {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgumentError(f"--hyperparameters {path} can't be read: {error}") from error
    if not isinstance(data, dict) or not data:
        raise BadArgumentError(f"--hyperparameters {path} must hold lines such as 'learning_rate: 0.001'")
    return data


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadArgumentError(f"{what} is not YAML: {error}") from error
