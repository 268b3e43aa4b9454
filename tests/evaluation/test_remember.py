"""Measurements handed to an evaluator, and what tells its conditions apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from reptile_env.evaluation.base import make_evaluator
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from tests.helpers import small_task


def evaluator(name: str = "remembering", settings: dict[str, Any] | None = None, **kwargs: Any) -> LiveEvaluator:
    return LiveEvaluator(small_task(name, **kwargs), Settings(**settings or {}))


def test_what_is_remembered_is_not_measured_again() -> None:
    first, second = evaluator(), evaluator()
    plan = first.cut(first.dense, 0, 5)
    measurement = dataclasses.replace(first.measure(plan), metric=0.123)
    second.remember(plan, measurement)
    before = second.measured
    assert second.measure(plan) == measurement
    assert second.measured == before


def test_a_measurement_of_another_network_is_refused() -> None:
    live = evaluator()
    plan = live.cut(live.dense, 0, 5)
    other = dataclasses.replace(live.measure(plan), params=7)
    with pytest.raises(ValueError, match="measured on another network"):
        live.remember(plan, other)
    with pytest.raises(TypeError, match=r"a reptile_env\.Plan is needed"):
        live.remember(plan.to_dict(), other)  # type: ignore[arg-type]


def test_conditions_tell_weights_settings_and_threads_apart() -> None:
    same = [evaluator().conditions() for _ in range(2)]
    assert same[0] == same[1]
    model = small_task("remembering").model
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    others = [evaluator(model=model), evaluator(settings={"recovery": "none"})]
    assert len({same[0], *(other.conditions() for other in others)}) == 3


def test_a_table_has_conditions_and_needs_no_memory() -> None:
    table = make_evaluator("table", "digits-mlp", Settings())
    other = make_evaluator("table", "digits-cnn", Settings())
    assert table.conditions() == make_evaluator("table", "digits-mlp", Settings(train_loss=False)).conditions()
    assert table.conditions() != other.conditions()
    known = table.measure(table.dense)
    table.remember(table.dense, dataclasses.replace(known, metric=0.0))
    assert table.measure(table.dense) == known
