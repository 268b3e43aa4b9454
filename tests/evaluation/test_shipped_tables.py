"""The tables that come with the package are what the running network measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agents.outputs import versions
from benchmarks.table import weights_hash
from reptile_env.compression.latency_file import machine
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table import SHIPPED, TableEvaluator, found, table_evaluator
from reptile_env.tasks.registry import make_task, references, tasks
from tests.helpers import episode, make

PLANS = 50
TOTAL_BYTES = 20_000_000
TABLES = sorted(path.name.removesuffix(".table") for path in SHIPPED.glob("*.table"))


@pytest.fixture(params=TABLES)
def shipped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableEvaluator:
    monkeypatch.delenv("REPTILE_TABLES", raising=False)
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path))
    return table_evaluator(str(request.param), Settings())


def test_they_are_those_of_built_in_tasks_and_small() -> None:
    assert "digits-mlp" in TABLES
    assert set(TABLES) <= {row["name"] for row in tasks()}
    assert sum(path.stat().st_size for name in TABLES for path in found(name)) < TOTAL_BYTES


def test_random_plans_measure_what_the_running_network_measures(shipped: TableEvaluator) -> None:
    """Bit for bit on the machine and versions that built it; elsewhere as the determinism contract says."""
    live = live_evaluator(shipped.name, Settings())
    made_by = shipped.head.made_by
    here = {"versions": versions(), "machine": machine(), "threads": torch.get_num_threads()}
    rows = np.random.default_rng(0).integers(0, shipped.grid.rows, PLANS)
    task = make_task(shipped.name)
    for plan in map(shipped.grid.plan, rows):
        pairs = (
            (shipped.measure(plan), live.measure(plan), len(task.valid)),
            (shipped.test(plan), live.test(plan), len(task.test_split())),
        )
        for ours, theirs, examples in pairs:
            if made_by == here:
                assert ours == theirs
            else:
                _close(ours, theirs, 1 / examples)


def _close(ours: Measurement, theirs: Measurement, one_example: float) -> None:
    assert ours.metric == pytest.approx(theirs.metric, abs=one_example + 1e-9)
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
    for name in ("params", "macs", "bytes", "sparsity"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_they_are_of_the_weights_that_ship(shipped: TableEvaluator) -> None:
    live = live_evaluator(shipped.name, Settings())
    assert shipped.head.weights == weights_hash(live), "the checkpoint changed; build the table again"
    assert shipped.w == live.w
    assert shipped.features == live.features


def test_scores_stand_on_the_calibration(shipped: TableEvaluator) -> None:
    env = make(shipped.name, evaluator="table")
    assert isinstance(env, ReptilePruneEnv)
    known = references()[shipped.name]
    assert env.reference.uniform_rate == known["uniform"]["rate"]
    assert env.reference.scale == pytest.approx(known["scale"], rel=0.05)
    total, info = episode(env, 0.3)
    assert info["score"] == (total - 1) / (known["best_known"]["return"] - 1)


def test_there_is_more_to_find_than_the_best_uniform_rate(shipped: TableEvaluator) -> None:
    plan, value = make(shipped.name, evaluator="table").optimum()
    assert value > 1.1
    assert 0 < make(shipped.name, evaluator="table", budget=0.3).optimum()[1] <= value
    assert plan.widths != shipped.sizes
