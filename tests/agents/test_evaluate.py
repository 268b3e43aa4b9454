"""``python -m agents evaluate``: what a run found, on both splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import reptile_env
from agents.__main__ import main
from agents.pretrained import SHIPPED
from agents.trace import Trace


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of SAC, of PPO on groups and of random search."""
    folder = tmp_path_factory.mktemp("runs")
    for agent in ("sac", "ppo-group", "random"):
        arguments = ["train", agent, "--task", "digits-mlp", "--evaluator", "table", "--steps", "60", "--out", str(folder / agent)]
        assert main(arguments) == 0
    return folder


def evaluated(folder: Path, out: Path, *more: str) -> dict[str, dict[str, Any]]:
    """The lines of the table, by name."""
    assert main(["evaluate", str(folder), *more, "--out", str(out)]) == 0
    return {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}


def test_it_reports_the_best_plan_and_the_policy(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, trace = evaluated(runs / "sac", tmp_path / "out"), Trace.load(runs / "sac" / "trace-sac.jsonl")
    assert list(found) == ["dense", "best uniform", "best plan", "policy"]
    assert trace.best is not None
    assert trace.policy is not None
    assert found["best plan"]["plan_return"] == trace.best.plan_return
    assert found["policy"]["plan_return"] == trace.rows[-1].plan_return
    assert (found["dense"]["plan_return"], found["best uniform"]["plan_return"]) == (0, pytest.approx(1))
    live = reptile_env.compress("digits-mlp", trace.best.plan)
    task = reptile_env.make_task("digits-mlp")
    test = task.test_split()
    assert found["best plan"]["valid"] == pytest.approx(live.measurement.metric, abs=1e-4)
    assert found["best plan"]["test"] == pytest.approx(
        task.score(task.outputs(live.model, test), test)[0], abs=1 / len(test) + 1e-6
    )
    assert "test accuracy" in capsys.readouterr().out


def test_a_run_of_a_gpu_is_evaluated_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "run"
    assert main(["train", "random", "--task", "digits-mlp", "--steps", "10", "--out", str(made)]) == 0
    run = json.loads((made / "run.json").read_text())
    (made / "run.json").write_text(json.dumps(run | {"others": {"device": "cuda:77"}}))
    capsys.readouterr()
    assert main(["evaluate", str(made)]) == 2
    assert "evaluate --device cpu" in capsys.readouterr().err
    trace = Trace.load(made / "trace-random.jsonl")
    assert trace.best is not None
    assert evaluated(made, tmp_path / "out", "--device", "cpu")["best plan"]["plan_return"] == trace.best.plan_return


@pytest.mark.parametrize(
    ("agent", "more", "evaluated_plans"), [("amc", [], 1), ("amc", ["--rounds", "2"], 2), ("q-learning", ["--rounds", "2"], 10)]
)
def test_it_counts_what_the_policy_has_evaluated(agent: str, more: list[str], evaluated_plans: int, tmp_path: Path) -> None:
    arguments = ["train", agent, "--task", "digits-mlp", "--evaluator", "table", "--steps", "20", *more]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert evaluated(tmp_path / "run", tmp_path / "out")["policy"]["evaluated"] == evaluated_plans


def test_under_a_budget_it_says_of_which_uniform_rate_returns_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "random", "--task", "digits-mlp", "--evaluator", "table", "--steps", "6", "--budget", "0.2"]
    assert main([*arguments, "--cost", "bytes", "--out", str(tmp_path / "run")]) == 0
    best = Trace.load(tmp_path / "run" / "trace-random.jsonl").best
    assert best is not None
    told = capsys.readouterr().out
    assert f" {best.bytes:,} bytes " in told  # what is saved
    assert "1 the best uniform rate without a budget\n" in told
    found = evaluated(tmp_path / "run", tmp_path / "out")
    assert found["best uniform"]["bytes"] > 0.2 * found["dense"]["bytes"]
    assert "1 the best uniform rate without a budget, as in the table\n" in capsys.readouterr().out


def test_the_final_policy_is_told_by_the_scale_of_returns_whatever_it_was_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "purl", "--task", "digits-mlp", "--evaluator", "table", "--steps", "12", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    trace = Trace.load(tmp_path / "run" / "trace-purl.jsonl")
    assert trace.policy is not None
    assert abs(trace.policy.episode_return - trace.rows[-1].plan_return) > 0.01
    assert f"final policy: return {trace.rows[-1].plan_return:.3f}\n" in capsys.readouterr().out
    assert evaluated(tmp_path / "run", tmp_path / "out")["policy"]["plan_return"] == pytest.approx(trace.policy_return)


def test_a_search_has_a_best_plan_alone(runs: Path, tmp_path: Path) -> None:
    assert list(evaluated(runs / "random", tmp_path / "out")) == ["dense", "best uniform", "best plan"]


def test_a_checkpoint_is_played(runs: Path, tmp_path: Path) -> None:
    first = min((runs / "ppo-group" / "checkpoints").iterdir(), key=lambda path: int(path.stem.rpartition("-")[2]))
    early = evaluated(runs / "ppo-group", tmp_path / "early", "--policy", str(first))["policy"]
    assert early["plan_return"] != evaluated(runs / "ppo-group", tmp_path / "late")["policy"]["plan_return"]


@pytest.mark.parametrize("evaluator", ["table", "live"])
def test_a_policy_plays_on_another_network(runs: Path, evaluator: str, tmp_path: Path) -> None:
    found = evaluated(runs / "ppo-group", tmp_path / "out", "--task", "digits-cnn", "--evaluator", evaluator)
    assert list(found) == ["dense", "best uniform", "policy"]
    assert found["policy"]["params"] < found["dense"]["params"]


@pytest.mark.parametrize(
    ("agent", "other"), [("sac", "ppo-group.zip"), ("ppo-group", "sac.zip"), ("amc", "pretrained"), ("amc", "sac.zip")]
)
def test_a_file_that_is_no_policy_of_the_agent_is_refused(
    agent: str, other: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs / agent
    if agent == "amc":  # needs no run of its own to be told what to read
        folder = tmp_path / "amc"
        folder.mkdir()
        options = json.loads((runs / "ppo-group" / "run.json").read_text()) | {"agent": "amc"}
        (folder / "run.json").write_text(json.dumps(options))
    path = SHIPPED if other == "pretrained" else runs / other.removesuffix(".zip") / other
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--policy", str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{path} holds no policy of agent '{agent}'" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("what", ["another network", "damaged"])
def test_a_best_plan_that_cannot_be_read_or_carried_out_is_refused(
    what: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "random"
    shutil.copytree(runs / "random", folder)
    path = folder / "trace-random.jsonl"
    header, *rows = path.read_text().splitlines()
    changed = json.loads(rows[0]) | {"plan_return": 9.0}
    changed["plan"] = {"conv": {"keep": [0]}} if what == "another network" else {"conv": {}}
    path.write_text("\n".join([header, json.dumps(changed), *rows[1:]]) + "\n")
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 2
    told = capsys.readouterr().err
    assert ("its best plan can't be carried out" if what == "another network" else "line 2 is damaged") in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("agent", "more", "message"),
    [
        ("sac", ["--task", "digits-cnn"], "only what was trained on observation 'group'"),
        ("random", ["--task", "digits-cnn"], "no plan of task 'digits-cnn' and no trained policy"),
        ("sac", ["--policy", "nowhere.zip"], "there is no such file"),
        ("sac", ["--policy", "."], "is a folder; name a file in it"),
        ("random", ["--policy", "run.json"], "trains no policy"),
        ("nowhere", [], "is not the folder of a run"),
        ("sac", ["--task", "digit-cnn", "--evaluator", "live"], "did you mean 'digits-cnn'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    agent: str, more: list[str], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs / "random")
    assert main(["evaluate", str(runs / agent), *more]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
