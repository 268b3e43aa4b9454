"""``python -m benchmarks times``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import task_commands, transfer_family
from benchmarks.__main__ import app
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator
from tests.suites import main

NAMES = ["digits-mlp", "transfer-mlp-3"]


def test_times_are_those_of_plans_and_steps_and_all_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for module, name in ((task_commands, "core.json"), (transfer_family, "family.json")):
        files[module.REFERENCES] = Path(shutil.copy(module.REFERENCES, tmp_path / name))
        monkeypatch.setattr(module, "REFERENCES", tmp_path / name)
    measured, stepped = [], []
    measure, step = LiveEvaluator.measure, ReptilePruneEnv.step
    monkeypatch.setattr(LiveEvaluator, "measure", lambda self, plan: measured.append(plan) or measure(self, plan))
    monkeypatch.setattr(ReptilePruneEnv, "step", lambda self, action: stepped.append(action) or step(self, action))
    result = CliRunner().invoke(app, ["times", *NAMES])
    assert result.exit_code == 0, result.output
    assert len(stepped) >= 2 * 60
    assert len(measured) >= 2 * 40 + len(stepped)
    for name, (before, after) in zip(NAMES, files.items(), strict=True):
        old, new = (json.loads(file.read_text(encoding="utf-8")) for file in (before, after))
        for times in (new[name].pop("seconds"), new[name].pop("step_seconds")):
            assert 0 < times < 10
        old[name].pop("seconds", None), old[name].pop("step_seconds", None)
        assert new == old


def test_what_another_process_writes_while_a_task_is_timed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(shutil.copy(task_commands.REFERENCES, tmp_path / "core.json"))
    monkeypatch.setattr(task_commands, "REFERENCES", file)

    def meanwhile(name: str) -> dict[str, float]:
        task_commands.write_reference(name, {"w": 0.5})
        return {"seconds": 1.0}

    monkeypatch.setattr(task_commands, "measured_times", meanwhile)
    assert main("times", "digits-mlp") == 1
    assert "digits-mlp: left out, ValueError: another process has changed" in capsys.readouterr().err
    assert json.loads(file.read_text(encoding="utf-8"))["digits-mlp"] == {"w": 0.5}


def test_what_was_never_calibrated_is_refused() -> None:
    result = CliRunner().invoke(app, ["times", "digits-mpl"])
    assert result.exit_code != 0
    assert "did you mean 'digits-mlp'" in str(result.exception) + result.output
