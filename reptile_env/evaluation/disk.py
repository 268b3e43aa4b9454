"""Measurements on disk, shared by processes and seeds.

One SQLite file for everything that a measurement depends on beside the plan: weights and code of the network, data, metric, loss,
settings, versions, machine, threads and device. So an entry that is met was measured under the same conditions; SQLite makes
writing safe against crashes and other processes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import sqlite3
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reptile_env.compression.groups import tensors_of
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Split
from reptile_env.tasks.splits import tensors_of as tensors_in
from reptile_env.tasks.task import Task

FORMAT = 1
_WAIT = 60.0  # seconds for another process to finish writing


class DiskCache:
    """Measurements of one task and settings.

    A file that can't be read or written is warned of once, and then done without.

    Args:
        folder: made if it is not there.
        task: what is measured.
        settings: of the evaluator.
        threads: of a measurement.
        device: what compressed networks run on; None for the CPU.

    Raises:
        ValueError: a metric or loss that can't be told from another one by its code.
    """

    def __init__(self, folder: str, task: Task, settings: Settings, threads: int, device: str | None = None) -> None:
        known = conditions(task, settings, threads, device)
        self.path = Path(folder) / f"{task.name.replace('/', '_')[:60]}-{known[:32]}.sqlite"
        self._connection: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_WAIT, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS measurements (plan BLOB PRIMARY KEY, value TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def get(self, plan: Plan) -> Measurement | None:
        """The measurement of a plan, with the seconds that it took when it was made; None where there is none."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute("SELECT value FROM measurements WHERE plan = ?", (_key(plan),)).fetchone()
            if row is None:
                return None
            value = json.loads(row[0])
            return Measurement(**value | {"sparsity": tuple(value["sparsity"])})
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            self._give_up(error)
            return None

    def put(self, plan: Plan, measurement: Measurement) -> None:
        """Keep a measurement."""
        if self._connection is None:
            return
        try:
            value = json.dumps(asdict(measurement))  # floats are written so that they are read back to the last bit
            self._connection.execute("INSERT OR IGNORE INTO measurements VALUES (?, ?)", (_key(plan), value))
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        self.close()
        warnings.warn(f"the disk cache {self.path} is not used: {error}; delete the file if it is damaged", stacklevel=3)


def _key(plan: Plan) -> bytes:
    return hashlib.sha256(json.dumps(plan.to_dict(), separators=(",", ":")).encode()).digest()


def conditions(task: Task, settings: Settings, threads: int, device: str | None = None) -> str:
    """A hash of everything that a measurement depends on beside the plan."""
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    hasher = hashlib.sha256()
    versions = [FORMAT, _own_version(), torch.__version__, np.__version__, platform.machine(), _processor(), threads, device]
    hasher.update(json.dumps([versions, repr(sorted(known.items()))]).encode())
    hasher.update(repr(task.model).encode())
    for kind in sorted({type(m) for m in task.model.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        hasher.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        if not kind.__module__.startswith("torch."):
            hasher.update(_source(kind, f"layer {kind.__qualname__}").encode())
    for name, score in (("metric", task.metric), ("loss", task.loss)):
        hasher.update(f"{name} {task.metric_name} {task.higher_is_better} {_source(score, name)}".encode())
    for name, tensor in sorted(tensors_of(task.model).items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(_bytes(tensor))
    for split in (task.train, task.valid):
        _add_split(hasher, split)
    return hasher.hexdigest()


def _add_split(hasher: Any, split: Split) -> None:
    for tensor in [*tensors_in(split.inputs), split.targets]:
        hasher.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(_bytes(tensor))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _source(thing: Any, what: str) -> str:
    """The code of a class or function; a callable object's values go with it.

    Raises:
        ValueError: its code can't be read, or it has values that can't be told apart.
    """
    own = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    mend = "define it in a module's file, or leave disk_cache out"
    try:
        text = inspect.getsource(own)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"disk_cache: the code of the {what} {thing!r:.80} can't be read, so it can't be told from another; {mend}"
        ) from error
    inner = [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    if own is not thing and hasattr(thing, "__dict__"):
        inner += sorted(vars(thing).items())
    for value in inner:
        text += _told(value, what, mend)
    return text


def _told(value: Any, what: str, mend: str) -> str:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, torch.nn.Module):
        return repr(value) + "".join(_told(t, what, mend) for _, t in sorted(tensors_of(value).items()))
    if isinstance(value, (str, int, float, bool, bytes, type(None))):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "".join(_told(each, what, mend) for each in value)
    if isinstance(value, dict):
        return "".join(_told(each, what, mend) for each in value.items())
    if callable(value):
        return _source(value, what)
    raise ValueError(f"disk_cache: the {what} depends on a {type(value).__name__}, which can't be told from another; {mend}")


def _own_version() -> str:
    """A hash of the package's code: another version may measure otherwise."""
    hasher = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _processor() -> str:
    """The processor's name: other ones round differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())
