"""Downloads from a server on this machine, well and ill behaved."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reptile_env.tasks import download
from reptile_env.tasks.download import Resource, data_folder, fetch, fetch_folder, needed
from tests.helpers import ROOT
from tests.tasks.archives import CONTENT, files, packed

SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """What the server offers and how it behaves."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.content = CONTENT
        self.ranges = True  # whether a Range is honoured
        self.shift = 0  # added to the start of every honoured Range
        self.cut = 0  # answers that end in the middle of what they promised
        self.untold = False  # whether answers leave their length out
        self.stall = 0.0  # seconds before every answer's second half
        self.statuses: list[int] = []  # of the next answers; 200 or 206 when used up
        self.asked: list[str | None] = []  # Range of every request

    def resource(self, sha256: str = SHA256, path: str = "data.bin") -> Resource:
        return Resource("data.bin", f"{self.address}/{path}", sha256, "folder")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        site.asked.append(self.headers["Range"])
        if site.statuses:
            self.send_error(site.statuses.pop(0))
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"{site.address}/data.bin")
            self.end_headers()
        else:
            self.answer(site)

    def answer(self, site: Site) -> None:
        start = int(self.headers["Range"][6:-1]) if site.ranges and self.headers["Range"] else 0
        if start and start >= len(site.content):
            self.send_error(416)
            return
        body = site.content[start + site.shift * (start > 0) :]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + site.shift}-{len(site.content) - 1}/{len(site.content)}")
        if not site.untold:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        with contextlib.suppress(ConnectionError):  # a client that went away
            self.wfile.write(body[:half])
            self.wfile.flush()
            time.sleep(site.stall)
            if site.cut:
                site.cut -= 1
            else:
                self.wfile.write(body[half:])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, and an empty data folder."""
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.site = Site(server.server_port)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.site  # type: ignore[attr-defined]
        server.shutdown()


def leave_part(resource: Resource, content: bytes) -> Path:
    """A partial file, as a download that was broken off leaves it."""
    part = resource.path.with_name("data.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def test_the_data_folder_is_named_or_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("REPTILE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder().name == "reptile_env"
    assert data_folder() != tmp_path
    monkeypatch.setenv("REPTILE_DATA", "")
    assert data_folder().name == "reptile_env"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REPTILE_DATA", "~/my data")
    assert data_folder() == tmp_path / "my data"
    monkeypatch.setenv("REPTILE_DATA", "~nobody-of-this-name/data")
    with pytest.raises(FileNotFoundError, match="REPTILE_DATA=~nobody-of-this-name/data: there is no such user"):
        data_folder()


def test_a_file_is_downloaded_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch(site.resource())
    assert path == data_folder() / "folder" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(site.resource()) == path
    assert site.asked == [None]
    assert files(path.parent) == ["data.bin"]
    assert capsys.readouterr() == ("", "")  # no terminal, no bar


def test_a_file_that_is_there_is_taken_as_it_is(site: Site) -> None:
    resource = site.resource()
    resource.path.parent.mkdir(parents=True)
    resource.path.write_bytes(b"the user's own copy")
    assert fetch(resource).read_bytes() == b"the user's own copy"
    assert not site.asked


def test_a_redirect_is_followed(site: Site) -> None:
    assert fetch(site.resource(path="moved")).read_bytes() == CONTENT
    assert len(site.asked) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_partial_file_is_completed(site: Site, ranges: bool) -> None:
    site.ranges = ranges
    leave_part(site.resource(), CONTENT[:300_000])
    path = fetch(site.resource())
    assert path.read_bytes() == CONTENT
    assert site.asked == ["bytes=300000-"]
    assert files(path.parent) == ["data.bin"]


@pytest.mark.parametrize("extra", [b"", b"more than there is"])
def test_a_partial_file_with_nothing_left_to_fetch(site: Site, extra: bytes) -> None:
    # The server answers 416; what is whole is kept, what is longer is fetched anew.
    leave_part(site.resource(), CONTENT + extra)
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == ["bytes=700000-"] if not extra else ["bytes=700018-", None]


def test_a_partial_file_of_another_version_is_fetched_anew(site: Site) -> None:
    leave_part(site.resource(), b"older" * 1000)
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == ["bytes=5000-", None]


def test_another_range_than_asked_for_is_not_taken(site: Site) -> None:
    site.shift = 7
    leave_part(site.resource(), CONTENT[:5000])
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == ["bytes=5000-", None]


def test_a_connection_that_breaks_goes_on_where_it_broke(site: Site) -> None:
    site.cut = 2
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=350000-", "bytes=525000-"]


def test_an_answer_of_unknown_length_that_may_have_broken_off_is_asked_for_once_more(site: Site) -> None:
    site.untold, site.cut = True, 1
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == [None, None]
    site.resource().path.unlink()
    site.content = b"a login page"
    with pytest.raises(ValueError, match="not the file that was expected"):
        fetch(site.resource())
    assert site.asked == [None] * 4


def test_a_busy_server_is_asked_again(site: Site) -> None:
    site.statuses = [503, 500]
    assert fetch(site.resource()).read_bytes() == CONTENT


def test_a_server_that_stalls_is_left_after_a_while_and_what_came_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    site.stall = 1.0
    with pytest.raises(ConnectionError, match="timed out"):
        fetch(site.resource())
    assert files(data_folder() / "folder") == ["data.bin.part"]
    site.stall = 0.0
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=350000-"]


def test_a_wrong_file_is_removed_and_both_hashes_are_told(site: Site) -> None:
    site.content = b"a login page"
    received = hashlib.sha256(site.content).hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 is {received}, not {SHA256}. It was removed") as error:
        fetch(site.resource())
    assert f"{site.address}/data.bin" in str(error.value)
    assert str(site.resource().path) in str(error.value)
    assert files(data_folder() / "folder") == []


def test_a_wrong_file_behind_a_part_ends_too(site: Site) -> None:
    leave_part(site.resource(), b"old")
    site.content = b"a login page"
    with pytest.raises(ValueError, match="not the file that was expected"):
        fetch(site.resource())
    assert site.asked == ["bytes=3-", None]


def test_a_refusal_is_told_at_once(site: Site) -> None:
    site.statuses = [404]
    with pytest.raises(ConnectionError, match=r"data\.bin can't be fetched: HTTP Error 404: Not Found"):
        fetch(site.resource())
    assert len(site.asked) == 1


def test_offline_the_address_and_the_place_by_hand_are_told(site: Site) -> None:
    resource = Resource("data.bin", "http://127.0.0.1:9/data.bin", SHA256, "folder")
    with pytest.raises(ConnectionError) as error:
        fetch(resource)
    for part in ("http://127.0.0.1:9/data.bin", "refused", f"put it at {resource.path}", "REPTILE_DATA"):
        assert part in str(error.value)


def test_a_full_disk_is_told_before_anything_is_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"can't be written: .*700,000 bytes are needed, 5 are free; free some space") as error:
        fetch(site.resource())
    assert not isinstance(error.value, ConnectionError)
    assert files(data_folder() / "folder") == []


def test_a_folder_that_cannot_be_written_is_told(site: Site) -> None:
    data_folder().write_bytes(b"a file in place of the folder")
    with pytest.raises(OSError, match=r"data\.bin can't be written: .*set REPTILE_DATA to another folder"):
        fetch(site.resource())


def fetching(site: Site) -> subprocess.Popen[bytes]:
    """A process of its own that fetches the file."""
    code = f"from reptile_env.tasks.download import Resource, fetch; fetch({site.resource()!r})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)


def test_a_process_killed_half_way_leaves_what_the_next_one_completes(site: Site) -> None:
    site.stall = 60.0
    part = data_folder() / "folder" / "data.bin.part"
    with fetching(site) as process:
        deadline = time.monotonic() + 30
        while (not part.exists() or part.stat().st_size < 100_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    site.stall = 0.0
    kept = part.stat().st_size
    assert 100_000 <= kept <= 350_000
    assert fetch(site.resource()).read_bytes() == CONTENT
    assert site.asked == [None, f"bytes={kept}-"]


def test_two_processes_at_once_download_once(site: Site) -> None:
    site.stall = 0.5
    with fetching(site) as first, fetching(site) as second:
        assert [process.wait(30) for process in (first, second)] == [0, 0]
    assert site.asked == [None]
    assert site.resource().path.read_bytes() == CONTENT


def test_a_file_without_an_address_says_where_to_put_it(site: Site) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights\.pt is missing: published weights\. .*put it there") as error:
        needed("folder", "weights.pt", "published weights")
    assert str(data_folder() / "folder" / "weights.pt") in str(error.value)
    path = data_folder() / "folder" / "weights.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    assert needed("folder", "weights.pt", "published weights") == path


def test_a_folder_is_fetched_and_unpacked_once(site: Site, tmp_path: Path) -> None:
    site.content = packed(tmp_path / "data.tar.gz", {"set-1/wav/a": b"a"}).read_bytes()
    resource = site.resource(hashlib.sha256(site.content).hexdigest())
    for _ in range(2):
        folder = fetch_folder(resource, "folder/wav", "set-1/wav")
        assert folder == data_folder() / "folder" / "wav"
        assert files(folder) == ["a"]
    assert len(site.asked) == 1
    resource.path.unlink()
    fetch_folder(resource, "folder/wav", "set-1/wav")
    assert len(site.asked) == 1
