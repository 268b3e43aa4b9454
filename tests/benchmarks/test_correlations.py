"""Rank correlations are of what they say: of test data, and of the metric behind a fine-tune."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import correlations
from reptile_env.evaluation.live import LiveEvaluator


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlations, "SHORT", correlations.Finetune(steps=1))


def test_the_first_is_of_the_test_split(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    test = LiveEvaluator.test

    def reversed_on_test(self: LiveEvaluator, plan: Any) -> Any:
        measured = test(self, plan)
        return measured if plan == self.dense else replace(measured, metric=1 - measured.metric, macs=self.measure(self.dense).macs)

    monkeypatch.setattr(LiveEvaluator, "test", reversed_on_test)
    assert correlations.correlate("digits-mlp", 12)["valid_test"] < 0


def test_the_others_are_of_what_a_fine_tune_makes(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = LiveEvaluator.measure

    def reversed_behind_a_fine_tune(self: LiveEvaluator, plan: Any) -> Any:
        measured = measure(self, plan)
        return replace(measured, metric=1 - measured.metric) if "finetune" in self.settings.recovery else measured

    plain = correlations.correlate("digits-mlp", 12)
    monkeypatch.setattr(LiveEvaluator, "measure", reversed_behind_a_fine_tune)
    found = correlations.correlate("digits-mlp", 12)
    assert found["valid_test"] == plain["valid_test"]
    for key in ("finetuned_return", "finetuned_metric"):
        assert found[key] == pytest.approx(-plain[key])
        assert found[key] < 0


@pytest.mark.parametrize(("valid_test", "stays"), [(0.9, True), (0.903, True), (0.8, False)])
def test_what_was_said_of_a_fine_tune_stays_with_its_network(
    valid_test: float, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlations, "FILE", tmp_path / "correlations.json")
    whole = {"plans": 100, "valid_test": 0.9, "finetuned_return": 0.7, "finetuned_metric": 0.6, "finetune_steps": 100}
    correlations._write("a-task", whole)
    found = {"plans": 100, "valid_test": valid_test}
    correlations._write("a-task", found)
    kept = json.loads((tmp_path / "correlations.json").read_text(encoding="utf-8"))["a-task"]
    assert kept == (whole | found if stays else found)
