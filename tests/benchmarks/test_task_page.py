from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

import reptile_env
from benchmarks import correlations, task_page
from benchmarks.__main__ import app
from reptile_env.tasks.registry import references


def test_the_page_in_the_repository_is_what_the_command_writes() -> None:
    result = CliRunner().invoke(app, ["tasks-page", "--check"])
    assert result.exit_code == 0, result.output


def test_every_task_has_its_line_and_its_numbers() -> None:
    lines = {line.split("`")[1]: line for line in task_page.page().splitlines() if line.startswith("| `")}
    for row in reptile_env.tasks():
        assert row["name"] in lines
    cells = [cell.strip() for cell in next(x for x in task_page.page().splitlines() if x.startswith("| `digits-cnn`")).split("|")]
    known = references()["digits-cnn"]
    assert f"{known['macs']:,}" in cells
    assert f"{known['best_known']['return']:.2f}" in cells


def test_a_page_that_is_behind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "tasks.md"
    page.write_text("old", encoding="utf-8")
    monkeypatch.setattr(task_page, "PAGE", page)
    assert CliRunner().invoke(app, ["tasks-page", "--check"]).exit_code == 1
    assert page.read_text(encoding="utf-8") == "old"
    assert CliRunner().invoke(app, ["tasks-page"]).exit_code == 0
    assert CliRunner().invoke(app, ["tasks-page", "--check"]).exit_code == 0


def test_correlations_are_of_ranks_and_kept_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "correlations.json"
    file.write_text('{"another": {"plans": 5}}', encoding="utf-8")
    monkeypatch.setattr(correlations, "FILE", file)
    monkeypatch.setattr(correlations, "SHORT", correlations.Finetune(steps=2))
    result = CliRunner().invoke(app, ["correlations", "digits-mlp", "--plans", "12"])
    assert result.exit_code == 0, result.output
    entries = json.loads(file.read_text(encoding="utf-8"))
    assert entries.keys() == {"another", "digits-mlp"}
    found = entries["digits-mlp"]
    assert found["plans"] == 12
    # Validation and test images are of one kind, so returns rank plans alike.
    assert 0.9 < found["valid_test"] <= 1
    assert all(-1 <= found[key] <= 1 for key in ("finetuned_return", "finetuned_metric"))


def test_without_a_fine_tune_the_rest_is_measured_and_what_is_known_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "correlations.json"
    monkeypatch.setattr(correlations, "FILE", file)
    monkeypatch.setattr(correlations, "SHORT", correlations.Finetune(steps=2))
    run = ["correlations", "digits-mlp", "--plans", "12"]
    assert CliRunner().invoke(app, [*run, "--no-finetune"]).exit_code == 0
    (alone,) = json.loads(file.read_text(encoding="utf-8")).values()
    assert alone.keys() == {"plans", "valid_test"}
    monkeypatch.setattr(task_page, "CORRELATIONS", file)
    assert f"| `digits-mlp` | {alone['valid_test']:.2f} | - | - |" in task_page.page()
    assert CliRunner().invoke(app, run).exit_code == 0
    (whole,) = json.loads(file.read_text(encoding="utf-8")).values()
    assert whole["valid_test"] == alone["valid_test"]
    for plans, kept in (("12", whole), ("13", None)):
        assert CliRunner().invoke(app, [*run[:-1], plans, "--no-finetune"]).exit_code == 0
        (again,) = json.loads(file.read_text(encoding="utf-8")).values()
        assert (again == whole) if kept else ("finetuned_metric" not in again)


def test_what_is_constant_has_no_rank() -> None:
    assert math.isnan(correlations._spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert correlations._spearman([1.0, 2.0, 4.0], [0.1, 0.2, 0.3]) == 1


@pytest.mark.parametrize(("arguments", "told"), [(["nothing"], "unknown task"), (["digits-mlp", "--plans", "2"], "at least 3")])
def test_bad_arguments_are_told(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["correlations", *arguments])
    assert result.exit_code != 0
    assert told in str(result.exception) + result.output
