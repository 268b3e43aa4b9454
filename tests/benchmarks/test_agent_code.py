"""Runs of two versions of an agent's code in one folder are told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import execution, run_command
from benchmarks import validate as validation
from benchmarks.execution import AGENT_CODE, agent_code
from benchmarks.results import read_runs
from tests.suites import TINY, Here, add_suites, main


def test_going_on_with_other_code_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    add_suites(monkeypatch, TINY)
    for module in (run_command, validation):
        monkeypatch.setattr(module, "LocalEngine", lambda workers: Here())
    folder, page = tmp_path / "runs", tmp_path / "page.md"
    run = ("run", "tiny", "--agents", "random,uniform", "--out", folder, "--seeds")
    assert main(*run, 1) == 0
    assert {run.versions[AGENT_CODE] for run in read_runs(folder) if run.agent == "random"} == {agent_code("random")[AGENT_CODE]}
    assert main(*run, 1) == 0
    assert "other code" not in capsys.readouterr().err
    before = execution.source_digest
    monkeypatch.setattr(execution, "source_digest", lambda agent: "changed" if agent == "random" else before(agent))
    assert main(*run, 2) == 0
    told = capsys.readouterr().err
    assert "random: " in told
    assert "holds runs that other code of this agent has made" in told
    assert "uniform: " not in told
    assert main("validate", folder, "--all") == 0
    assert main("leaderboard", folder, "--out", page) == 0
    assert "Runs of more than one version of their code: random." in page.read_text()


def test_an_agent_that_cannot_be_loaded_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(agent: str) -> str:
        raise ImportError("no such module")

    monkeypatch.setattr(execution, "source_digest", broken)
    assert agent_code("random") == {}
