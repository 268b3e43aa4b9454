"""The quality table: its rows are measured, a failing method is a row, goals are read off the rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality_methods import DENSE, goals
from benchmarks.quality_rows import Method, Row, macs_share, markdown, rows, save, torch_pruning_row, uniform, uniform_to
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task


def test_rows_hold_what_the_evaluator_measures_and_failures_are_rows() -> None:
    task = make_task("digits-cnn")
    half = uniform_to(macs_share, 0.5)
    bad = Method("bad", lambda evaluator: evaluator.dense, {"recovery": "wish"})
    dense, cut, failed = rows(task, [DENSE, Method("half", half, {"recovery": "reconstruct"}), bad])
    evaluator = live_evaluator(task, Settings("reconstruct"))
    assert (dense.valid, dense.macs, dense.bytes) == (evaluator.measure(evaluator.dense).metric, 1.0, 1.0)
    assert cut.valid == evaluator.measure(half(evaluator)).metric
    assert cut.test == evaluator.test(half(evaluator)).metric
    assert 0.45 < cut.macs <= 0.5
    assert "unknown recovery 'wish'" in failed.error
    assert "failed: ValueError" in markdown([dense, cut, failed], [])


def test_the_uniform_rate_is_the_smallest_that_meets_the_cost() -> None:
    evaluator = live_evaluator("digits-mlp", Settings("none"))
    plan = uniform_to(macs_share, 0.6)(evaluator)
    rate = next(rate for rate in np.arange(0, 0.95, 0.005) if uniform(float(rate))(evaluator) == plan)
    assert macs_share(evaluator, plan) <= 0.6 < macs_share(evaluator, uniform(float(rate) - 0.005)(evaluator))


def test_goals_are_ratios_of_losses() -> None:
    methods = {"dense": 0.9, "uniform channels, recalibrate": 0.7, "uniform channels, reconstruct": 0.8}
    methods |= {"4-bit weights, nearest rounding": 0.8, "4-bit weights, data-aware rounding": 0.86}
    found = {c["what"]: c for c in goals([Row("net", name, {}, valid=value) for name, value in methods.items()])}
    recovered = found["net: loss of reconstruct relative to recalibrate's"]
    assert recovered["measured"] == pytest.approx(0.5)
    assert recovered["met"]
    assert found["net: 4-bit loss, data-aware relative to nearest rounding"]["measured"] == pytest.approx(0.4)
    assert len(found) == 2


def test_results_are_saved_as_they_come(tmp_path: Path) -> None:
    save(tmp_path, [Row("net", "dense", {}, valid=0.9)], [])
    record = json.loads((tmp_path / "quality.json").read_text())
    assert record["rows"][0]["valid"] == 0.9
    assert record["machine"]["torch"] == torch.__version__
    assert "| dense | 0.9000 |" in (tmp_path / "quality.md").read_text()


def test_torch_prunings_own_pruner_meets_the_same_macs() -> None:
    row = torch_pruning_row(make_task("digits-cnn"), 0.5)
    assert 0.3 < row.macs <= 0.5
    assert 0 < row.valid < 1
