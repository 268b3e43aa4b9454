"""A folder that appears when all of it is written, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.cli import BadArgumentError


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A draft beside a folder, to write into; it takes the folder's name at the end, and is gone where anything went wrong.

    What an attempt left that was killed is removed first.

    Args:
        folder: that is not there, or empty.

    Raises:
        BadArgumentError: it can't be written, such as on a full disk.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise BadArgumentError(f"--out {folder} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
