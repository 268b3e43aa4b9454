"""Files of runs: what goes in comes out, and what is damaged, forged or misplaced is told by name."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import lzma
import os
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.results import Run, from_bytes, read_run, read_runs, run_path, to_bytes, write_run
from benchmarks.results_folder import DRAFT, claim
from benchmarks.run_file import HASH_BYTES, MAGIC, pack, unpack
from tests.suites import TINY, changed, content, made


@pytest.fixture(scope="module")
def run() -> Run:
    return made("random")


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:
    """A folder of one run."""
    claim(tmp_path, TINY.title, TINY.digest)
    write_run(tmp_path, run)
    return tmp_path


@pytest.mark.parametrize("agent", ["random", "beam-search"])
@pytest.mark.parametrize("case", [0, 1])
def test_a_run_comes_back_to_the_last_bit(agent: str, case: int) -> None:
    first = made(agent, case)
    again = from_bytes(to_bytes(first))
    assert content(again) == content(first)
    assert again.seconds == first.seconds
    assert again.machine == first.machine
    assert again.evaluated == 40


def test_columns_say_what_the_trace_said(run: Run) -> None:
    columns, sizes = run.columns, np.array(run.sizes)
    assert columns["evaluation"].tolist() == list(range(1, 41)) == columns["episode"].tolist()  # one plan an episode
    assert (columns["group"] == len(sizes) - 1).all()
    assert columns["rate"] == pytest.approx(1 - columns["widths"][:, -1] / sizes[-1])
    assert columns["params"].max() < run.dense["params"]
    w, relative = run.scale["w"], columns["macs"] / run.dense["macs"]
    utility = w * columns["metric"] / run.dense["metric"] + (1 - w) * (1 - relative)
    assert columns["plan_return"] == pytest.approx((utility - w) / run.scale["scale"])
    assert columns["simulated_seconds"] == pytest.approx(np.cumsum(columns["measured_seconds"]))
    best = np.maximum.accumulate(columns["plan_return"])
    assert np.isnan(columns["loss"]).tolist() == [False, *(best[1:] == best[:-1])]
    assert run.best_known_return > best[-1]  # the optimum of the table


def test_numbers_that_do_not_follow_from_others_are_kept_as_they_are(run: Run) -> None:
    odd = changed(changed(run, "plan_return", 3, -0.0), "params", 4, 123)
    odd = dataclasses.replace(odd, cost_model=None)
    assert content(from_bytes(to_bytes(odd))) == content(odd)
    floats = np.array([0.0, -0.0, np.nan, np.inf, 5e-324, 1 / 3] * 50)
    head, columns = unpack(pack({"x": 1}, {"a": floats, "b": floats[::7], "c": np.array([[2**40, -5], [0, 1]])}))
    assert head == {"x": 1}
    assert columns["a"].tobytes() == floats.tobytes()
    assert columns["b"].tobytes() == np.ascontiguousarray(floats[::7]).tobytes()
    assert columns["c"].tolist() == [[2**40, -5], [0, 1]]


def test_a_long_run_is_small() -> None:
    long = made("random", evaluations=1500)
    assert len(to_bytes(long)) < 12_000  # 8 bytes a plan: five decisions, a metric and their share of the rest
    assert len(long.columns["measured_seconds"]) == 1500


def test_files_hold_no_pickle(run: Run) -> None:
    payload = lzma.decompress(to_bytes(run)[len(MAGIC) + HASH_BYTES :])
    with pytest.raises(ValueError):
        pickletools.dis(payload)


def test_a_run_is_never_written_over(folder: Path, run: Run) -> None:
    path = run_path(folder, run.agent, run.task, run.seed)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_run(folder, dataclasses.replace(run, git="another"))
    assert path.read_bytes() == before
    assert not list(folder.rglob(f"{DRAFT}*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_run(tmp_path, run)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_system_without_links_will_do(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = write_run(tmp_path, run)
    assert content(read_run(path)) == content(run)
    with pytest.raises(FileExistsError):
        write_run(tmp_path, run)


def test_a_folder_reads_back_in_order_and_drafts_are_no_runs(folder: Path, run: Run) -> None:
    for seed in (2, 1):
        write_run(folder, dataclasses.replace(run, seed=seed))
    (folder / "random" / f"{DRAFT}abc").write_bytes(b"half")
    (folder / "README.md").write_text("what these are")
    assert [each.seed for each in read_runs(folder)] == [0, 1, 2]


def forged(run: Run, **head: Any) -> bytes:
    """The file of a run with another head, its hash in order."""
    old, columns = unpack(to_bytes(run))
    return pack(old | head, columns)


DAMAGE: dict[str, tuple[Callable[[Run, bytes], bytes], str]] = {
    "empty": (lambda run, data: b"", "is no run of this benchmark"),
    "foreign": (lambda run, data: b"PK\x03\x04 something else", "is no run of this benchmark"),
    "another version": (lambda run, data: data.replace(MAGIC, b"reptile run 2\n"), "another version"),
    "truncated": (lambda run, data: data[:-7], "is damaged"),
    "cut in the head": (lambda run, data: data[:20], "is damaged"),
    "too long": (lambda run, data: data + b"x", "is damaged"),
    "a bit flipped": (lambda run, data: data[:400] + bytes([data[400] ^ 1]) + data[401:], "is damaged"),
    "another hash": (lambda run, data: data[: len(MAGIC)] + bytes(32) + data[len(MAGIC) + 32 :], "not what its hash says"),
    "seed no number": (lambda run, data: forged(run, seed="0"), "is damaged: seed='0'"),
    "unknown attribute": (lambda run, data: forged(run, more=1), "does not hold what a run holds: ['more']"),
    "unknown track": (lambda run, data: forged(run, track="speed"), "track 'speed' is none of"),
    "an error and done": (lambda run, data: forged(run, error="oh"), "a failed run has an error"),
    "fewer groups": (lambda run, data: forged(run, groups=["a"], sizes=[3]), "its columns do not fit its head"),
    "another name": (lambda run, data: forged(run, agent="sac"), "was moved or renamed"),
    "another suite": (lambda run, data: forged(run, suite="core-v1"), "is a run of core-v1, not of tiny-v1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_file_is_told_with_its_name(name: str, folder: Path, run: Run) -> None:
    damage, message = DAMAGE[name]
    path = run_path(folder, run.agent, run.task, run.seed)
    path.write_bytes(damage(run, path.read_bytes()))
    (folder / "notes.txt").write_text("not a run")
    with pytest.raises(ValueError) as caught:
        read_runs(folder)
    told = str(caught.value)
    assert message in told
    assert str(path) in told
    assert str(folder / "notes.txt") in told  # every file is told of, not the first alone


def test_a_payload_of_nonsense_with_the_right_hash(folder: Path, run: Run) -> None:
    payload = b"\xff\xff\x00\x00 no head"
    run_path(folder, run.agent, run.task, run.seed).write_bytes(MAGIC + hashlib.sha256(payload).digest() + lzma.compress(payload))
    with pytest.raises(ValueError, match="does not hold what a run holds"):
        read_runs(folder)


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder of results"):
        read_runs(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="and not empty; name a new one"):
        claim(tmp_path, TINY.title, TINY.digest)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "suite": "core-v1", "digest": "x"}', "holds results of core-v1, not of tiny-v1"),
        ('{"format": 1, "suite": "tiny-v1", "digest": "x"}', "its tasks, settings, evaluations or seeds were others then"),
        ('{"format": 2, "suite": "tiny-v1", "digest": "x"}', "is of format 2, this version reads 1"),
        ('{"format": 1}', "is damaged"),
        ("[]", "is damaged"),
        ('{"for', "is damaged"),
        ("\xff", "is damaged"),
    ],
)
def test_a_claim_of_another_suite_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(text, encoding="latin-1")  # the last is no UTF-8 then
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, TINY.title, TINY.digest)


def test_columns_that_do_not_belong_together_are_refused(run: Run) -> None:
    short = run.columns | {"metric": run.columns["metric"][:-1]}
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(run, columns=short)
    with pytest.raises(ValueError, match="columns are missing: widths"):
        dataclasses.replace(run, columns={name: column for name, column in run.columns.items() if name != "widths"})
    with pytest.raises(ValueError, match="a failed run has no columns"):
        dataclasses.replace(run, status="failed", error="oh")
