"""What a run's folder says of it, and whether the run can go on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
from filelock import FileLock, Timeout

from agents.arguments import Options
from agents.cli import BadArgumentError
from agents.registry import AGENTS
from reptile_env.env import ReptilePruneEnv

RUN = "run.json"
_LOCK = ".lock"


def read_run(folder: Path, command: str = "train") -> dict[str, Any]:
    """What the run in a folder was asked for.

    Raises:
        BadArgumentError: it is not the folder of such a run.
    """
    path = folder / RUN
    if not path.is_file():
        raise BadArgumentError(f"{folder} is not the folder of a run: it holds no {RUN}")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadArgumentError(f"{path} is damaged: {error}") from error
    if not isinstance(run, dict) or run.get("command") != command:
        raise BadArgumentError(f"{folder} is not the folder of `python -m agents {command}`")
    if command == "train" and run.get("agent") not in AGENTS:
        raise BadArgumentError(f"{path}: there is no agent {run.get('agent')!r}: another version wrote it; start a new run")
    return run


def options_of(run: dict[str, Any]) -> Options:
    """The options that a run was started with.

    Raises:
        BadArgumentError: another version of the program, which knew other ones, wrote them, or they are damaged.
    """
    names = [field.name for field in fields(Options)]
    missing = [name for name in names if name not in run]
    if missing:
        raise BadArgumentError(f"{RUN} of this run lacks {', '.join(missing)}: another version wrote it; start a new run")
    try:
        options = Options(**{name: run[name] for name in names})
        if not isinstance(run["task"], str | None):
            raise TypeError(f"task is {run['task']!r:.100}, not a name")
        for name in ("others", "hyperparameters"):
            if not isinstance(run[name], dict):
                raise TypeError(f"{name} is {run[name]!r:.100}, not an object")
    except TypeError as error:
        raise BadArgumentError(f"{RUN} of this run is damaged: {error}; start a new run") from error
    return options


def check_unchanged(folder: Path, known: dict[str, Any], now: dict[str, Any], what: str = "--resume") -> None:
    """Refuse to go on with a run under other conditions than it began.

    Raises:
        BadArgumentError: names what differs, and both values.
    """
    before, after = _flat(known), _flat(json.loads(json.dumps(now)))
    for name in before | after:
        if before.get(name) != after.get(name):
            raise BadArgumentError(
                f"{what} {folder}: {name} was {before.get(name)!r:.100} when the run began and is {after.get(name)!r:.100} now, "
                "so it can't go on as if it had not been interrupted; bring that back, or start a new run"
            )


def _flat(data: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested dicts as one, with keys such as ``versions torch``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{above}{key} ") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def conditions_of(env: gym.Env[Any, Any]) -> str:
    """What the measurements of an environment made by `agents.arguments.make_env` depend on, as a hash."""
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    try:
        return inner.evaluator.conditions()
    except ValueError as error:  # a metric without code: what is known of it must do
        return str(error)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process works in the folder meanwhile.

    Raises:
        BadArgumentError: one does.
    """
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BadArgumentError(f"another process is at work in {folder}; wait until it is done") from error
    try:
        yield
    finally:
        lock.release()
