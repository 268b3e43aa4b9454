"""The idx format: what is read, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from reptile_env.tasks import download
from reptile_env.tasks.idx import fetch_idx, read_idx, read_labelled
from tests.tasks.idx_files import idx, write_part

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_array_is_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(idx(ARRAY)) if zipped else idx(ARRAY))
    assert np.array_equal(read_idx(path), ARRAY)


HUGE = bytes([0, 0, 8, 4]) + b"\xff" * 16  # the product of its sizes is beyond 64 bits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x0d\1\0\0\0\1" + bytes(4), "not an idx file of unsigned bytes"),
        (b"<html>not found</html>", "not an idx file"),
        (idx(ARRAY)[:-1], r"truncated: its header says \(2, 3, 4\), 23 bytes follow; fetch it again"),
        (idx(ARRAY)[:9], r"truncated"),
        (idx(ARRAY)[:4], r"truncated"),
        (idx(ARRAY) + b"\0", r"too long: its header says \(2, 3, 4\), 25 bytes follow"),
        (HUGE, "truncated"),
        (bytes([0, 0, 8, 0]), "truncated"),
        (gzip.compress(idx(ARRAY), mtime=0)[:-9], "is damaged: .*fetch it again"),
        (gzip.compress(idx(ARRAY), mtime=0)[:12], "is damaged"),
        (gzip.compress(idx(ARRAY), mtime=0)[:12] + b"\xff" * 30, "is damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "array"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_labels_are_read_among_other_files(tmp_path: Path, zipped: bool) -> None:
    labels = write_part(tmp_path, "train", 30, size=5, zipped=zipped)
    (tmp_path / "train-images-notes.txt").write_text("foreign")
    (tmp_path / "more").mkdir()
    images, read = read_labelled(tmp_path, "train", 10)
    assert images.shape == (30, 5, 5)
    assert np.array_equal(read, labels)
    with pytest.raises(ValueError, match=r"holds label 9; labels are 0 to 8"):
        read_labelled(tmp_path, "train", 9)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        read_labelled(tmp_path, "t10k", 10)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 2, 2)), np.zeros(2), "holds 3 images, .* 2 labels; fetch both again"),
        (np.zeros((0, 2, 2)), np.zeros(0), r"array of shape \(0, 2, 2\) where images"),
        (np.zeros((3, 4)), np.zeros(3), r"shape \(3, 4\) where images \(n, height, width\) are expected"),
        (np.zeros((3, 2, 2)), np.zeros((3, 1)), r"shape \(3, 1\) where labels"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images.astype(np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path, "train", 10)


def test_files_that_are_there_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    names = {f"{part}-{kind}-ubyte.gz": "0" * 64 for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}
    write_part(tmp_path / "set", "train", 10)
    write_part(tmp_path / "set", "t10k", 10, zipped=False)
    assert fetch_idx("set", "http://127.0.0.1:9", names) == tmp_path / "set"
    (tmp_path / "set" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9/t10k-labels-idx1-ubyte\.gz can't be fetched"):
        fetch_idx("set", "http://127.0.0.1:9", names)
