"""Agents whose hyperparameters lie in a file that users may change: one YAML file an agent."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from agents import bounds
from agents.base import Agent
from agents.sections import Sections
from reptile_env.errors import unknown

HYPERPARAMETERS = Path(__file__).parent / "hyperparameters"


class TunedAgent(Agent):
    """An agent with the hyperparameters of ``hyperparameters/NAME.yaml``; see `Sections` for how they differ between tasks.

    Args:
        name: of the agent.
        hyperparameters: values used instead of the file's, all or some, whatever the task.

    Raises:
        TypeError: a hyperparameter of another kind than in the file.
        ValueError: one that the agent does not have, or out of bounds.
    """

    def __init__(self, name: str, hyperparameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(name)
        self._sections = Sections.read(HYPERPARAMETERS / f"{name}.yaml")
        self._given = dict(hyperparameters or {})
        known = self._takes()
        for key in self._given:
            if key not in known:
                raise unknown(f"hyperparameter of {name}", key, known)
        bounds.check(name, self._sections.default, self._given)
        self.hyperparameters: dict[str, Any] = self._sections.default | self._given

    def _takes(self) -> Collection[str]:
        """Names of hyperparameters that may be given: the file's."""
        return self._sections.default

    def prepare(self, task: str) -> None:
        """Take the hyperparameters that are meant for a task."""
        self.hyperparameters = self._sections.of(task) | self._given

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters."""
        return copy.deepcopy(self.hyperparameters)
