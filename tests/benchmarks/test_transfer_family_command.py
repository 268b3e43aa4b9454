"""``python -m benchmarks transfer-family``: which weights it tries, and what it keeps."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmarks import polish as polishing
from benchmarks import task_commands, transfer_family
from benchmarks.__main__ import app
from benchmarks.weights import Choice
from reptile_env.tasks import registry
from reptile_env.tasks.transfer.members import SUITE

NAME = "transfer-mlp-3"
KNOWN = registry.references()[NAME]["w"]
SURVEYED = [Choice(w, 0.1, 1.0, mean, 1.5, 2.0) for w, mean in ((0.81, -1.05), (0.61, -0.5), (0.41, -0.9))]
NEAREST = [0.81, 0.41, 0.61]  # by how near to -1 the mean of random plans is


class Calibration:
    """A stand-in that remembers the weights which are tried, and accepts some."""

    def __init__(self, accepted: float | None, file: Path) -> None:
        self.accepted, self.file = accepted, file
        self.entry = registry.references()[NAME]
        self.tried: list[float] = []

    def __call__(self, name: str, *, w: float, **settings: Any) -> dict[str, Any]:
        self.tried.append(w)
        if w != self.accepted:
            raise ValueError(f"refused with {w}")
        return {**self.entry, "w": w, "command": settings["command"]}

    def run(self, *options: str) -> Result:
        return CliRunner().invoke(app, ["transfer-family", NAME, "--evaluations", "20", *options])

    @property
    def kept(self) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))[NAME]
        return entry


def calibration(accepted: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    file = tmp_path / "references.json"
    file.write_text(json.dumps({NAME: registry.references()[NAME] | {"evaluations": 10}}), encoding="utf-8")
    stand_in = Calibration(accepted, file)
    monkeypatch.setattr(transfer_family, "REFERENCES", file)
    monkeypatch.setattr(transfer_family, "calibrate", stand_in)
    monkeypatch.setattr(transfer_family, "survey", lambda *_: list(SURVEYED))
    return stand_in


def test_the_weight_that_a_network_has_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = calibration(KNOWN, tmp_path, monkeypatch)
    assert again.run("--calibrate-again").exit_code == 0
    assert again.tried == [KNOWN]
    assert again.kept["w"] == KNOWN
    assert again.kept["evaluations"] == 20
    assert again.kept["command"] == f"python -m benchmarks transfer-family {NAME} --calibrate-again --evaluations 20"


def test_where_it_is_refused_those_that_separate_best_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = calibration(0.41, tmp_path, monkeypatch)
    assert again.run("--calibrate-again").exit_code == 0
    assert again.tried == [KNOWN, *NEAREST[:2]]
    assert again.kept["w"] == 0.41


def test_a_network_that_no_weight_suits_is_named_and_its_reference_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = calibration(None, tmp_path, monkeypatch)
    before = again.kept
    result = again.run("--calibrate-again")
    assert result.exit_code == 1
    assert f"refused with {KNOWN}" in result.output
    assert f"to be redesigned: {NAME}" in result.output
    assert again.tried == [KNOWN, *NEAREST]
    assert again.kept == before


def test_checkpoints_trains_and_calibrates_a_network_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again, saved = calibration(KNOWN, tmp_path, monkeypatch), list[tuple[str, str]]()
    core = tmp_path / "core.json"
    core.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(task_commands, "REFERENCES", core)
    monkeypatch.setattr(task_commands, "save_checkpoint", lambda name, model: saved.append((name, model)))
    monkeypatch.setattr(registry, "resolve", lambda path: lambda name, progress: f"{path} {name}")
    result = CliRunner().invoke(app, ["checkpoints", NAME, "--evaluations", "20"])
    assert result.exit_code == 0, result.output
    assert saved == [(f"{SUITE}/{NAME}", f"reptile_env.tasks.transfer.task:train_network {NAME}")]
    assert again.tried == [KNOWN]
    assert again.kept["evaluations"] == 20
    assert core.read_text(encoding="utf-8") == "{}"


def test_a_network_that_is_trained_again_keeps_its_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = calibration(KNOWN, tmp_path, monkeypatch)
    monkeypatch.setattr(registry, "references", functools.cache(lambda: json.loads(again.file.read_text(encoding="utf-8"))))
    monkeypatch.setattr(transfer_family, "train_network", lambda name: name)
    monkeypatch.setattr(transfer_family, "save_checkpoint", lambda name, model: None)
    result = again.run("--train-again")
    assert result.exit_code == 0, result.output
    assert again.tried == [KNOWN]
    assert again.kept["w"] == KNOWN


def test_polish_writes_a_network_where_its_reference_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = calibration(None, tmp_path, monkeypatch)
    known = registry.references()[NAME]
    again.file.write_text(json.dumps({NAME: known}), encoding="utf-8")
    better = {**known, "best_known": {**known["best_known"], "return": 9.0}}
    monkeypatch.setattr(polishing, "with_polished", lambda name, entry, tell: better)
    result = CliRunner().invoke(app, ["polish", NAME])
    assert result.exit_code == 0, result.output
    assert again.kept == better
    again.file.write_text(json.dumps({NAME: {**known, "w": 0.1}}), encoding="utf-8")
    assert CliRunner().invoke(app, ["polish", NAME]).exit_code == 1
    assert again.kept["w"] == 0.1


def test_no_evaluation_is_refused() -> None:
    result = CliRunner().invoke(app, ["transfer-family", NAME, "--evaluations", "0"])
    assert "--evaluations 0: give at least 1" in str(result.exception)
