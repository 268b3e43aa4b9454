"""The evaluator that looks plans up in a table. Numpy only."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reptile_env.compression.plan import Plan
from reptile_env.evaluation import table_cache
from reptile_env.evaluation.grid import check_settings
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.resources import NO_LIMITS, Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table_file import MEND, SUFFIX, Columns, read_table
from reptile_env.evaluation.table_head import Head

VARIABLE = "REPTILE_TABLES"
COST_COLUMNS = ("params", "macs", "bytes")
ROWS_AT_ONCE = 4096
KEPT = 16384  # measurements that an evaluator keeps: some megabytes
SHIPPED = Path(str(resources.files("reptile_env.tasks").joinpath("tables")))


class Table(NamedTuple):
    """A table: its head and, for each of its rows, the columns."""

    head: Head
    columns: Columns


def table_evaluator(task: Any, settings: Settings, resources: Resources = NO_LIMITS) -> TableEvaluator:
    """The one evaluator of this process for a task's table: environments share its columns. It needs none of the resources.

    Raises:
        ValueError: no table, or none of these settings; the message says which there are and the command that builds one.
    """
    if not isinstance(task, str):
        raise ValueError(
            f"evaluator='table' takes a task by name, got {type(task).__name__}; build a table of it with `python -m benchmarks "
            f"table module:function --out FOLDER/NAME{SUFFIX}`, let {VARIABLE} name the folder, and give task='NAME'"
        )
    check_settings(settings)
    held = []
    for path in found(task):
        stamp = str(path), path.stat().st_mtime_ns, path.stat().st_size
        table = _opened(*stamp)
        if table.head.task != task:
            raise ValueError(f"{path} is of task {table.head.task!r}; name it {table.head.task}{SUFFIX}")
        if table.head.serves(settings):
            return _evaluator(*stamp, settings)
        held.append(table.head.told())
    command = f"`python -m benchmarks table {task} --out FILE` builds one, which is found in the folder that {VARIABLE} names"
    if not held:
        raise ValueError(f"task {task!r} has no table; {command}; or use evaluator='live'")
    raise ValueError(f"task {task!r} has no table of these settings; it has: {'; '.join(held)}. {command}; or use evaluator='live'")


def found(task: str) -> Iterator[Path]:
    """Tables of a task: ``TASK.table`` and ``TASK@ANYTHING.table`` in the folder of REPTILE_TABLES, then those of the package."""
    folders = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    for folder in [*folders, SHIPPED]:
        if folder.is_dir():
            names = sorted(file.name for file in folder.iterdir() if file.suffix == SUFFIX)
            yield from (folder / name for name in names if name.removesuffix(SUFFIX).split("@")[0] == task)


def open_table(path: Path) -> Table:
    """The table of a file, its columns mapped from the cache folder.

    Raises:
        ValueError: damaged, or of another format; the message says the mend.
    """
    packed = read_table(path)
    try:
        head = Head.from_json(packed.head)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {MEND}") from error
    dtypes = {entry["name"]: entry["dtype"] for entry in packed.head["columns"]} | dict.fromkeys(COST_COLUMNS, "int64")

    def unpack() -> Columns:
        return packed.columns() | _costs(head)

    return Table(head, table_cache.mapped(packed.digest, head.grid.rows, dtypes, unpack))


@functools.cache
def _opened(path: str, changed: int, size: int) -> Table:
    return open_table(Path(path))


@functools.cache
def _evaluator(path: str, changed: int, size: int, settings: Settings) -> TableEvaluator:
    return TableEvaluator(_opened(path, changed, size), settings)


def _costs(head: Head) -> dict[str, NDArray[Any]]:
    """The costs of every row, from the cost model."""
    columns = {name: np.empty(head.grid.rows, np.int64) for name in COST_COLUMNS}
    for start in range(0, head.grid.rows, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, head.grid.rows))
        widths = head.grid.widths_of(rows)
        for name, column in columns.items():
            column[rows] = head.costs.cost(name, widths)
    return columns


class TableEvaluator:
    """Measures by looking up. A measurement is bitwise the one that the table's builder got from the running network.

    Args:
        table: see `Table`.
        settings: those asked for, which the table serves.

    Attributes:
        head: what is known of the table beside its columns.
        grid: its plans.
        columns: by name one value for each row, read-only: ``metric``, ``loss``, ``params``, ``macs``, ``bytes``, ``seconds``;
            where the task has a test split ``test_metric`` and ``test_loss``; where it was measured ``train_loss``.
    """

    def __init__(self, table: Table, settings: Settings) -> None:
        self.head, self.columns = table
        head, self.settings, self.grid = self.head, settings, self.head.grid
        self.name, self.w, self.metric_name, self.higher_is_better = head.task, head.w, head.metric_name, head.higher_is_better
        self.group_names, self.sizes, self.rankable, self.features = self.grid.names, self.grid.sizes, head.rankable, head.features
        self.costs, self.chosen = head.costs, head.chosen
        self.dense = self.grid.plan_of(self.sizes)
        self._ranks = [{channel: rank for rank, channel in enumerate(order)} for order in self.grid.orders]
        self._further = {each.widths: each.values for each in head.further}
        # Episodes begin alike, so their first rows come again and again. Once full it stays as it is.
        self._recent: dict[tuple[int, str], Measurement] = {}

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        if count == 0:
            return plan
        keep = plan.keep[group]
        assert not isinstance(keep, int)
        best = self.grid.kept(group, len(keep))
        if keep is best or keep == best:
            return plan.with_group(group, self.grid.kept(group, len(keep) - count), plan.bits[group], plan.ranks[group])
        rank = self._ranks[group]
        return plan.replace(group, sorted(sorted(keep, key=rank.__getitem__)[count:]))

    def next_round(self, plan: Plan) -> Plan:
        """`plan`: no recovery of a table trains."""
        return plan

    def measure(self, plan: Plan) -> Measurement:
        """What the running network measured on the validation split.

        Raises:
            TypeError: not a `Plan`.
            ValueError: a plan of another network, or one that the table does not hold.
        """
        return self._look_up(plan, "metric", "loss")

    @property
    def has_test(self) -> bool:
        """Whether the table knows what plans measure on a test split."""
        return "test_metric" in self.columns

    def test(self, plan: Plan) -> Measurement:
        """As `measure`, on the test split: for reports alone."""
        if not self.has_test:
            raise ValueError(f"task {self.name!r} was given no test split; its table holds none")
        return self._look_up(plan, "test_metric", "test_loss")

    def measurement(self, row: int) -> Measurement:
        """What the plan of a row measured on the validation split."""
        if not 0 <= row < self.grid.rows:
            raise IndexError(f"row {row} is outside 0 to {self.grid.rows - 1}")
        return self._of_row(row, self.grid.widths_of(row).tolist(), "metric", "loss")

    def remember(self, plan: Plan, measurement: Measurement) -> None:
        """Nothing to do: a table knows all its plans."""

    def conditions(self) -> str:
        """A hash of the table."""
        hasher = hashlib.sha256(json.dumps(self.head.to_json(), sort_keys=True).encode())
        for name in sorted(self.columns):
            hasher.update(np.ascontiguousarray(self.columns[name]).data)
        return hasher.hexdigest()

    def scores(self, importance: str) -> tuple[NDArray[np.float64], ...]:
        """Refused: a table holds no weights.

        Raises:
            ValueError: always; the message says what has them.
        """
        raise ValueError(f"the table of {self.name!r} holds measurements and no weights to score; use evaluator='live'")

    def sensitivity(self) -> tuple[float, ...]:
        """For each group the rise of the calibration loss when the group alone is halved."""
        return self.head.sensitivity

    def _look_up(self, plan: Plan, metric: str, loss: str) -> Measurement:
        row = self.grid.find(plan)
        if row is not None:
            known = self._recent.get((row, metric))
            if known is None:
                known = self._of_row(row, plan.widths, metric, loss)
                if len(self._recent) < KEPT:
                    self._recent[row, metric] = known
            return known
        further = self._further.get(plan.widths)
        if further is None:
            raise ValueError(self.grid.missing(plan))
        return self._beside(further, plan.widths, metric, loss)

    def _of_row(self, row: int, widths: Sequence[int], metric: str, loss: str) -> Measurement:
        columns = self.columns
        params, macs, size = (columns[name].item(row) for name in COST_COLUMNS)
        train_loss = columns["train_loss"].item(row) if self.settings.train_loss else None
        sparsity, seconds = self._sparsity(widths), columns["seconds"].item(row)
        return Measurement(
            columns[metric].item(row), columns[loss].item(row), params, macs, size, sparsity, train_loss, seconds=seconds
        )

    def _beside(self, values: Mapping[str, float], widths: Sequence[int], metric: str, loss: str) -> Measurement:
        train_loss = values["train_loss"] if self.settings.train_loss else None
        costs, sparsity = self.costs.all(widths), self._sparsity(widths)
        return Measurement(
            values[metric], values[loss], **costs, sparsity=sparsity, train_loss=train_loss, seconds=values["seconds"]
        )

    def _sparsity(self, widths: Sequence[int]) -> tuple[float, ...]:
        return tuple([1 - width / size for width, size in zip(widths, self.sizes, strict=True)])

    def __deepcopy__(self, memo: dict[int, Any]) -> TableEvaluator:
        return self

    def __reduce__(self) -> Any:
        return table_evaluator, (self.name, self.settings)
