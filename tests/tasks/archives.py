"""Archives, and what is in a folder, for the tests of downloads."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

CONTENT = np.random.default_rng(0).bytes(700_000)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def packed(path: Path, entries: dict[str, bytes]) -> Path:
    """A tar or zip archive, by the name of `path`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as archive:  # type: ignore[call-overload]
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path
