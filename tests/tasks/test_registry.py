from __future__ import annotations

import json
import math
import pickle
import re
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import reptile_env
from reptile_env.tasks import registry
from reptile_env.tasks.registry import UNKNOWN, Anchors, TaskSpec, anchors_on, known_anchors, make_task, references, register_task
from reptile_env.tasks.task import Task
from tests.helpers import episode, make, small_task


def test_every_task_is_listed_with_what_it_is() -> None:
    rows = {row["name"]: row for row in reptile_env.tasks()}
    assert {"digits-cnn", "digits-mlp"} <= rows.keys()
    described = {"name", "family", "data", "licence", "suite", "split"}
    calibrated = {"groups", "params", "macs", "valid", "test", "uniform_rate", "best_known", "seconds", "step_seconds"}
    for row in rows.values():
        assert row.keys() == described | calibrated | {"reported"}
        assert all(row[key] for key in described)
        assert json.loads(json.dumps(row)) == row


def test_the_list_tells_the_truth(builtin: str) -> None:
    row = next(row for row in reptile_env.tasks() if row["name"] == builtin)
    env = make(builtin)
    assert row["groups"] == len(env.groups)
    assert row["params"] == sum(p.numel() for p in env.evaluator.task.model.parameters())
    assert row["macs"] == env.reference.dense.macs
    assert row["uniform_rate"] == env.reference.uniform_rate
    assert row["valid"] == pytest.approx(env.reference.dense.metric, abs=1.5 / 450)
    assert row["family"] == env.evaluator.task.family


def test_a_built_in_task_is_made_once(builtin: str) -> None:
    task = reptile_env.make_task(builtin)
    assert reptile_env.make_task(builtin) is task
    assert pickle.loads(pickle.dumps(task)) is task


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already; choose another name"):
        register_task(TaskSpec("digits-cnn", "cnn", "", "", "a:b"))


@pytest.mark.parametrize(
    ("builder", "error", "message"),
    [
        (lambda name: small_task(name), None, ""),
        (lambda name: small_task("another"), ValueError, r"must return .* of that name, it returned Task 'another'; .*name=name"),
        (lambda name: (1, 2), ValueError, "it returned tuple None"),
        ("own_tasks", ValueError, "'own_tasks' names no function; write module:function"),
        ("own_tasks:nothing", ImportError, "module 'own_tasks' has no 'nothing'"),
    ],
)
def test_what_a_registered_builder_makes_is_checked(
    builder: Any, error: type[Exception] | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("own_tasks")
    module.build = builder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    path = builder if isinstance(builder, str) else "own_tasks:build"
    register_task(TaskSpec("of-ones-own", "mlp", "points", "MIT", path))
    if error is not None:
        with pytest.raises(error, match=message):
            make_task.__wrapped__("of-ones-own")  # make_task remembers the one that is made below
        return
    task = make_task("of-ones-own")
    assert pickle.loads(pickle.dumps(task)) is task


def test_splits_are_apart_and_whole(builtin: str) -> None:
    task = make_task(builtin)
    parts = [task.train.fingerprints(), task.valid.fingerprints(), task.test_split().fingerprints()]
    assert sum(map(len, parts)) == len(set().union(*parts)) > 1700
    assert [len(task.train), len(task.valid), len(task.test_split())] == [897, 450, 450]
    for split in (task.train, task.valid, task.test_split()):
        assert torch.bincount(split.targets).min() > 30


def test_the_calibration_in_the_repository_is_of_the_networks_in_it(builtin: str) -> None:
    known, env = references()[builtin], make(builtin)
    assert known["dense"]["valid"] == pytest.approx(env.reference.dense.metric, abs=1.5 / 450)
    assert known["w"] == env.reference.w
    assert known["scale"] == pytest.approx(env.reference.scale, abs=0.01)


def test_built_in_tasks_have_head_room(builtin: str) -> None:
    known = references()[builtin]
    assert known["random"]["mean"] < 0 < 1 < known["random"]["best_of_200"] < known["best_known"]["return"]


def test_the_best_known_return_is_for_its_settings_alone(builtin: str) -> None:
    env = make(builtin)
    settings, uniform = env.evaluator.settings, env.reference.uniform_rate
    best = references()[builtin]["best_known"]["return"]
    assert known_anchors(builtin, settings, "macs", uniform, None) == (1.0, best)
    for cost, rate, budget in (("params", uniform, None), ("macs", uniform + 0.05, None), ("macs", uniform, 0.4321)):
        assert math.isnan(known_anchors(builtin, settings, cost, rate, budget).best)
    scale, w = env.reference.scale, env.reference.w
    assert anchors_on(scale, w, builtin, settings, "macs", uniform, None) == (1.0, best)
    assert math.isnan(anchors_on(scale, w / 2, builtin, settings, "macs", uniform, None).best)
    for arguments in ({"max_rate": 0.5}, {"recovery": "none", "w": None}, {"cost": "params"}, {"budget": 0.4321}, {"rounds": 2}):
        assert math.isnan(episode(make(builtin, **arguments), 0.2)[1]["score"])
    score = episode(env, uniform)[1]["score"]
    assert score == pytest.approx(0, abs=1e-9)
    by_list = make(builtin, id="ReptilePruneDiscrete-v0")
    assert episode(by_list, uniform)[1]["score"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("arguments", [{}, {"budget": 0.75}])
def test_rates_that_lack_the_best_uniform_one_score_plans_alike(arguments: dict[str, float]) -> None:
    # Their best uniform rate is another, so a return of 1 is; the score of a plan is what it is among all rates.
    scores, returns = [], []
    for id in ("ReptilePrune-v0", "ReptilePruneDiscrete-v0"):
        env = make("mnist1d-gru", id=id, **arguments)
        total, info = episode(env, 0.2)
        scores.append(info["score"])
        returns.append(total)
        assert env.score(total) == info["score"]
    assert make("mnist1d-gru").reference.uniform_rate == 0.35
    assert abs(returns[0] - returns[1]) > 0.01
    assert scores[0] == pytest.approx(scores[1], abs=0.01)  # processors differ in the scale's last digits
    assert scores[0] < 0


def test_a_task_of_ones_own_has_no_score_whatever_its_name(builtin: str) -> None:
    theirs = make_task(builtin)
    own = Task(theirs.model, theirs.train, theirs.valid, name=builtin, w=theirs.w)
    for task, known in ((theirs, True), (own, False)):
        env = make(task)
        assert math.isfinite(episode(env, env.reference.uniform_rate)[1]["score"]) == known


def test_where_no_plan_beats_the_best_uniform_rate_there_is_no_score() -> None:
    # As under a budget that leaves one plan.
    for anchors in (Anchors(0.5, 0.5), UNKNOWN):
        assert math.isnan(anchors.score(0.5))
        assert np.isnan(anchors.score(np.array([0.5, -1.0]))).all()
    assert Anchors(0.5, 1.5).score(1.0) == 0.5


def test_the_best_known_plan_returns_what_is_said(builtin: str) -> None:
    known, env = references()[builtin]["best_known"], make(builtin)
    measured = env.measure(reptile_env.Plan.from_dict(known["plan"]))
    # Another machine may see one validation example differently.
    one_example = env.reference.w / (450 * env.reference.dense.metric) / env.reference.scale
    assert env.reference.return_of(measured) == pytest.approx(known["return"], abs=1.01 * one_example)


def test_every_best_known_plan_says_what_finds_it_again() -> None:
    for name, known in references().items():
        for cap, part in {"": known, **known.get("budgets", {})}.items():
            command = part["best_known"]["command"]
            trained = (
                rf"python -m agents train [a-z0-9-]+ --task {name} --steps (\d+) --seed \d+( --budget {re.escape(cap)})?( .*)?"
            )
            if found := re.fullmatch(trained, command):
                assert found[2] or int(found[1]) >= 5000
            else:
                assert command.startswith("python -m benchmarks ")
                assert name in command
