"""A run taken up again: it starts anew from its seed, and what it had written is checked against what it does now.

Every agent is a function of its seed and of what it measures, and the trace holds all that was measured. So an interrupted run is
played again, without measuring anything twice, up to where its trace ends, and goes on from there as if nothing had happened. No
agent needs code of its own for this, and a run that would go on otherwise than it began (other code, other settings) is found out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.trace import Row, read_records
from reptile_env.errors import first_line
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement

# Wall time: the one entry of a record that differs from run to run.
VOLATILE = {"seconds"}


class ReplayError(Exception):
    """The run does not do again what it did; the message says where, and both values."""


class Recorded:
    """The records of an interrupted run, handed out in order.

    Args:
        path: its trace. A last line that a crash cut short is removed from the file.

    Attributes:
        rows: the evaluated plans.

    Raises:
        ReplayError: a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        drop_torn_line(path)
        self._path = path
        self._met = 0
        try:
            self._records = read_records(path)
            plans = [record for record in self._records if record["type"] == "plan"]
            self.rows = [Row.from_dict({key: value for key, value in record.items() if key != "type"}) for record in plans]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ReplayError(f"{path} is damaged, so the run can't go on; start a new one: {first_line(error)}") from error

    @property
    def all_met(self) -> bool:
        """Whether the run has come as far as it had come before."""
        return self._met == len(self._records)

    def meet(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """What the trace holds where `record` would be written; None where it has ended.

        Raises:
            ReplayError: it holds something else.
        """
        if self.all_met:
            return None
        known, now = self._records[self._met], json.loads(json.dumps(record))
        for key in known | now:
            if key not in VOLATILE and not _same(known.get(key), now.get(key)):
                raise ReplayError(
                    f"{self._path}, line {self._met + 1}: {key} was {known.get(key)!r:.200} and is {now.get(key)!r:.200} now; the "
                    "code, the settings or the machine have changed since, so the run can't go on; start a new one"
                )
        self._met += 1
        return known

    def check_all_met(self) -> None:
        """Refuse a run that ended before its trace did."""
        if not self.all_met:
            raise ReplayError(
                f"{self._path} holds {len(self._records)} lines and the run ended after {self._met}; the code has changed since, "
                "so the run can't go on; start a new one"
            )


def drop_torn_line(path: Path) -> None:
    """Remove the last line of a file where a crash cut it short: what is written next would be joined to it, and lost with it."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def remember(evaluator: Evaluator, rows: list[Row]) -> None:
    """Let an evaluator know what the plans of some rows measured, so that it need not measure them again.

    Raises:
        ReplayError: plans or costs that are not those of its network.
    """
    for row in rows:
        try:
            sparsity = tuple(1 - width / size for width, size in zip(row.plan.widths, evaluator.sizes, strict=True))
            costs = (row.params, row.macs, row.bytes)
            evaluator.remember(row.plan, Measurement(row.metric, row.loss, *costs, sparsity, row.train_loss, row.latency))
        except ValueError as error:
            raise ReplayError(
                f"plan {row.evaluation} of the trace is none of task {evaluator.name!r}, so the run can't go on; start a new one: "
                f"{first_line(error)}"
            ) from error


@contextmanager
def put_back(path: Path, came_as_far: Callable[[], bool]) -> Iterator[None]:
    """Keep what a run left at `path`, a file or a folder that playing it again writes anew.

    Where that ends by an error before the run came as far as it had come, what was there is put back: it is of a longer run.
    A folder is moved aside meanwhile, and found there again after a kill.

    Args:
        path: which need not exist.
        came_as_far: asked when an error ends it.
    """
    aside = path.with_name(f".{path.name}.before")
    if path.is_file():
        shutil.copy2(path, aside)
    elif path.is_dir():
        if aside.exists():
            shutil.rmtree(path)
        else:
            path.rename(aside)
    try:
        yield
    except BaseException:
        if aside.exists() and not came_as_far():
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(aside, path)
        raise
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)


def _same(known: Any, now: Any) -> bool:
    # NaN is what it was, too.
    return bool(known == now) or (known != known and now != now)
