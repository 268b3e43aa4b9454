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

PLANS, PLANS_OF_A_FAMILY = 50, 10
TOTAL_BYTES = 20_000_000
TABLES = sorted(path.name.removesuffix(".table") for path in SHIPPED.glob("*.table"))


def of_the_family(name: str) -> bool:
    return name.startswith("transfer-")


# Of the transfer family one network of each kind at once, the others with the slow tests.
MARKED = [
    pytest.param(name, marks=pytest.mark.slow) if of_the_family(name) and not name.endswith("-1") else name for name in TABLES
]


@pytest.fixture(params=MARKED)
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
    plans = PLANS_OF_A_FAMILY if of_the_family(shipped.name) else PLANS
    rows = np.random.default_rng(0).integers(0, shipped.grid.rows, plans)
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
    # Of the family's networks, some of whose tables are coarse, not all bear the loss of 70 % of their MACs.
    least, cap = (1.0, 0.5) if of_the_family(shipped.name) else (1.1, 0.3)
    plan, value = make(shipped.name, evaluator="table").optimum()
    assert value > least
    assert 0 < make(shipped.name, evaluator="table", budget=cap).optimum()[1] <= value
    assert plan.widths != shipped.sizes
