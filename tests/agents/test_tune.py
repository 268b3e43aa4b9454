"""``python -m agents tune``."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml

import agents.space
import agents.tune
from agents.__main__ import main
from agents.registry import make_agent
from reptile_env.tasks import registry
from reptile_env.tasks.catalogue.spec import TaskSpec

QUICK = ["--task", "digits-mlp", "--evaluator", "table", "--steps", "30", "--trials", "4", "--seeds", "1"]


def trials(folder: Path, agent: str = "ppo") -> list[tuple[dict[str, Any], float]]:
    """Settings and values of the finished trials."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    study = optuna.load_study(study_name=agent, storage=optuna.storages.JournalStorage(backend))
    return [(trial.params, trial.value) for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


def test_it_finds_the_best_of_what_it_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "ppo", *QUICK, "--task", "digits-cnn", "--out", str(tmp_path / "study")]) == 0
    tried = trials(tmp_path / "study")
    assert len(tried) == 4
    assert len({json.dumps(params) for params, _ in tried}) == 4
    assert f"best {max(value for _, value in tried):.4f}" in capsys.readouterr().out
    best = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    assert best["learning_rate"] == max(tried, key=lambda each: each[1])[0]["learning_rate"]
    arguments = ["train", "ppo", *QUICK[:6], "--hyperparameters", str(tmp_path / "study" / "best.yaml")]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    header = json.loads((tmp_path / "run" / "trace-ppo.jsonl").read_text().splitlines()[0])
    assert header["agent_settings"] == make_agent("ppo").settings | best


def test_the_shipped_setting_is_tried_first_and_every_trial_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "sac", *QUICK, "--trials", "2", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "trials.csv").open(encoding="utf-8")))
    assert [float(row["value"]) for row in rows] == pytest.approx([value for _, value in trials(tmp_path, "sac")], abs=1e-6)
    assert f"trial 1 of 2: {float(rows[0]['value']):.4f} (the shipped setting)" in told
    settings = make_agent("sac").settings
    assert {name: rows[0][name] for name in agents.space.read_space("sac")} == {
        name: str(settings[name]) for name in agents.space.read_space("sac")
    }
    assert any(rows[1][name] != rows[0][name] for name in agents.space.read_space("sac"))


@pytest.mark.parametrize("agent", yaml.safe_load(agents.space.SPACES.read_text(encoding="utf-8")))
def test_every_space_holds_the_shipped_setting(agent: str) -> None:
    space = agents.space.read_space(agent)
    chosen = agents.space.suggest(optuna.trial.FixedTrial(agents.space.shipped(agent, space)), space)
    assert chosen == {name: make_agent(agent).settings[name] for name in space}


def test_a_space_without_the_shipped_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"leaves out the shipped learning_rate: 0\.002; put it there"):
        agents.space.shipped("sac", {"learning_rate": {"low": 0.1, "high": 0.2}})


@pytest.mark.parametrize("call", [1, 3])
def test_an_interrupted_study_tries_what_it_would_have_tried(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["tune", "ppo", *QUICK, "--out", str(whole)]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(agents.tune, "_value", interrupted_in(call, agents.tune._value))
        assert main(["tune", "ppo", *QUICK, "--out", str(cut)]) == 1
    assert "interrupted" in capsys.readouterr().err
    assert len(trials(cut)) == call - 1
    assert main(["tune", "--resume", str(cut)]) == 0
    assert trials(cut) == trials(whole)


def test_a_study_cut_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["tune", "ppo", *QUICK, "--out", str(whole)]) == 0
    shutil.copytree(whole, cut)
    lines = (whole / "study.log").read_bytes().splitlines(keepends=True)
    (cut / "study.log").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    assert main(["tune", "--resume", str(cut)]) == 0
    assert trials(cut) == trials(whole)
    assert main(["tune", "--resume", str(cut)]) == 0


def test_a_study_cut_off_before_its_results_were_written_down_writes_them(tmp_path: Path) -> None:
    assert main(["tune", "ppo", *QUICK, "--trials", "1", "--out", str(tmp_path)]) == 0
    written = {name: (tmp_path / name).read_text() for name in ("best.yaml", "trials.csv")}
    for name in written:
        (tmp_path / name).unlink()
    assert main(["tune", "--resume", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_text() for name in written} == written


TASKS = """
import torch, reptile_env

def kept():
    return reptile_env.make_task("transfer-mlp-7")

def mine():
    x, y = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 3
    net = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    torch.nn.init.constant_(net[2].bias, BIAS)
    return reptile_env.Task(net, (x[:100], y[:100]), (x[100:], y[100:]), name="mine", w=0.3)
"""


def test_a_study_goes_on_with_the_networks_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_tuned.py").write_text(TASKS.replace("BIAS", "0.0"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    study = ["tune", "ppo", "--task", "own_tuned:mine", *QUICK[4:6], "--trials", "1", "--seeds", "1", "--out", "study"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert main(study) == 0
        torch.manual_seed(1)  # and with it the weights
        assert main(["tune", "--resume", "study"]) == 2
        assert "conditions own_tuned:mine was" in capsys.readouterr().err
        torch.manual_seed(0)
        assert main(["tune", "--resume", "study"]) == 0


def test_a_function_cannot_bring_in_a_network_kept_for_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_kept.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["tune", "ppo", "--task", "own_kept:kept", *QUICK[4:], "--out", "study"]) == 2
    assert "transfer-mlp-7 is kept for tests" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_study_of_another_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ('{"command": "tune"}', '{"command": "tune", "study": {"agent": "ppo"}, "options": {}}'):
        (tmp_path / "run.json").write_text(text)
        assert main(["tune", "--resume", str(tmp_path)]) == 2
        assert "another version wrote it" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [{"tasks": 3}, {"trials": "many"}])
def test_a_damaged_study_is_refused(damage: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"agent": "ppo", "tasks": ["digits-mlp"], "trials": 2, "seeds": 1, "value": "best"} | damage
    (tmp_path / "run.json").write_text(json.dumps({"command": "tune", "study": study, "options": {}}))
    assert main(["tune", "--resume", str(tmp_path)]) == 2
    assert "run.json of this study is damaged: " in capsys.readouterr().err


def test_a_damaged_log_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "ppo", *QUICK, "--out", str(tmp_path / "study")]) == 0
    log = tmp_path / "study" / "study.log"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join([*lines[:3], "{\n", *lines[3:]]), encoding="utf-8")
    before = log.read_bytes()
    assert main(["tune", "--resume", str(tmp_path / "study")]) == 2
    assert f"{log} is damaged: " in capsys.readouterr().err
    assert log.read_bytes() == before


def interrupted_in(count: int, function: Callable[..., float]) -> Callable[..., float]:
    calls = 0

    def counted(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == count:
            raise KeyboardInterrupt
        return function(*arguments)

    return counted


def test_a_setting_that_fails_ends_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"learning_rate": {"choices": [make_agent("ppo").settings["learning_rate"], 1e30]}}
    monkeypatch.setattr(agents.tune, "read_space", lambda agent: space)
    study = ["tune", "ppo", *QUICK, "--steps", "100", "--trials", "3"]
    assert main([*study, "--out", str(tmp_path / "whole")]) == 0
    told = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "whole" / "trials.csv").open(encoding="utf-8")))
    assert len(rows) == 3
    failed = [row["trial"] for row in rows if row["learning_rate"] == "1e+30"]
    assert failed
    assert failed == [row["trial"] for row in rows if row["value"] == "nan"]
    assert all(f"trial {number} of 3: failed, " in told for number in failed)
    assert yaml.safe_load((tmp_path / "whole" / "best.yaml").read_text())["learning_rate"] < 1
    with monkeypatch.context() as patched:
        patched.setattr(agents.tune, "_value", interrupted_in(3, agents.tune._value))
        assert main([*study, "--out", str(tmp_path / "cut")]) == 1
    assert main(["tune", "--resume", str(tmp_path / "cut")]) == 0
    assert (tmp_path / "cut" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()


def test_an_error_of_the_shipped_setting_is_not_put_down_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> float:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(agents.tune, "_value", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            main(["tune", "ppo", *QUICK, "--trials", "1", "--out", str(tmp_path)])
    assert main(["tune", "--resume", str(tmp_path)]) == 0
    assert len(trials(tmp_path)) == 1


def test_the_policy_can_be_what_counts(tmp_path: Path) -> None:
    assert main(["tune", "ppo", *QUICK, "--trials", "1", "--value", "policy", "--out", str(tmp_path / "a")]) == 0
    assert main(["tune", "ppo", *QUICK, "--trials", "1", "--out", str(tmp_path / "b")]) == 0
    (params, policy), (same, best) = (trials(tmp_path / name)[0] for name in ("a", "b"))
    assert params == same
    assert policy <= best


def test_networks_kept_for_tests_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = TaskSpec("kept", "mlp", "none", "none", "reptile_env.tasks.digits:task", split="test")
    monkeypatch.setitem(registry._specs, "kept", kept)
    assert main(["tune", "ppo", "--task", "digits-mlp", "--task", "kept", "--out", str(tmp_path / "study")]) == 2
    assert "kept for tests" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["random"], "unknown agent in spaces.yaml 'random'"),
        (["ppo", "--value", "bets"], "did you mean 'best'"),
        (["ppo", "--trials", "0"], "give at least 1"),
        (["ppo", "--task", "digits-mlp", "--task", "digits-mlp"], "name each task once"),
        (["pppo"], "did you mean 'ppo'"),
        (["ppo", "--seed", "4294967295", "--seeds", "2"], "above 2**32 - 1; give a lower one"),
        ([], "'algorithm'"),
        (["--resume", "nowhere"], "is not the folder of a run"),
        (
            ["ppo", "--steps", "1", "--evaluator", "table", "--value", "policy", "--out", "study"],
            "leave none for the policy; give at least 2",
        ),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
