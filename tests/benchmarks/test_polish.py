"""``python -m benchmarks polish``: from a polished plan no change of one group leads to a better one."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.cli import run as run_app
from benchmarks import polish as polishing
from benchmarks import task_commands
from benchmarks.__main__ import app
from benchmarks.budgets import inner_of
from benchmarks.plans import cut_to
from benchmarks.polish import polished, with_polished
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks import registry

TASK = "digits-mlp"
WORSE = ([60, 10, 40, 9, 30], [100, 12, 60, 12, 50])


@pytest.fixture(scope="module")
def inner() -> ReptilePruneEnv:
    return inner_of(gym.make("ReptilePrune-v0", task=TASK, measure="round"))


@pytest.mark.parametrize("cap", [math.inf, 0.207])  # without a cap it ends at 0.209
def test_no_group_alone_can_be_bettered(cap: float, inner: ReptilePruneEnv) -> None:
    evaluator, reference = inner.evaluator, inner.reference
    start = cut_to(evaluator, WORSE[0])
    end = polished(inner, start, 0.9, cap, tell=lambda text: None)
    best = reference.return_of(inner.measure(end))
    assert best > reference.return_of(inner.measure(start))
    assert inner.measure(end).macs <= cap * reference.dense.macs
    for group, size in enumerate(evaluator.sizes):
        for width in range(math.ceil(0.1 * size), size + 1):
            widths = [int(each) for each in end.widths]
            widths[group] = width
            measured = inner.measure(cut_to(evaluator, widths))
            assert reference.return_of(measured) <= best or measured.macs > cap * reference.dense.macs


def test_a_plan_beyond_the_cap_is_refused(inner: ReptilePruneEnv) -> None:
    with pytest.raises(ValueError, match=r"has 0\.206 of the macs, and at most 0\.1 are allowed"):
        polished(inner, cut_to(inner.evaluator, WORSE[0]), 0.9, 0.1)


def test_an_entry_tells_what_was_done_and_every_cap_is_kept(inner: ReptilePruneEnv) -> None:
    entry = json.loads(json.dumps(registry.references()[TASK]))
    worse = cut_to(inner.evaluator, WORSE[1]).to_dict()
    entry["best_known"] |= {"return": -1.0, "plan": worse, "found_by": "somebody", "command": "a command"}
    before = copy.deepcopy(entry)
    after = with_polished(TASK, entry, lambda text: None)
    assert entry == before
    best = after["best_known"]
    assert best["return"] == inner.reference.return_of(inner.measure(Plan.from_dict(best["plan"]))) > 1
    assert best["found_by"].startswith(
        ("somebody, polished", registry.references()[TASK]["budgets"]["0.75"]["best_known"]["found_by"])
    )
    assert "python -m benchmarks polish digits-mlp" in best["command"]
    assert best["test"] == inner.evaluator.test(Plan.from_dict(best["plan"])).metric
    for cap, part in after["budgets"].items():
        assert part["best_known"]["relative_cost"] <= float(cap)
        assert part["best_known"]["return"] >= before["budgets"][cap]["best_known"]["return"] - 0.05
    again = with_polished(TASK, after, lambda text: None)
    assert again["best_known"]["return"] == best["return"]


def test_the_command_writes_what_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    file = tmp_path / "references.json"
    monkeypatch.setattr(task_commands, "REFERENCES", file)
    before = json.loads(json.dumps(registry.references()[TASK]))
    file.write_text(json.dumps({TASK: before}))
    better = copy.deepcopy(before)
    better["best_known"]["return"] += 1
    monkeypatch.setattr(polishing, "with_polished", lambda name, entry, tell: better)
    arguments = (app, "python -m benchmarks", "a command")
    assert run_app(*arguments, ["polish", TASK]) == 0
    assert json.loads(file.read_text()) == {TASK: better}
    assert "digits-mlp: 1." in capsys.readouterr().out
    file.write_text(json.dumps({TASK: before | {"w": 0.1}}))
    assert run_app(*arguments, ["polish", TASK]) == 1
    assert "another process has changed it" in capsys.readouterr().err
    assert run_app(*arguments, ["polish", "no-such-task"]) == 2
    assert "no plan of such a task" in " ".join(capsys.readouterr().err.split())
