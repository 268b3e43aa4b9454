"""Tables on disk: what comes back, what is refused, and the shared copy in the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reptile_env.evaluation.table import TableEvaluator, open_table
from reptile_env.evaluation.table_file import MAGIC, read_table, write_table, write_whole
from tests.helpers import ROOT, make
from tests.tables import NAME, tiny, write_tiny

ROWS = 500


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    return tmp_path / "cache"


def columns() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "metric": generator.integers(0, 100, ROWS) / 450,
        "loss": generator.normal(size=ROWS),
        "odd": np.resize([0.0, -0.0, np.nan, np.inf, 5e-324], ROWS),
        "seconds": generator.random(ROWS).astype(np.float32),
        "count": generator.integers(-(2**62), 2**62, ROWS),
    }


def test_every_bit_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.table"
    write_table(path, {"note": "é", "order": [1, 2]}, columns())
    packed = read_table(path)
    assert (packed.head["note"], packed.head["rows"], len(packed.digest)) == ("é", ROWS, 64)
    back = packed.columns()
    assert list(back) == list(columns())
    for name, column in columns().items():
        assert back[name].dtype == column.dtype
        assert back[name].tobytes() == column.tobytes()


def test_metrics_that_count_examples_take_few_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.table"
    write_table(path, {}, {"metric": np.tile(columns()["metric"], 20)})
    assert path.stat().st_size < 0.05 * 20 * ROWS * 8


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, {"x": 1}, columns())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_table(tmp_path / "c", {"x": 2}, columns())
    assert read_table(tmp_path / "c").digest != read_table(tmp_path / "a").digest


def flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return flip


DAMAGES = {
    **{f"a bit at {at}": flipped(at) for at in (0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 1.0)},
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "head cut": lambda data: data[:40],
    "longer": lambda data: data + b"x",
    "empty": lambda data: b"",
    "something else": lambda data: b"PK" + data,
    "magic alone": lambda data: MAGIC,
    "other hash": lambda data: MAGIC + bytes(32) + data[len(MAGIC) + 32 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_with_the_mend(tmp_path: Path, cache: Path, damage: str) -> None:
    path = write_tiny(tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="python -m benchmarks table") as refused:
        make(NAME, evaluator="table")
    assert str(path) in str(refused.value)
    assert not list(cache.glob("*.bin"))


def test_another_format_is_refused(tmp_path: Path) -> None:
    _, head, values = tiny()
    write_table(tmp_path / f"{NAME}.table", head.to_json() | {"format": 99}, values)
    with pytest.raises(ValueError, match="its format is 99"):
        make(NAME, evaluator="table")


def test_columns_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        write_table(tmp_path / "x", {}, {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="dtype float16"):
        write_table(tmp_path / "x", {}, {"a": np.zeros(2, np.float16)})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_whole(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


def evaluator(**kwargs: object) -> TableEvaluator:
    found = make(NAME, evaluator="table", **kwargs).evaluator
    assert isinstance(found, TableEvaluator)
    return found


def test_it_is_unpacked_once_and_mapped_read_only(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path)
    first = open_table(path)
    files = list(cache.iterdir())
    assert [file.name.startswith(f"table-{read_table(path).digest[:32]}") for file in files] == [True]
    written = files[0].stat()
    second = open_table(path)
    assert (files[0].stat().st_ino, files[0].stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    for name, column in second.columns.items():
        np.testing.assert_array_equal(column, first.columns[name])
        assert isinstance(column.base.base, np.memmap)  # shared with other processes
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
    assert list(second.columns) == ["metric", "loss", "test_metric", "test_loss", "seconds", "params", "macs", "bytes"]


def test_costs_are_those_of_the_cost_model(tmp_path: Path) -> None:
    table = open_table(write_tiny(tmp_path))
    widths = table.head.grid.widths_of(np.arange(table.head.grid.rows))
    for name in ("params", "macs", "bytes"):
        assert table.columns[name].tolist() == table.head.costs.cost(name, widths).tolist()


@pytest.mark.parametrize("damage", ["a bit at 0.3", "a bit at 1.0", "truncated", "empty"])
def test_a_damaged_cache_is_unpacked_anew(tmp_path: Path, cache: Path, damage: str) -> None:
    path = write_tiny(tmp_path)
    good = {name: column.tolist() for name, column in open_table(path).columns.items()}
    file = next(cache.iterdir())
    file.write_bytes(DAMAGES[damage](file.read_bytes()))  # type: ignore[no-untyped-call]
    assert {name: column.tolist() for name, column in open_table(path).columns.items()} == good
    assert [each.name for each in cache.iterdir()] == [file.name]


def test_where_the_cache_cant_be_written_it_is_held_in_memory(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path)
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="holds its own copy in memory; set REPTILE_CACHE"):
        table = open_table(path)
    assert table.columns["metric"].tolist() == tiny()[2]["metric"].tolist()
    with pytest.raises(ValueError, match="read-only"):
        table.columns["metric"][0] = 0


def test_many_at_once_write_one_copy(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda _: open_table(path), range(16)))
    assert all(table.columns["loss"].tolist() == tables[0].columns["loss"].tolist() for table in tables)
    assert len(list(cache.iterdir())) == 1


def test_a_new_table_under_an_old_name_is_noticed(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    before = evaluator()
    _, head, values = tiny()
    changed = values | {"loss": values["loss"] + 1}
    write_table(tmp_path / f"{NAME}.table", head.to_json(), changed)
    assert evaluator().measurement(0).loss == before.measurement(0).loss + 1


def test_a_renamed_table_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path).rename(tmp_path / "other.table")
    with pytest.raises(ValueError, match="is of task 'tiny'; name it tiny"):
        make("other", evaluator="table")


def test_processes_share_the_file(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path)
    code = "import sys, pathlib, reptile_env.evaluation.table as table; table.open_table(pathlib.Path(sys.argv[1]))"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(list(cache.iterdir())) == 1
