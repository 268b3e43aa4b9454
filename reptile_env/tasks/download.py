"""Data files: found in the data folder, else fetched there from their official address and checked."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import lzma
import os
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs
from filelock import FileLock
from tqdm import tqdm

VARIABLE = "REPTILE_DATA"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # requests of one file when the connection breaks or the server is busy
PAUSE = 0.5  # seconds before the second attempt, twice as many before each further one
_CHUNK = 1 << 18
# What a connection that breaks raises; other kinds of OSError come from the disk.
_BROKEN = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


@dataclass(frozen=True)
class Resource:
    """A file with an official address.

    Attributes:
        name: of the file in its folder.
        url: http or https.
        sha256: 64 hexadecimal digits, of the whole file as it is fetched.
        folder: in the data folder.
    """

    name: str
    url: str
    sha256: str
    folder: str

    @property
    def path(self) -> Path:
        """Where it lies or will lie."""
        return data_folder() / self.folder / self.name


def data_folder() -> Path:
    """The folder that the environment variable REPTILE_DATA names, else the user's cache folder.

    Raises:
        FileNotFoundError: it begins with ``~`` and a user that is not known.
    """
    named = os.environ.get(VARIABLE) or platformdirs.user_cache_dir("reptile_env")
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{VARIABLE}={named}: there is no such user's folder; set {VARIABLE} to another one") from error


def fetch(resource: Resource, *, progress: bool = True) -> Path:
    """The file in the data folder; where it is missing it is downloaded, or the rest of it is, and checked.

    A file that lies there already is taken as it is: what was downloaded was checked then, and what a user put there is the user's.
    Several processes at once download it once.

    Args:
        resource: what to fetch.
        progress: show a bar with the time left, where stderr is a terminal.

    Raises:
        ConnectionError: no answer, or a refusal; says the address and where to put the file by hand.
        ValueError: the file at the address is another one (its SHA-256 differs); it is removed.
        OSError: the folder can't be written, or the disk is full.
    """
    path = resource.path
    if path.is_file():
        return path
    with _writing(path), _alone(path):
        if not path.is_file():
            _download(resource, path, progress)
    return path


def fetch_folder(resource: Resource, into: str, member: str, *, progress: bool = True) -> Path:
    """The folder `into` of the data folder; where that is missing or empty, the folder `member` of the archive is unpacked there.

    Raises:
        ConnectionError: see `fetch`, as for the rest.
        ValueError: see `fetch` and `unpack`.
        OSError: see `fetch`.
    """
    folder = data_folder() / into
    return folder if _has_entries(folder) else unpack(fetch(resource, progress=progress), folder, member)


def unpack(archive: Path, into: Path, member: str) -> Path:
    """Unpack the folder `member` of a tar archive, compressed or not, or a zip archive as `into`: all of it or nothing, and once.

    Raises:
        ValueError: no such archive, a damaged one, one without `member`, or one with names that lead out of it.
        OSError: `into` can't be written, or the disk is full.
    """
    with _writing(into), _alone(into):
        if _has_entries(into):
            return into
        for left in into.parent.glob(f".{into.name}-*"):  # of a process that was killed: nobody else is here
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as draft:
            try:
                _extract(archive, member, draft)
            except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
                what = str(error).partition("\n")[0].rstrip(":")
                raise ValueError(f"{archive} can't be unpacked: {what}; remove it and fetch it again") from error
            if not Path(draft, member).is_dir():
                raise ValueError(f"{archive} holds no folder {member}; remove it and fetch the official one")
            os.replace(Path(draft, member), into)
    return into


def needed(folder: str, name: str, origin: str) -> Path:
    """A file of the data folder that no official address offers.

    Args:
        folder: in the data folder.
        name: of the file.
        origin: where it comes from, for the message.

    Raises:
        FileNotFoundError: it is not there; says where to put it.
    """
    path = data_folder() / folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {origin}. It can't be downloaded; put it there, "
            f"or set {VARIABLE} to the folder that holds {folder}"
        )
    return path


def _extract(archive: Path, member: str, draft: str) -> None:
    """The entries of the folder `member` below the folder `draft`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if name.startswith(f"{member}/")]
            for name in names:  # extractall would put them elsewhere and say nothing
                if ".." in PurePosixPath(name).parts:
                    raise zipfile.BadZipFile(f"{name!r} leads out of the folder it is unpacked to")
            packed.extractall(draft, names)
    else:
        with tarfile.open(archive) as tape:
            inside = [entry for entry in tape if entry.name == member or entry.name.startswith(f"{member}/")]
            tape.extractall(draft, inside, filter="data")
            while tape.fileobj is not None and tape.fileobj.read(_CHUNK):
                pass  # the checksum of a compressed archive is at its end


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock falls with the process that holds it."""
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes the folder of `path`, and says the mend where nothing can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise OSError(f"{path} can't be written: {error}; free some space there, or set {VARIABLE} to another folder") from error


def _download(resource: Resource, path: Path, progress: bool) -> None:
    """The checked file at `path`; a part of it that is there already is completed."""
    part = path.with_name(f"{path.name}.part")
    for _ in range(2):
        whole = _complete(resource, part, progress)
        with part.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
        if received == resource.sha256:
            os.replace(part, path)
            return
        part.unlink()
        if whole:
            break
    raise ValueError(
        f"{resource.url} is not the file that was expected: its SHA-256 is {received}, not {resource.sha256}. It was removed; "
        f"try again later, or put the right file at {path}"
    )


def _complete(resource: Resource, part: Path, progress: bool) -> bool:
    """Ask for what `part` lacks until nothing more comes; whether that surely is what the address has.

    Pieces of several answers may be of different files, and an answer that does not say its length may have broken off.
    """
    joined = False
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        joined = joined or (part.is_file() and part.stat().st_size > 0)
        try:
            return _receive(resource.url, part, progress) and not joined
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and joined:
                return False  # nothing is left to send
            failure: Exception = error
            if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        except _BROKEN as error:
            failure = error
    reason = failure.reason if type(failure) is urllib.error.URLError else failure
    raise ConnectionError(
        f"{resource.url} can't be fetched: {reason}. Check the connection, or fetch it elsewhere and put it at {resource.path} "
        f"({VARIABLE} names another folder than {data_folder()})"
    ) from failure


def _receive(url: str, part: Path, progress: bool) -> bool:
    """Send one request and write its answer, behind what `part` holds where the server can start there.

    Returns:
        Whether the answer said how long it is.
    """
    offset = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "reptile_env"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        partial = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        done = offset if partial else 0
        length = answer.headers["Content-Length"]
        total = done + int(length) if length else None
        _check_space(part, (total or done) - done)
        with part.open("ab" if partial else "wb") as file, _bar(part, done, total, progress) as bar:
            while (total is None or done < total) and (chunk := answer.read1(_CHUNK)):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    return total is not None


def _check_space(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise OSError(errno.ENOSPC, f"{wanted:,} bytes are needed, {free:,} are free")


def _bar(part: Path, done: int, total: int | None, progress: bool) -> Any:
    # disable=None: silent where stderr is no terminal.
    hidden = None if progress else True
    return tqdm(desc=part.stem, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024, disable=hidden)
