"""Commands over several tasks go on behind one that can't be made, and say at the end that it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import correlations, task_commands
from reptile_env.tasks.registry import references
from tests.suites import main

MISSING, THERE = "digits-cnn", "digits-mlp"


@pytest.mark.parametrize("error", [ConnectionError, FileNotFoundError, ImportError, ValueError])
@pytest.mark.parametrize("command", ["checkpoints --calibrate-only", "times", "correlations"])
def test_a_task_that_fails_is_told_of_and_the_next_is_done(
    command: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(name: str, *_: Any, **__: Any) -> dict[str, Any]:
        if name == MISSING:
            raise error("put it there")
        return {"measured": name}

    file = tmp_path / "file.json"
    file.write_text(json.dumps({name: references()[name] for name in (MISSING, THERE)}), encoding="utf-8")
    monkeypatch.setattr(task_commands, "REFERENCES", file)
    monkeypatch.setattr(correlations, "FILE", file)
    for module, function in ((task_commands, "calibrate"), (task_commands, "measured_times"), (correlations, "correlate")):
        monkeypatch.setattr(module, function, measured)
    assert main(*command.split(), MISSING, THERE) == 1
    assert f"{MISSING}: left out, {error.__name__}: put it there" in capsys.readouterr().err
    written = file.read_text(encoding="utf-8")
    assert f'"measured": "{THERE}"' in written
    assert "measured" not in json.loads(written).get(MISSING, {})


def test_published_weights_are_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("checkpoints", "mnist-lenet5", "--train-only") == 2
    assert "the weights of mnist-lenet5 are published ones" in capsys.readouterr().err
