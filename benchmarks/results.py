"""What a run leaves behind, as one file in a folder: the runner writes them; validation, statistics and reports read them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.derived_columns import with_derived, without_derived
from benchmarks.results_folder import SUFFIX, claimed, files_of, write_new
from benchmarks.run_checks import check_head, check_numbers
from benchmarks.run_file import Columns, pack, unpack

STATUSES = ("done", "failed")
TRACKS = ("search", "policy", "transfer")

# Columns of every run that is done: dtype, and whether there is one number a group instead of one.
COLUMNS: dict[str, tuple[str, bool]] = {
    "evaluation": ("int64", False),
    "episode": ("int64", False),
    "group": ("int64", False),
    "rate": ("float64", False),
    "metric": ("float64", False),
    "loss": ("float64", False),
    "params": ("int64", False),
    "macs": ("int64", False),
    "bytes": ("int64", False),
    "plan_return": ("float64", False),
    "episode_return": ("float64", False),
    "within_budget": ("bool", False),
    "measured_seconds": ("float64", False),
    "simulated_seconds": ("float64", False),
    "widths": ("int64", True),
}
# Where decisions are about more than the rate.
MORE_COLUMNS: dict[str, tuple[str, bool]] = {"bits": ("int64", True), "ranks": ("float64", True)}


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one agent on one task of a suite.

    Of every evaluated plan there is one entry in each of `columns`, in the order of evaluation:

    - ``evaluation`` its number, from 1; ``episode`` the number of its episode, from 1 (those in which nothing
      was evaluated don't count); ``group`` the index of the group decided on
      last; ``rate`` what was removed there; ``widths`` ``(n, groups)``, channels that every group keeps. Groups are decided on in
      network order, once an episode, so the widths up to ``group`` are the decisions of the episode, and the others are dense.
      Where decisions are about bits and ranks too, ``bits`` and ``ranks`` ``(n, groups)``;
    - ``metric`` on the validation split; ``loss`` there, NaN for plans that were neither the best so far nor the policy's;
      ``params``, ``macs``, ``bytes``;
    - ``plan_return``: 0 is the dense network, 1 the best uniform setting; ``episode_return``, sum of the episode's rewards so far;
      ``within_budget``;
    - ``measured_seconds``, what measuring it took, or took when the table was built (in long runs the mean of some neighbours);
      ``simulated_seconds``, their sum so far.

    Attributes:
        suite: name and version, such as ``core-v1``.
        agent: a name of the agents' registry.
        task: name of a case of the suite: the task, and what else tells it apart (``digits-cnn@0.5``).
        seed: of everything that the agent drew.
        track: ``search``: scored by the best plan within the evaluations, and in the track ``policy`` by `policy_return` where
            there is one; ``policy``: by `policy_return` alone; ``transfer``: likewise, for an agent that was trained on
            `training_networks`.
        status: ``done``, or ``failed`` with an `error`, no columns and no returns.
        error: the traceback.
        env_id: of the environment.
        settings: arguments of ``gym.make``, the task among them.
        agent_settings: hyperparameters of the agent.
        evaluations: plans that the agent was allowed to evaluate (in the track ``transfer``: of all its training networks).
        versions: of what the results depend on.
        machine: processor, cores and system.
        git: revision of the code, ``-dirty`` where it was changed; None where it is not known.
        threads: of torch and BLAS.
        training_networks: tasks that the agent has learnt on; empty for one that starts anew on each.
        on_test: whether one of these is a test network.
        started: date and time in UTC, for the record alone.
        seconds: that the run took.
        groups: names, in network order.
        sizes: dense channels of each.
        dense: the dense network's ``metric``, ``loss``, ``params``, ``macs`` and ``bytes``.
        scale: what returns stand on: ``cost``, ``w``, ``scale``, ``higher_is_better`` and ``metric_name``.
        cost_model: from which costs follow (`reptile_env.evaluation.table_head.costs_to_json`); None: it has none of that form.
        columns: see above.
        policy_return: `plan_return` of the plan that the trained policy's own episode ended with; None without a policy.
        policy_evaluation: number of that plan.
        uniform_return: of the best uniform setting under the same budget: score 0. NaN where none is known.
        best_known_return: of the best plan known; exact on a table: score 1. NaN where none is known.

    Raises:
        ValueError: an unknown track or status, or columns that do not belong together.
    """

    suite: str
    agent: str
    task: str
    seed: int
    track: str
    status: str
    error: str | None
    env_id: str
    settings: dict[str, Any]
    agent_settings: dict[str, Any]
    evaluations: int
    versions: dict[str, str]
    machine: dict[str, Any]
    git: str | None
    threads: int
    training_networks: tuple[str, ...]
    on_test: bool
    started: str
    seconds: float
    groups: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    dense: dict[str, Any] = field(default_factory=dict)
    scale: dict[str, Any] = field(default_factory=dict)
    cost_model: dict[str, Any] | None = None
    columns: Columns = field(default_factory=dict)
    policy_return: float | None = None
    policy_evaluation: int | None = None
    uniform_return: float = math.nan
    best_known_return: float = math.nan

    def __post_init__(self) -> None:
        if self.track not in TRACKS:
            raise ValueError(f"track {self.track!r} is none of {', '.join(TRACKS)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if (self.error is None) != (self.status == "done"):
            raise ValueError("a failed run has an error, a run that is done has none")
        if self.status == "failed" and self.columns:
            raise ValueError("a failed run has no columns")
        if self.status == "done":
            _check_columns(self.columns, len(self.groups))

    @property
    def evaluated(self) -> int:
        """Plans that were evaluated."""
        return len(self.columns["metric"]) if self.columns else 0


def _check_columns(columns: Columns, groups: int) -> None:
    missing = sorted(set(COLUMNS) - set(columns))
    if missing:
        raise ValueError(f"columns are missing: {', '.join(missing)}")
    rows = len(columns["metric"])
    for name, column in columns.items():
        if name not in COLUMNS and name not in MORE_COLUMNS:
            raise ValueError(f"there is no column {name!r}")
        dtype, each_group = (COLUMNS | MORE_COLUMNS)[name]
        shape = (rows, groups) if each_group else (rows,)
        if str(column.dtype) != dtype or column.shape != shape:
            raise ValueError(f"column {name!r} must be {dtype} of shape {shape}, it is {column.dtype} of shape {column.shape}")


_HEAD = tuple(f.name for f in fields(Run) if f.name != "columns")


def head_of(run: Run) -> dict[str, Any]:
    """Everything but the columns."""
    return {name: getattr(run, name) for name in _HEAD}


def to_bytes(run: Run) -> bytes:
    """The content of a run's file."""
    head = head_of(run)
    return pack(head, without_derived(head, run.columns) if run.columns else {})


def from_bytes(data: bytes) -> Run:
    """The run that `to_bytes` wrote.

    Raises:
        ValueError: not a run, one of another version, or damaged; the message says which.
    """
    head, kept = unpack(data)
    if set(head) != set(_HEAD):
        raise ValueError(f"does not hold what a run holds: {sorted(set(head) ^ set(_HEAD))}")
    check_head(head)
    head |= {name: tuple(value) for name, value in head.items() if isinstance(value, list)}
    run = Run(**head, columns=with_derived(head, kept) if kept else {})
    check_numbers(run.columns, run.sizes)
    return run


def run_path(folder: Path, agent: str, task: str, seed: int) -> Path:
    """The file of a run."""
    return folder / agent / f"{task}.{seed}{SUFFIX}"


def write_run(folder: Path, run: Run) -> Path:
    """Write the file of a run, whole or not at all.

    Raises:
        FileExistsError: it is there already; a run is never written over.
        OSError: it can't be written; nothing is left behind.
    """
    path = run_path(folder, run.agent, run.task, run.seed)
    write_new(path, to_bytes(run))
    return path


def read_run(path: Path) -> Run:
    """The run in a file.

    Raises:
        ValueError: not a run, one of another version, a damaged one, or one under a wrong name; the message names the file.
        OSError: it can't be read.
    """
    if not path.is_file():
        kind = "a folder, or a link to one" if path.is_dir() else "a link to nothing" if path.is_symlink() else "a device"
        raise ValueError(f"{path} is {kind}, and no file of a run")
    try:
        run = from_bytes(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if run_path(path.parent.parent, run.agent, run.task, run.seed) != path:
        belongs = run_path(Path(), run.agent, run.task, run.seed)
        raise ValueError(f"{path} holds the run that belongs into {belongs}: it was moved or renamed")
    return run


def read_runs(folder: Path) -> list[Run]:
    """All runs of a results folder, ordered by file name; a draft that a killed run left is none.

    Raises:
        ValueError: see `iter_runs`.
    """
    return list(iter_runs(folder))


def iter_runs(folder: Path) -> Iterator[Run]:
    """As `read_runs`, one after the other: thousands of long ones don't fit into a small memory.

    Raises:
        ValueError: what lies there is no results folder; or, at the end, a file in it is no run of its suite: the message names
            every such file.
    """
    problems = []
    suite, _ = claimed(folder)
    first: dict[str, tuple[Path, object]] = {}  # of each task, with what its runs have in common
    for path in files_of(folder):
        try:
            run = read_run(path)
            if run.suite != suite:
                raise ValueError(f"{path} is a run of {run.suite}, not of {suite}")
            if run.status == "done":
                alike = run.sizes, set(run.columns)
                there, theirs = first.setdefault(run.task, (path, alike))
                if alike != theirs:
                    raise ValueError(f"{path} decides on other groups than {there} of the same task: one of them is damaged")
        except ValueError as error:
            problems.append(str(error))
        else:
            yield run
    if problems:
        raise ValueError("; ".join([*problems, "delete what is damaged, and run it again; move what belongs elsewhere"]))


def best_row(run: Run) -> int | None:
    """Index of a run's best plan within the budget, the earliest of equals; None where there is none."""
    allowed = np.flatnonzero(run.columns["within_budget"])
    return int(allowed[np.argmax(run.columns["plan_return"][allowed])]) if len(allowed) else None
