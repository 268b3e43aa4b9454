"""``--engine ray``: on this machine, and on Ray's own two-node test cluster, one node of which is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from benchmarks import engine_ray
from benchmarks.engine import Lost
from benchmarks.engine_local import LocalEngine
from benchmarks.engine_ray import OBJECT_BYTES, RayEngine
from benchmarks.results import read_runs
from benchmarks.runner import jobs_of, run_jobs
from tests.chores import Chore, raises
from tests.suites import TINY, add_suites, content, main

pytestmark = pytest.mark.slow  # half a minute each: Ray starts its own servers

LONGER = dataclasses.replace(TINY, cases=(dataclasses.replace(TINY.cases[0], evaluations=2000),), seeds=6)


@contextlib.contextmanager
def cluster() -> Iterator[tuple[Cluster, Any]]:
    """A head and a second node, one CPU each."""
    memory = {"object_store_memory": OBJECT_BYTES}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    try:
        yield made, made.add_node(num_cpus=1, **memory)
    finally:
        made.shutdown()


def test_a_killed_node_costs_no_run_and_makes_none_twice(tmp_path: Path) -> None:
    jobs = jobs_of(LONGER, ["random", "coordinate-ascent"], ["digits-mlp"], 6)
    told = []
    with cluster() as (nodes, second):

        def listen(job: Any, finished: Any) -> None:
            told.append(job)
            if len(told) == 3:
                assert len([node for node in ray.nodes() if node["Alive"]]) == 2
                nodes.remove_node(second, allow_graceful=False)

        run_jobs(jobs, tmp_path / "ray", RayEngine(nodes.address, 1), listen)
    assert len(told) == len(set(told)) == 12
    run_jobs(jobs, tmp_path / "local", LocalEngine(1))
    by_ray, locally = read_runs(tmp_path / "ray"), read_runs(tmp_path / "local")
    assert [run.status for run in by_ray] == ["done"] * 12
    assert [content(run) for run in by_ray] == [content(run) for run in locally]


def test_ray_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    add_suites(monkeypatch, TINY)
    command = ["run", "tiny", "--agents", "random,dqn", "--seeds", "1", "--engine", "ray", "--workers", "1"]
    assert main(*command, "--out", str(tmp_path / "ray")) == 0
    assert "all 4 runs are in" in capsys.readouterr().out
    run_jobs(jobs_of(TINY, ["dqn"], ["digits-mlp@0.6"], 1), tmp_path / "local", LocalEngine(1))
    (locally,) = read_runs(tmp_path / "local")
    (there,) = [run for run in read_runs(tmp_path / "ray") if (run.agent, run.task) == ("dqn", "digits-mlp@0.6")]
    assert content(there) == content(locally)
    assert not ray.is_initialized()


def test_work_that_raises_and_machines_that_differ_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chores = [Chore(number, tmp_path) for number in range(3)]
    found = {chore.number: result for chore, result in RayEngine(None, 1).run(raises, chores)}
    assert (found[0], found[2]) == (0, 4)
    assert isinstance(found[1], Lost)
    assert "ArithmeticError: one is not a number" in found[1].reason
    installed = engine_ray._installed()
    monkeypatch.setattr(engine_ray, "_installed", lambda: installed | {"torch": "1.0"})
    differs = rf"a machine of the cluster has torch {re.escape(installed['torch'])} instead of 1\.0"
    with pytest.raises(RuntimeError, match=differs):
        list(RayEngine(None, 1).run(raises, chores))
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    add_suites(monkeypatch, TINY)
    command = ["run", "tiny", "--agents", "random", "--engine", "ray", "--address", "auto", "--out", str(tmp_path / "r")]
    assert main(*command) == 1
    assert "Could not find any running Ray instance" in capsys.readouterr().err
