"""What a run leaves behind: one row for each evaluated plan."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from reptile_env.compression.plan import Plan
from reptile_env.errors import first_line
from reptile_env.tasks.registry import tasks


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluated plan.

    Attributes:
        evaluation: its number, from 1.
        episode: number of its episode, from 1.
        group: the group decided on last.
        rate: the rate carried out there.
        metric: the task's metric on the validation split.
        loss: the task's loss there.
        params: parameters.
        macs: multiply-accumulates an example.
        bytes: tensor bytes.
        utility: utility of the plan.
        plan_return: the utility rescaled: 0 for the dense network, 1 for the best uniform rate.
        episode_return: sum of the episode's rewards so far; equal to `plan_return` under the reward ``tradeoff``.
        within_budget: whether the plan meets the budget; True where there is none.
        seconds: wall-clock seconds since the run began.
        plan: what it keeps.
        latency: seconds a forward pass; None where it is not the cost.
        train_loss: loss on the calibration examples; None where the reward does not read it.
        network: name of the network, where several are drawn; None where there is the one of the trace.
    """

    evaluation: int
    episode: int
    group: str
    rate: float
    metric: float
    loss: float
    params: int
    macs: int
    bytes: int
    utility: float
    plan_return: float
    episode_return: float
    within_budget: bool
    seconds: float
    plan: Plan
    latency: float | None = None
    train_loss: float | None = None
    network: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {name: getattr(self, name) for name in _ROW_FIELDS} | {"plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """The row that `to_dict` wrote."""
        return cls(**(data | {"plan": Plan.from_dict(data["plan"])}))


_ROW_FIELDS = tuple(f.name for f in fields(Row))


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What the trained policy does without exploring, in one episode.

    Attributes:
        episode_return: sum of the episode's rewards.
        evaluation: the row of the episode's last plan.
    """

    episode_return: float
    evaluation: int


@dataclass
class Trace:
    """A run of one agent on one task, or on several networks that are drawn.

    Attributes:
        agent: name of the agent.
        env_id: id of the environment.
        task: name of the task; of the family, where its networks are drawn.
        seed: seed of the run.
        evaluations: evaluated plans that the run was allowed.
        env_settings: arguments of the environment beside the task.
        agent_settings: hyperparameters of the agent.
        rows: one for each evaluated plan.
        policy: the deterministic policy's episode, where the agent has a policy.
        best: the row of highest return within the budget, the earliest of equals; None before the first such row.
    """

    agent: str
    env_id: str
    task: str
    seed: int
    evaluations: int
    env_settings: dict[str, Any] = field(default_factory=dict)
    agent_settings: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    policy: PolicyResult | None = None
    best: Row | None = None

    def add(self, row: Row) -> bool:
        """Append a row; True when it is the best so far."""
        self.rows.append(row)
        better = row.within_budget and (self.best is None or row.plan_return > self.best.plan_return)
        if better:
            self.best = row
        return better

    @property
    def policy_return(self) -> float | None:
        """Return of the plan that the policy's episode ended with, whatever it was rewarded for; None without a policy."""
        return None if self.policy is None else self.rows[self.policy.evaluation - 1].plan_return

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that plans were evaluated on, in the order in which they were met."""
        return tuple(dict.fromkeys(row.network or self.task for row in self.rows))

    @property
    def test_networks(self) -> tuple[str, ...]:
        """Those of `networks` that are kept for scoring: an agent that trained on one must be marked."""
        splits = {row["name"]: row["split"] for row in tasks()}
        return tuple(name for name in self.networks if splits.get(name) == "test")

    def header(self) -> dict[str, Any]:
        """What is known before the first row."""
        kept = ("agent", "env_id", "task", "seed", "evaluations", "env_settings", "agent_settings")
        return {name: getattr(self, name) for name in kept}

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace file. A last line cut short by a crash is left out.

        Raises:
            ValueError: a file that is not a trace.
        """
        records = read_records(path)
        if not records or not isinstance(records[0], dict) or records[0].pop("type", None) != "run":
            raise ValueError(f"{path} is not a trace: its first line must be of type 'run'")
        read = 0
        try:
            trace = cls(**records[0])
            for record in records[1:]:
                read += 1
                kind = record.pop("type")
                if kind == "plan":
                    trace.add(Row.from_dict(record))
                elif kind == "policy":
                    trace.policy = PolicyResult(**record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {read + 1} is damaged: {first_line(error)}") from error
        return trace


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a trace file, each with its ``type``. A last line cut short by a crash is left out.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            records += [json.loads(line)] if line else []
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return records
