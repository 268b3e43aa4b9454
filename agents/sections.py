"""Hyperparameter files: values for all tasks, and other values for some kinds of task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import reptile_env
from reptile_env.errors import unknown
from reptile_env.transfer import SPLITS, SUITE

# The first holds every hyperparameter, the others what differs, by the name of a suite or of a family of networks.
SECTIONS = ("default", "suites", "families")


class Sections:
    """The hyperparameters of an agent, by kind of task.

    A file with sections looks like this; one without holds the values for all tasks:

    ```yaml
    default: {learning_rate: 0.002, batch_size: 128}
    suites:
      real: {batch_size: 64}
    families:
      cnn: {learning_rate: 0.001}
    ```

    Args:
        data: what the file holds.
        where: the file, for messages.

    Attributes:
        default: values where nothing else is said.

    Raises:
        ValueError: an unknown section, suite, family or key; the message says the known ones and the nearest.
    """

    def __init__(self, data: Any, where: str) -> None:
        sections = data if isinstance(data, dict) and "default" in data else {"default": data}
        for name in sections:
            if name not in SECTIONS:
                raise _at(where, unknown("section", name, SECTIONS))
        self.default = _mapping(sections["default"], f"{where}: section 'default'")
        self._others: dict[str, dict[str, dict[str, Any]]] = {}
        for kind, column in (("suites", "suite"), ("families", "family")):
            known = sorted({str(row[column]) for row in reptile_env.tasks()})
            self._others[column] = {}
            for name, values in _mapping(sections.get(kind, {}), f"{where}: section {kind!r}").items():
                if name not in known:
                    raise _at(where, unknown(column, name, known))
                self._others[column][name] = _mapping(values, f"{where}: {column} {name!r}")
                for key in self._others[column][name]:
                    if key not in self.default:
                        raise _at(f"{where}: {column} {name!r}", unknown("hyperparameter", key, self.default))

    @classmethod
    def read(cls, path: Path) -> Sections:
        """The sections of a YAML file.

        Raises:
            ValueError: not YAML, or see the class.
            OSError: it can't be read.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
        return cls(data, str(path))

    def of(self, task: str) -> dict[str, Any]:
        """The values for a task: those of its family, else of its suite, else the default; an unregistered task has neither.

        What is learnt on a split of the transfer family, such as ``transfer-train``, has the values of that suite.
        """
        drawn = {"suite": SUITE} if task in [f"{SUITE}-{split}" for split in SPLITS] else {}
        row = next((row for row in reptile_env.tasks() if row["name"] == task), drawn)
        values = dict(self.default)
        for column, sections in self._others.items():
            values |= sections.get(row.get(column, ""), {})
        return values


def _mapping(data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a mapping such as 'learning_rate: 0.001', got {type(data).__name__}")
    return dict(data)


def _at(where: str, error: ValueError) -> ValueError:
    return ValueError(f"{where}: {error}")
