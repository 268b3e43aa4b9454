"""What ``python -m agents tune`` searches: the values that an agent's hyperparameters may take, and settings drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, Trial

from agents.cli import BadArgumentError
from agents.registry import make_agent
from agents.tuned import HYPERPARAMETERS
from reptile_env.errors import unknown

SPACES = HYPERPARAMETERS / "spaces.yaml"


def read_space(agent: str) -> dict[str, dict[str, Any]]:
    """Which values an agent's hyperparameters may take.

    Raises:
        BadArgumentError: none are listed for it.
    """
    spaces = yaml.safe_load(SPACES.read_text(encoding="utf-8"))
    if agent not in spaces:
        raise BadArgumentError(str(unknown(f"agent in {SPACES.name}", agent, spaces)))
    space: dict[str, dict[str, Any]] = spaces[agent]
    return space


def suggest(trial: Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Hyperparameters that a trial asks for: a choice among ``choices``, or a number from ``low`` to ``high``.

    A number is whole where both bounds are; ``log: true`` searches its logarithm.
    """
    found: dict[str, Any] = {}
    for name, among in space.items():
        if "choices" in among:
            # By number: Optuna's storages take plain values alone, and choices may be lists.
            found[name] = among["choices"][trial.suggest_categorical(name, range(len(among["choices"])))]
        elif isinstance(among["low"], int) and isinstance(among["high"], int):
            found[name] = trial.suggest_int(name, among["low"], among["high"], log=among.get("log", False))
        else:
            found[name] = trial.suggest_float(name, among["low"], among["high"], log=among.get("log", False))
    return found


def shipped(agent: str, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The setting of an agent's own file, as parameters of a trial, see `suggest`.

    Raises:
        ValueError: the space leaves it out.
    """
    settings, found = make_agent(agent).settings, {}
    for name, among in space.items():
        value = settings[name]
        if not (value in among["choices"] if "choices" in among else among["low"] <= value <= among["high"]):
            raise ValueError(f"{agent}: {SPACES.name} leaves out the shipped {name}: {value!r}; put it there")
        found[name] = among["choices"].index(value) if "choices" in among else value
    return found


def setting_of(trial: FrozenTrial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The hyperparameters of a trial that was made."""
    return suggest(optuna.trial.FixedTrial(trial.params), space)  # type: ignore[arg-type]
