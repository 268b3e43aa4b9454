"""What explanations measure, beyond the channels of a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import reptile_env
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings
from tests.tables import NAME, tiny, tiny_task, write_tiny


def test_bits_and_ranks_are_explained_and_undone_too() -> None:
    evaluator = live_evaluator("digits-mlp", Settings())
    plan = evaluator.cut(evaluator.dense, 1, 6).replace(1, bits=4, rank=0.5)
    plan = plan.replace(0, bits=3)
    first, second, *rest = reptile_env.explain("digits-mlp", plan, cost="bytes")
    assert "at 3 bits" in first.reason
    assert "at 4 bits, in factors of 50% of its parameters" in second.reason
    assert all("Nothing was done to it." in other.reason for other in rest)
    here, undone = evaluator.measure(plan), evaluator.measure(evaluator.dense.replace(0, bits=3))
    dense = evaluator.measure(evaluator.dense)
    assert second.undo_metric == pytest.approx(undone.metric - here.metric)
    assert second.undo_cost == pytest.approx((undone.bytes - here.bytes) / dense.bytes)
    assert first.saved == pytest.approx(1 - undone.bytes / dense.bytes)


def test_the_importance_that_auto_chose_is_named() -> None:
    settings = {"importance": "auto"}
    evaluator = live_evaluator("digits-mlp", Settings(importance="auto"))
    explanations = reptile_env.explain("digits-mlp", evaluator.dense, **settings)
    for explanation in explanations:
        assert f"chosen by {evaluator.chosen[explanation.group]}" in explanation.reason


def test_a_table_explains_what_its_network_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    write_tiny(tmp_path)
    _, head, _ = tiny()
    grid = head.grid
    plan = grid.plan_of([widths[1] for widths in grid.levels])
    by_table = reptile_env.explain(NAME, plan, evaluator="table")
    running = reptile_env.explain(tiny_task(), plan)
    for index, (looked_up, measured) in enumerate(zip(by_table, running, strict=True)):
        assert (looked_up.undo_metric, looked_up.undo_cost, looked_up.saved) == (
            measured.undo_metric,
            measured.undo_cost,
            measured.saved,
        )
        # A tenth of the channels more is no level: the nearest one is taken, and said.
        step = grid.levels[index][1] - grid.levels[index][2]
        assert f"Removing {step} more" in looked_up.reason
    deepest = grid.plan_of([widths[-1] for widths in grid.levels])
    assert all("No more of it can go." in each.reason for each in reptile_env.explain(NAME, deepest, evaluator="table"))


def test_fewer_bits_and_a_lower_rank_are_measured_where_they_are_decided_on() -> None:
    evaluator = live_evaluator("digits-mlp", Settings())
    plan = evaluator.cut(evaluator.dense, 1, 6).replace(1, bits=4, rank=0.5).replace(0, bits=2, rank=0.1)
    lowest, second, third, *_ = reptile_env.explain("digits-mlp", plan, cost="bytes", components=("rate", "bits", "rank"))
    here, dense = evaluator.measure(plan), evaluator.measure(evaluator.dense)
    fewer, lower = evaluator.measure(plan.replace(1, bits=3)), evaluator.measure(plan.replace(1, rank=0.4))
    assert (second.fewer_bits, second.lower_rank) == (3, 0.4)
    assert second.bits_metric == pytest.approx(fewer.metric - here.metric)
    assert second.bits_cost == pytest.approx((fewer.bytes - here.bytes) / dense.bytes)
    assert second.rank_metric == pytest.approx(lower.metric - here.metric)
    assert second.rank_cost == pytest.approx((lower.bytes - here.bytes) / dense.bytes)
    assert "At 3 bits it would be" in second.reason
    assert "In factors of 40% it would be" in second.reason
    assert (third.fewer_bits, third.lower_rank) == (8, 0.9 if evaluator.rankable[2] else None)
    # No bits are left below 2, and no rank below 0.1.
    assert (lowest.fewer_bits, lowest.bits_return, lowest.lower_rank, lowest.rank_return) == (None, None, None, None)
    # Nothing is measured of what nothing is decided about.
    (first, *_) = reptile_env.explain("digits-mlp", plan, cost="bytes", components=("bits",))
    assert (first.deeper_kept, first.deeper_return, first.lower_rank) == (first.kept, 0, None)
    with pytest.raises(ValueError, match="depth"):
        reptile_env.explain("digits-mlp", plan, components=("depth",))


def test_the_deeper_step_says_where_it_leads() -> None:
    evaluator = live_evaluator("digits-mlp", Settings())
    plan = evaluator.cut(evaluator.dense, 0, 10)
    for index, each in enumerate(reptile_env.explain("digits-mlp", plan)):
        there = evaluator.cut(plan, index, each.kept - each.deeper_kept)
        assert each.kept - each.deeper_kept == max(1, round(0.1 * each.size))
        assert each.deeper_metric == pytest.approx(evaluator.measure(there).metric - evaluator.measure(plan).metric)
