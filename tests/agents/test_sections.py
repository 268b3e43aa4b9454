"""Hyperparameter files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.registry import AGENTS, make_agent
from agents.sections import Sections
from agents.tuned import HYPERPARAMETERS, TunedAgent

FILE = """
default: {learning_rate: 0.1, layers: [8, 8], batch_size: 4}
suites:
  core: {batch_size: 5, learning_rate: 0.2}
families:
  mlp: {learning_rate: 0.3}
"""


def sections(text: str = FILE) -> Sections:
    return Sections(yaml.safe_load(text), "file.yaml")


def test_the_family_counts_more_than_the_suite_and_that_more_than_the_default() -> None:
    assert sections().of("digits-mlp") == {"learning_rate": 0.3, "layers": [8, 8], "batch_size": 5}
    assert sections().of("digits-cnn") == {"learning_rate": 0.2, "layers": [8, 8], "batch_size": 5}
    assert sections().of("a user's own") == {"learning_rate": 0.1, "layers": [8, 8], "batch_size": 4}
    assert sections("learning_rate: 0.1").of("digits-mlp") == {"learning_rate": 0.1}


def test_who_learns_on_drawn_networks_takes_those_of_their_suite() -> None:
    text = "default: {a: 1}\nsuites: {transfer: {a: 2}}\nfamilies: {mlp: {a: 3}}"
    assert [sections(text).of(task)["a"] for task in ("transfer-train", "transfer-test", "transfer-mlp-1")] == [2, 2, 3]
    assert sections(text).of("transfer-none") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default: {a: 1}\nfamily: {mlp: {a: 2}}", "unknown section 'family'.*did you mean 'families'"),
        ("default: {a: 1}\nfamilies: {mlpp: {a: 2}}", "unknown family 'mlpp'.*did you mean 'mlp'"),
        ("default: {a: 1}\nsuites: {corr: {a: 2}}", "unknown suite 'corr'.*did you mean 'core'"),
        ("default: {alpha: 1}\nfamilies: {mlp: {alhpa: 2}}", "family 'mlp'.*unknown hyperparameter 'alhpa'.*did you mean 'alpha'"),
        ("default: 3", "section 'default' must be a mapping"),
        ("- a", "must be a mapping"),
    ],
)
def test_what_is_unknown_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"file.yaml.*{message}"):
        sections(text)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("default: [")
    with pytest.raises(ValueError, match=r"agent\.yaml is not YAML"):
        Sections.read(tmp_path / "agent.yaml")


def test_a_run_takes_and_records_those_of_its_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Plain(TunedAgent):
        def search(self, env: Any, seed: int, out: Path | None) -> None:
            assert self.settings == env.trace.agent_settings

    (tmp_path / "plain.yaml").write_text(FILE)
    monkeypatch.setattr("agents.tuned.HYPERPARAMETERS", tmp_path)
    import gymnasium as gym

    env = gym.make("ReptilePrune-v0", task="digits-mlp", evaluator="table")
    assert Plain("plain").run(env, 1, 0).agent_settings["learning_rate"] == 0.3
    assert Plain("plain", {"learning_rate": 9}).run(env, 1, 0).agent_settings["learning_rate"] == 9


def test_every_file_is_of_an_agent_and_every_space_fits_its_file() -> None:
    names = {path.stem for path in HYPERPARAMETERS.glob("*.yaml")} - {"spaces"}
    assert names <= set(AGENTS)
    for name, space in yaml.safe_load((HYPERPARAMETERS / "spaces.yaml").read_text()).items():
        known = make_agent(name).settings
        assert set(space) <= set(known), name
        for key, among in space.items():
            if "choices" not in among:
                assert among["low"] <= known[key] <= among["high"], f"{name}: {key}={known[key]} is outside its space"
