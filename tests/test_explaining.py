"""What explanations measure, beyond the channels of a plan."""

from __future__ import annotations

import pytest

import reptile_env
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.settings import Settings


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
