"""A folder of results: whose it is, and files that are written whole, and never over another."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

FORMAT = 1
SUFFIX = ".run"  # of the file of a run
DRAFT = ".draft-"  # how the name of an unfinished file begins
SUITE_FILE, VALIDATION_FILE, EXPLANATIONS_FILE = "suite.json", "validation.json", "explanations.json"
BESIDE = (SUITE_FILE, VALIDATION_FILE, EXPLANATIONS_FILE, "README.md")  # what may lie in a results folder beside the runs
IGNORED = (".DS_Store", "Thumbs.db")  # made by macOS and Windows wherever somebody looks


def claim(folder: Path, suite: str, digest: str) -> None:
    """Make a folder that of a suite's results, or find that it is.

    Args:
        folder: new, empty, or one that was claimed for the same suite.
        suite: name and version.
        digest: of the suite's content.

    Raises:
        ValueError: it holds something else.
        OSError: it can't be made or written.
    """
    if (folder / SUITE_FILE).exists():
        check_claim(folder, suite, digest)
        return
    if not is_empty(folder):
        raise ValueError(f"{folder} is no folder of results (it holds no {SUITE_FILE}), and not empty; name a new one")
    text = json.dumps({"format": FORMAT, "suite": suite, "digest": digest}) + "\n"
    with suppress(FileExistsError):  # another process was quicker
        write_new(folder / SUITE_FILE, text.encode())
    check_claim(folder, suite, digest)


def check_claim(folder: Path, suite: str, digest: str) -> None:
    """Refuse a folder of results of another suite.

    Raises:
        ValueError: of another suite, or of this one before it changed.
    """
    found, theirs = claimed(folder)
    if found != suite:
        raise ValueError(f"{folder} holds results of {found}, not of {suite}; name another folder")
    if theirs != digest:
        raise ValueError(
            f"{folder} holds results of another {suite}: its tasks, settings, evaluations or seeds were others then; name another "
            "folder, or use the version of the program that made them"
        )


def claimed(folder: Path) -> tuple[str, str]:
    """The suite that a folder holds results of, and the digest of its content.

    Raises:
        ValueError: it is no folder of results.
    """
    file = folder / SUITE_FILE
    if not file.is_file():
        raise ValueError(f"{folder} is no folder of results: it holds no {SUITE_FILE}; `python -m benchmarks run` makes one")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"{file} is of format {data['format']}, this version reads {FORMAT}")
        return str(data["suite"]), str(data["digest"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        mend = f"copy the {SUITE_FILE} of another folder of the same suite over it"
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}); {mend}") from error


def is_empty(folder: Path) -> bool:
    """Whether nothing lies in a folder, or there is none."""
    return not folder.exists() or all(path.name in IGNORED for path in folder.iterdir())


def files_of(folder: Path) -> Iterator[Path]:
    """Everything in a results folder that is a run, or should not be there, ordered by name.

    Links to nothing or to folders, and folders under the name of a run, are in the way of runs: they should not be there.
    """
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
        known = path.name.startswith(DRAFT) or path.name in IGNORED or path.relative_to(folder).as_posix() in BESIDE
        if not known and (path.is_symlink() or not path.is_dir() or path.suffix == SUFFIX):
            yield path


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all; it outlasts a power cut.

    Raises:
        FileExistsError: it is there already.
        OSError: it can't be written; nothing is left behind.
    """
    _write(path, data, _link)


def write_over(path: Path, data: bytes) -> None:
    """As `write_new`, in place of what is there."""
    _write(path, data, os.replace)


def _write(path: Path, data: bytes, name: Callable[[str, Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=DRAFT)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)  # mkstemp makes it private
        name(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)
    _sync(path.parent)


def _link(draft: str, path: Path) -> None:
    """Give the draft its name, unless that is taken; a link can't replace a file."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(f"{path} is there already") from None
        os.replace(draft, path)


def _sync(folder: Path) -> None:
    """Make new names in a folder outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
