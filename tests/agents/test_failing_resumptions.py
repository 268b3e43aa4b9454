"""Resumptions that fail, or are given up: they say why in a line, and what the run had left stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import SAC

from agents.__main__ import main
from agents.registry import make_agent
from agents.trace import Trace


@pytest.fixture(autouse=True)
def code_as_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may be editing the code while it is tested."""
    monkeypatch.setattr("agents.outputs._code", lambda: "as tested")
    monkeypatch.setattr("reptile_env.evaluation.disk._own_version", lambda: "as tested")


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A run of random search on the running network."""
    assert main(["train", "random", "--task", "digits-mlp", "--steps", "12", "--out", str(tmp_path / "searched")]) == 0
    return tmp_path / "searched"


def damage(lines: list[str], what: str) -> list[str]:
    """A trace with something in its sixth line that no run writes."""
    row = json.loads(lines[5])
    if what == "costs":
        row["macs"] += 1
    elif what == "no plan":
        del row["plan"]
    elif what == "no type":
        del row["type"]
    elif what == "more":
        row["color"] = "green"
    return [*lines[:5], "{garbage" if what == "no JSON" else "7" if what == "no record" else json.dumps(row), *lines[6:]]


@pytest.mark.parametrize("what", ["costs", "no plan", "no type", "more", "no JSON", "no record"])
def test_a_damaged_trace_is_refused_in_a_line(
    what: str, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(searched, tmp_path / "damaged")
    path = folder / "trace-random.jsonl"
    text = "\n".join(damage(path.read_text().splitlines(), what)) + "\n"
    path.write_text(text)
    capsys.readouterr()
    assert main(["train", "--resume", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "the run can't go on; start a new one" in told
    assert told.count("\n") == 1
    assert path.read_text() == text
    if what != "costs":
        with pytest.raises(ValueError, match=r"trace-random\.jsonl, line 6 is"):
            Trace.load(path)


def test_a_damaged_best_plan_is_written_anew(searched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(searched, tmp_path / "run")
    (folder / "best_plan.json").write_text("{")
    assert main(["train", "--resume", str(folder)]) == 0
    best = Trace.load(folder / "trace-random.jsonl").best
    assert best is not None
    assert json.loads((folder / "best_plan.json").read_text())["plan"] == json.loads(json.dumps(best.plan.to_dict()))


def left(folder: Path) -> dict[str, bytes]:
    """Policy and logs of a run."""
    files = [folder / "sac.zip", *(folder / "tensorboard").rglob("events*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (tmp_path / "quick.yaml").write_text("learning_starts: 20\nbatch_size: 16\n")
    quick = ["--steps", "60", "--hyperparameters", str(tmp_path / "quick.yaml")]
    assert main(["train", "sac", "--task", "digits-mlp", "--evaluator", "table", *quick, "--out", str(folder)]) == 0
    return folder


def test_policy_and_logs_outlive_a_resumption_that_fails(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, path = left(finished), finished / "trace-sac.jsonl"
    assert len(before) == 3
    lines = path.read_text().splitlines()
    for changed in (0, 30, 61):  # the header, a plan in the middle, the policy's own episode
        record = json.loads(lines[changed])
        key = {"run": "seed", "plan": "rate", "policy": "episode_return"}[record["type"]]
        path.write_text("\n".join([*lines[:changed], json.dumps(record | {key: 7}), *lines[changed + 1 :]]) + "\n")
        assert main(["train", "--resume", str(finished)]) == 1
        assert left(finished)["sac.zip"] == before["sac.zip"]
        if changed < 61:  # all plans were played again by then, so that the new logs tell of all
            assert left(finished) == before
    path.write_text("\n".join(lines) + "\n")

    def interrupted(self: Any, trace: Trace, row: Any, improved: bool) -> None:
        if row.evaluation == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("agents.outputs.BestPlanFile.__call__", interrupted)
        assert main(["train", "--resume", str(finished)]) == 1
    assert left(finished)["sac.zip"] == before["sac.zip"]
    assert not list(finished.glob(".*.before"))
    assert main(["train", "--resume", str(finished)]) == 0
    assert len(left(finished)) == 3
    assert not list(finished.glob(".*.before"))


def test_a_resumption_that_came_further_keeps_what_it_learnt(tmp_path: Path) -> None:
    def run(folder: str, stop: int, resume: bool) -> list[float]:
        def stopping(trace: Trace, row: Any, improved: bool) -> None:
            if row.evaluation == stop:
                raise KeyboardInterrupt

        env = gym.make("ReptilePrune-v0", task="digits-mlp", evaluator="table")
        agent = make_agent("sac", {"learning_starts": 20, "batch_size": 16})
        (tmp_path / folder).mkdir(exist_ok=True)
        with pytest.raises(KeyboardInterrupt):
            agent.run(env, 60, 0, out=tmp_path / folder, listeners=[stopping], resume=resume)
        model: Any = SAC.load(tmp_path / folder / "sac.zip")
        return [value for weights in model.actor.parameters() for value in weights.flatten().tolist()]

    early, late = run("run", 30, resume=False), run("other", 45, resume=False)
    assert early != late
    assert run("run", 25, resume=True) == early
    assert run("run", 45, resume=True) == late


def test_a_run_whose_table_is_gone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["train", "q-learning", "--task", "digits-mlp", "--evaluator", "table", "--steps", "20"]
    assert main([*quick, "--out", str(tmp_path / "first")]) == 0
    (tmp_path / "mine.yaml").write_text(f"table: {tmp_path / 'first' / 'q-learning.npz'}\n")
    assert main([*quick, "--hyperparameters", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "second")]) == 0
    (tmp_path / "first" / "q-learning.npz").unlink()
    before = (tmp_path / "second" / "q-learning.npz").read_bytes()
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "second")]) == 2
    told = capsys.readouterr().err
    assert "is no table that a tabular agent saved" in told
    assert told.count("\n") == 1
    assert (tmp_path / "second" / "q-learning.npz").read_bytes() == before
