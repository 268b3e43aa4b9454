"""Runs on several networks: what the trace says of them, and who is marked for having met a test network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.__main__ import main
from agents.registry import make_agent
from agents.trace import Trace

ID = "ReptilePruneTransfer-v0"
# Quick networks of unequal numbers of groups.
FEW = ["transfer-mlp-3", "transfer-mlp-4", "transfer-gru-1"]
QUICK = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}


def run(evaluations: int = 90, out: Path | None = None, resume: bool = False, **kwargs: Any) -> Trace:
    return make_agent("ppo-group", QUICK).run(gym.make(ID, **kwargs), evaluations, 0, out=out, resume=resume)


def test_rows_name_their_networks(tmp_path: Path) -> None:
    trace = run(task=FEW, out=tmp_path)
    assert trace.task == "transfer-train"
    assert trace.env_settings["task"] == FEW
    assert set(trace.networks) == set(FEW)
    assert trace.test_networks == ()
    for row in trace.rows:
        assert ("layers.0" in row.plan.names) == (row.network == "transfer-gru-1")
    read = Trace.load(tmp_path / "trace-ppo-group.jsonl")
    assert read.rows == trace.rows
    assert read.networks == trace.networks
    assert trace.best is not None
    assert trace.best.plan_return == max(row.plan_return for row in trace.rows)


def test_the_policy_plays_a_last_episode_within_the_evaluations() -> None:
    trace = run(task=FEW)
    assert trace.policy is not None
    assert trace.policy.evaluation == len(trace.rows) <= 90
    last = trace.rows[-1]
    assert trace.policy.episode_return == pytest.approx(last.plan_return)


def test_an_interrupted_run_goes_on_over_several_networks(tmp_path: Path) -> None:
    whole = run(task=FEW, out=tmp_path)
    path = tmp_path / "trace-ppo-group.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:40]), encoding="utf-8")
    again = run(task=FEW, out=tmp_path, resume=True)
    assert [(row.network, row.plan, row.plan_return) for row in again.rows] == [
        (row.network, row.plan, row.plan_return) for row in whole.rows
    ]


def test_who_trains_on_a_test_network_is_marked() -> None:
    assert run(40, split="test", task=["transfer-mlp-7", "transfer-mlp-8"]).test_networks
    alone = gym.make("ReptilePrune-v0", task="transfer-mlp-7", measure="round")
    assert make_agent("random").run(alone, 3, 0).test_networks == ("transfer-mlp-7",)
    other = gym.make("ReptilePrune-v0", task="transfer-mlp-3", measure="round")
    assert make_agent("random").run(other, 3, 0).test_networks == ()


@pytest.mark.parametrize(("network", "marked"), [("transfer-mlp-7", True), ("transfer-mlp-3", False)])
def test_the_results_of_who_trains_on_a_test_network_say_so(
    network: str, marked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "random", "--task", network, "--steps", "3", "--out", str(tmp_path / "run")]) == 0
    kept = json.loads((tmp_path / "run" / "best_plan.json").read_text(encoding="utf-8"))
    assert kept.get("test_networks") == ([network] if marked else None)
    assert (f"trained on test networks, so no score of a policy on them counts: {network}" in capsys.readouterr().out) is marked


def test_a_search_is_on_one_network() -> None:
    with pytest.raises(ValueError, match="'cma-es' searches the plans of one network and learns no policy"):
        make_agent("cma-es").run(gym.make(ID, task=FEW), 10, 0)
    with pytest.raises(ValueError, match="a run has one task"):
        make_agent("ppo-group", QUICK).run(gym.make("ReptilePrune-v0", task=FEW, observation="group"), 40, 0)
    trace = make_agent("cma-es").run(gym.make(ID, task=FEW[:1], measure="round"), 3, 0)
    assert (trace.task, trace.networks) == (FEW[0], (FEW[0],))
