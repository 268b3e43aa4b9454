"""Results on disk: a folder for each run, never over an older one, whole files or none."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from agents.cli import BadArgumentError
from agents.trace import Row, Trace

_VERSIONED = ("torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "cma", "optuna", "scipy", "torch-pruning")


def free_folder(path: Path | None, what: str) -> Path:
    """The folder of a run, not made yet.

    Args:
        path: a folder that does not exist or is empty; None takes one under ``runs/`` named after `what` and the time.
        what: words for its name.

    Raises:
        BadArgumentError: something is there already.
    """
    if path is not None and not path.name:
        raise BadArgumentError(f"--out {str(path)!r} names no folder of its own; name a new one")
    folder = path or Path("runs") / f"{what}-{time.strftime('%Y%m%d-%H%M%S')}".replace(":", ".")
    above = next((parent for parent in folder.parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise BadArgumentError(f"--out {folder}: {above} is a file, not a folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadArgumentError(f"--out {folder} exists and is not an empty folder; name a new one, results are never overwritten")
    return folder


def make_folder(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        BadArgumentError: it can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".draft").touch()
        (folder / ".draft").unlink()
    except OSError as error:
        raise BadArgumentError(f"--out {folder} can't be written: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON, whole or not at all, one line for each key."""
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
    write(path, f"{{\n{lines}\n}}\n")


def versions() -> dict[str, str]:
    """Versions of what results depend on, this project's code among them."""
    import reptile_env

    found = {name: metadata.version(name) for name in _VERSIONED}
    return {"reptile_env": reptile_env.__version__, "code": _code(), "python": platform.python_version()} | found


def _code() -> str:
    """A hash of the agents and of the package: between two releases the version says too little."""
    import reptile_env

    hasher = hashlib.sha256()
    for folder in (Path(reptile_env.__file__).parent, Path(__file__).parent):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml")):
            hasher.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()[:16]


class BestPlanFile:
    """Keeps the best plan of one or more runs on disk; told of every row, it writes when the best improves.

    Args:
        path: the file; the plan that it holds already, where a run is taken up again, stays until there is a better one.
        worth: by which plans are compared; default their own returns.
    """

    def __init__(self, path: Path, worth: Callable[[Row], float] = lambda row: row.plan_return) -> None:
        self._path, self._worth = path, worth
        try:
            self._return = json.loads(path.read_text(encoding="utf-8"))["plan_return"] if path.exists() else float("-inf")
        except (KeyError, TypeError, ValueError):
            self._return = float("-inf")  # the trace has every plan, so a damaged file is written anew

    def __call__(self, trace: Trace, row: Row, improved: bool) -> None:
        """Take note of an evaluated plan."""
        if improved and (worth := self._worth(row)) > self._return:
            self._return = worth
            known = {"agent": trace.agent, "task": trace.task, "env_settings": trace.env_settings}
            marked = {"test_networks": list(trace.test_networks)} if trace.test_networks else {}
            write_json(self._path, known | marked | row.to_dict())
