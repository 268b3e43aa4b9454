"""Files whose hash is right and whose content is not: no command goes further than reading them, and none ends in a traceback."""

from __future__ import annotations

import dataclasses
import hashlib
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import execution
from benchmarks.results import from_bytes, head_of, read_run, read_runs, run_path, to_bytes, write_run
from benchmarks.results_folder import claim
from benchmarks.run_checks import HEAD
from benchmarks.run_file import LENGTH_BYTES, MAGIC, pack, unpack
from tests.helpers import ROOT
from tests.results import failed_run, made_run
from tests.suites import TINY, add_suites, main

PUBLISHED = ROOT / "benchmarks" / "results"
DONE = made_run()
SIZES = np.array(DONE.sizes)
PLANS = np.arange(DONE.evaluated)
INF, NAN, HUGE = math.inf, math.nan, 10**400

# What is written over in the head; a table of values is written over in part.
HEADS: dict[str, dict[str, Any]] = {
    "dense metric 0": {"dense": {"metric": 0.0}},
    "dense metric inf": {"dense": {"metric": INF}},
    "dense macs 0": {"dense": {"macs": 0}},
    "dense macs huge": {"dense": {"macs": HUGE}},
    "dense text": {"dense": {"params": "x"}},
    "dense loss NaN": {"dense": {"loss": NAN}},
    "scale 0": {"scale": {"scale": 0.0}},
    "scale NaN": {"scale": {"scale": NAN}},
    "scale inf": {"scale": {"scale": INF}},
    "scale tiny": {"scale": {"scale": 1e-300}},
    "weight of 9": {"scale": {"w": 9}},
    "direction": {"scale": {"higher_is_better": "no"}},
    "name of the metric": {"scale": {"metric_name": ["a"]}},
    "best known inf": {"best_known_return": INF},
    "best known -inf": {"best_known_return": -INF},
    "uniform huge": {"uniform_return": HUGE},
    "policy inf": {"policy_return": INF},
    "policy of plan -3": {"policy_evaluation": -3},
    "seconds huge": {"seconds": HUGE},
    "seconds NaN": {"seconds": NAN},
    "seconds inf": {"seconds": INF},
    "seconds negative": {"seconds": -5.0},
    "seconds true": {"seconds": True},
    "started junk": {"started": "<script>alert(1)</script>"},
    "started never": {"started": "9999-99-99"},
    "started 5": {"started": 5},
    "versions of numbers": {"versions": {"torch": 5}},
    "machine nested": {"machine": {"processor": {"a": 1}}},
    "threads true": {"threads": True},
    "seed true": {"seed": True},
    "training networks": {"training_networks": [1, 2]},
    "groups of numbers": {"groups": [1, 2, 3, 4]},
    "one group more": {"groups": ["a", "b", "c", "d", "e"]},
    "sizes 0": {"sizes": [0, 0, 0, 0]},
    "sizes of fractions": {"sizes": [1.5, 32, 32, 64]},
    "budget text": {"settings": {"budget": "x"}},
    "budget inf": {"settings": {"budget": INF}},
    "task list": {"settings": {"task": ["task-a"]}},
    "half a character": {"git": "\ud800"},
    "error 5": {"error": 5},
}
# What is written over in a column, by name.
COLUMNS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "metric NaN": ("metric", lambda metric: np.where(PLANS == 5, NAN, metric)),
    "metric inf": ("metric", lambda metric: np.where(PLANS == 5, INF, metric)),
    "metric 1e308": ("metric", lambda metric: np.where(PLANS == 5, 1e308, metric)),
    "loss inf": ("loss", lambda loss: np.full_like(loss, INF)),
    "seconds inf": ("measured_seconds", lambda seconds: seconds + INF),
    "seconds NaN": ("measured_seconds", lambda seconds: seconds * NAN),
    "seconds negative": ("measured_seconds", lambda seconds: -seconds),
    "simulated seconds negative": ("simulated_seconds", lambda seconds: -1.0 - PLANS),
    "return NaN": ("plan_return", lambda returns: returns * NAN),
    "return inf": ("episode_return", lambda returns: returns + INF),
    "widths 2**62": ("widths", lambda widths: widths * 0 + 2**62),
    "widths 0": ("widths", lambda widths: widths * 0),
    "widths above dense": ("widths", lambda widths: widths + SIZES),
    "group -1": ("group", lambda group: group - 1),
    "group 10**9": ("group", lambda group: group + 10**9),
    "episode 0": ("episode", lambda episode: episode - 1),
    "episode 2**60": ("episode", lambda episode: episode + 2**60),
    "evaluation 2**60": ("evaluation", lambda evaluation: evaluation + 2**60),
    "macs negative": ("macs", lambda macs: -macs),
    "bytes 2**60": ("bytes", lambda size: size + 2**60),
}


def with_head(**changes: Any) -> bytes:
    """A file whose head says something else."""
    head, columns = unpack(to_bytes(DONE))
    for name, value in changes.items():
        inner = isinstance(value, dict) and name in ("dense", "scale", "settings")
        head[name] = head[name] | value if inner else value
    return pack(head, columns)


def with_column(name: str, change: Callable[[Any], Any]) -> bytes:
    """A file with another column, though it would follow from others."""
    return pack(head_of(DONE), DONE.columns | {name: change(DONE.columns[name])})


FORGED = {name: with_head(**changes) for name, changes in HEADS.items()}
FORGED |= {f"column {name}": with_column(*change) for name, change in COLUMNS.items()}


@pytest.mark.parametrize("name", FORGED)
def test_what_no_run_says_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"^is damaged: ") as caught:
        from_bytes(FORGED[name])
    told = COLUMNS[name.removeprefix("column ")][0] if name.startswith("column ") else next(iter(HEADS[name]))
    assert told in str(caught.value) or "its columns do not fit its head" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("cost", [{"uncounted": 10**30}, {"uncounted": 2**62}, {"fixed": [[10**30]]}, {"weights": 5}, {}])
def test_costs_that_nothing_can_have_are_refused(cost: dict[str, Any]) -> None:
    model = {"fixed": [[1]], "per_channel": [[[1, 1, 1, 1]]], "weights": {"macs": [1]}, "uncounted": 0}
    model |= dict.fromkeys(("owner", "outputs", "output_uses", "leads"))
    head, columns = head_of(DONE), {name: column for name, column in DONE.columns.items() if name != "macs"}
    from_bytes(pack(head | {"cost_model": model}, columns))
    with pytest.raises(ValueError, match=r"^is damaged: "):
        from_bytes(pack(head | {"cost_model": model | cost if cost else {}}, columns))


def test_a_head_of_nothing_but_brackets_is_refused() -> None:
    text = b"[" * 100_000
    payload = len(text).to_bytes(LENGTH_BYTES, "little") + text
    with pytest.raises(ValueError, match="does not hold what a run holds: RecursionError"):
        from_bytes(MAGIC + hashlib.sha256(payload).digest() + lzma.compress(payload))


@pytest.mark.parametrize("name", ["dense metric 0", "scale NaN", "seconds huge", "column widths 2**62", "column metric NaN"])
@pytest.mark.parametrize("command", ["report", "validate"])
def test_commands_tell_it_in_one_line(name: str, command: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    suite = dataclasses.replace(TINY, name="made")
    add_suites(monkeypatch, suite)
    claim(tmp_path / "r", suite.title, suite.digest)
    path = write_run(tmp_path / "r", DONE)
    path.write_bytes(FORGED[name])
    extra = ["--out", str(tmp_path / "report")] if command == "report" else []
    assert main(command, str(tmp_path / "r"), *extra) in (1, 2)
    printed = capsys.readouterr()
    assert f"{path} is damaged: " in "".join(printed)
    assert "Traceback" not in "".join(printed)


def test_what_may_be_unknown_may_be_nan(tmp_path: Path) -> None:
    unknown = made_run(uniform_return=NAN, best_known_return=NAN)
    assert np.isnan(unknown.columns["loss"]).all()
    assert math.isnan(read_run(write_run(tmp_path, unknown)).best_known_return)


def test_failed_runs_have_nothing_of_a_network() -> None:
    again = from_bytes(to_bytes(failed_run()))
    assert (again.status, again.dense, again.sizes, again.columns) == ("failed", {}, (), {})
    assert from_bytes(with_head()).status == "done"


def test_every_attribute_of_a_run_has_a_rule() -> None:
    assert set(HEAD) == set(head_of(DONE))


def test_the_published_runs_are_read() -> None:
    read = [read_run(path) for suite in sorted(PUBLISHED.iterdir()) for path in sorted(suite.rglob("*.run"))[::40]]
    assert len(read) > 30
    assert {run.suite for run in read} == {path.name for path in PUBLISHED.iterdir()}


def test_runs_of_one_task_have_the_same_groups(tmp_path: Path) -> None:
    claim(tmp_path, DONE.suite, "0" * 64)
    write_run(tmp_path, DONE)
    write_run(tmp_path, made_run(agent="sac", task="task-b", sizes=(32, 32, 32, 64)))
    assert len(read_runs(tmp_path)) == 2
    write_run(tmp_path, made_run(agent="sac", sizes=(32, 32, 32, 64)))
    with pytest.raises(ValueError, match="decides on other groups than") as caught:
        read_runs(tmp_path)
    assert all(str(run_path(tmp_path, agent, "task-a", 0)) in str(caught.value) for agent in ("random", "sac"))


def test_a_run_that_could_not_be_read_again_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"columns": DONE.columns, "groups": DONE.groups, "sizes": DONE.sizes, "scale": DONE.scale, "agent_settings": {}}
    monkeypatch.setattr(execution, "_searched", lambda job: iter([parts | {"dense": DONE.dense | {"loss": NAN}}]))
    job = execution.Job(TINY, "random", TINY.cases[:1], 0)
    finished = execution.execute(job)
    assert "is damaged: dense: loss=nan" in str(finished.error)
    assert from_bytes(finished.files[TINY.cases[0].name]).status == "failed"
