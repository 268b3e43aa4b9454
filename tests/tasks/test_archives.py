"""Archives: one folder of them is unpacked, once and whole, and nothing out of it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from reptile_env.tasks.download import unpack
from tests.tasks.archives import CONTENT, files, packed

FORMS = ("data.tar", "data.tar.gz", "data.zip")


@pytest.mark.parametrize("form", FORMS)
def test_one_folder_of_an_archive_is_unpacked_once(tmp_path: Path, form: str) -> None:
    entries = {"set-1.0/wav/a.wav": b"a", "set-1.0/wav/deep/b.wav": b"b", "set-1.0/README": b"c", "set-1.0/wavelet": b"d"}
    archive, into = packed(tmp_path / form, entries), tmp_path / "fsdd" / "wav"
    assert unpack(archive, into, "set-1.0/wav") == into
    assert {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*.wav")} == {
        "a.wav": b"a",
        "deep/b.wav": b"b",
    }
    assert files(into.parent) == ["wav"]
    (into / "a.wav").write_bytes(b"changed")
    unpack(archive, into, "set-1.0/wav")
    assert (into / "a.wav").read_bytes() == b"changed"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    unpack(packed(tmp_path / "data.tar", {"wav/a": b"a"}), tmp_path / "wav", "wav")
    assert files(tmp_path / "wav") == ["a"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".wav-a1b2c3" / "wav").mkdir(parents=True)
    (tmp_path / ".wav-a1b2c3" / "wav" / "half").write_bytes(b"a")
    unpack(packed(tmp_path / "data.tar", {"wav/a": b"a"}), tmp_path / "wav", "wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".wav.lock", "data.tar", "wav"]


@pytest.mark.parametrize("form", FORMS)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, form: str) -> None:
    archive = packed(tmp_path / form, {"set/a": b"a", "set/../../../evil": b"e"})
    with pytest.raises(ValueError, match=r"can't be unpacked: .*evil"):
        unpack(archive, tmp_path / "deep" / "set", "set")
    assert not list(tmp_path.rglob("evil"))
    assert files(tmp_path / "deep") == []


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match="can't be unpacked"):
        unpack(tmp_path / "data.tar", tmp_path / "set", "set")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, form: str, kept: float) -> None:
    archive = packed(tmp_path / form, {"set/a": CONTENT[:100_000]})
    archive.write_bytes(archive.read_bytes()[: int(kept * archive.stat().st_size)])
    with pytest.raises(ValueError, match=r"can't be unpacked: .*remove it and fetch it again"):
        unpack(archive, tmp_path / "out" / "set", "set")
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("form", ["data.tar.gz", "data.tar.xz", "data.zip"])
@pytest.mark.parametrize("at", [0.3, 0.9])
def test_an_archive_with_a_changed_byte_leaves_nothing(tmp_path: Path, form: str, at: float) -> None:
    archive = packed(tmp_path / form, {"set/a": CONTENT[:100_000]})
    content = bytearray(archive.read_bytes())
    content[int(at * len(content))] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"can't be unpacked: .*remove it and fetch it again"):
        unpack(archive, tmp_path / "out" / "set", "set")
    assert files(tmp_path / "out") == []


def test_an_archive_without_the_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no folder set"):
        unpack(packed(tmp_path / "data.tar.gz", {"other/a": b"a"}), tmp_path / "set", "set")
