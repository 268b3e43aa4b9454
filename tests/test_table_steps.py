"""Steps on a table take short ways: what they give is what the long ones do, whatever happens in between."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.table import TableEvaluator
from tests.helpers import make, stable
from tests.tables import NAME, write_tiny

RULES: list[dict[str, Any]] = [
    {},
    {"observation": "group", "cost": "bytes"},
    {"rounds": 2, "measure": "round", "cost": "params"},
    {"budget": 0.4, "rounds": 2, "observation": "group", "w": 0.6},
    {"prune_probability": 0.5},
]
TYPES = {
    "task": str,
    "group": str,
    "rate_requested": float,
    "rate": float,
    "measured": bool,
    "budget_bit": bool,
    "metric": float,
    "loss": float,
    "params": int,
    "macs": int,
    "bytes": int,
    "utility": float,
    "plan": dict,
    "seconds": float,
}
ways = st.sampled_from(["step", "step", "step", "snapshot", "restore", "deepcopy", "pickle", "render"])


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are looked for in a folder that holds the tiny one, and unpacked beside it."""
    write_tiny(tmp_path)
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))


def measured(env: ReptilePruneEnv, plan: Plan) -> Measurement:
    """What the table holds of a plan that shares no object with those of the environment."""
    evaluator = env.evaluator
    assert isinstance(evaluator, TableEvaluator)
    apart = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert apart == plan
    assert hash(apart) == hash(plan)
    levels = zip(evaluator.grid.levels, apart.widths, evaluator.grid.strides, strict=True)
    row = sum(widths.index(width) * stride for widths, width, stride in levels)
    assert evaluator.grid.find(plan) == evaluator.grid.find(apart) == row
    return evaluator.measurement(row)


def check(env: ReptilePruneEnv, step: tuple[Any, ...], last: Measurement) -> Measurement:
    """Work out anew what a step says of where it led; the measurement that counts from now on."""
    observation, _, _, _, info = step
    here, reference = measured(env, env.plan), env.reference
    assert {name: type(info[name]) for name in TYPES if name != "plan"} | {"plan": dict} == TYPES
    assert isinstance(info["plan"], dict)
    assert list(info)[: len(TYPES)] == list(TYPES)
    assert json.dumps(info)
    assert info["plan"] == env.plan.to_dict()
    assert {name: info[name] for name in ("params", "macs", "bytes")} == here.costs == env.evaluator.costs.all(*env.plan.levels)
    seen = here if info["measured"] else last
    assert env.measurement == seen
    assert (info["metric"], info["loss"], info["utility"]) == (seen.metric, seen.loss, reference.utility(seen))
    assert info["seconds"] == (here.seconds if info["measured"] else 0.0)
    assert observation.dtype == np.float32
    relative = here.cost(reference.cost) / reference.dense.cost(reference.cost)
    if len(observation) == 2 * len(env.groups) + 4:
        expected = np.zeros(len(observation), np.float32)
        expected[: len(env.groups)] = 1 - np.array(env.plan.widths) / np.array(env.evaluator.sizes)
        expected[-4:-2] = reference.quality(seen), relative
        mine = [*range(len(env.groups)), -4, -3]
        assert observation[mine].tolist() == np.clip(expected, 0, 1)[mine].tolist()
    else:
        expected = np.clip(np.array([1 - relative, info["rate"], reference.quality(seen), relative], np.float32), 0, 1)
        assert observation[[13, 17, 18, 19]].tolist() == expected.tolist()
    return seen


@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
@pytest.mark.parametrize("rules", RULES)
@given(path=st.lists(st.tuples(ways, st.floats(0, 0.9)), min_size=4, max_size=24))
def test_every_step_says_what_can_be_worked_out_anew(id: str, rules: dict[str, Any], path: list[tuple[str, float]]) -> None:
    env = make(NAME, id, evaluator="table", render_mode="ansi", **rules)
    env.reset(seed=0)
    seen = env.measurement
    kept = env.snapshot(), seen
    ended, total = False, 0.0
    for way, rate in path:
        if way == "step":
            if ended:
                env.reset()
                seen, ended, total = env.measurement, False, 0.0
                assert seen == env.reference.dense
            before = seen
            step = env.step(env.action_for(rate))
            seen, ended = check(env, step, seen), step[2]
            reference = env.reference
            assert step[1] == (reference.utility(seen) - reference.utility(before)) / reference.scale
            total += step[1]
            assert step[-1].get("return", total) == total
        elif way == "snapshot":
            kept = env.snapshot(), seen
        elif way == "restore":
            env.restore(kept[0])
            seen, ended, total = kept[1], kept[0].position.ended, kept[0].position.total
        elif way == "render":
            assert env.groups[0] in env.render()
        else:
            env = copy.deepcopy(env) if way == "deepcopy" else pickle.loads(pickle.dumps(env))
    plan, measurement = env.best if env._best else (env.plan, env.measurement)
    assert measurement == measured(env, plan) or rules.get("measure") == "round"


def test_info_can_be_written_to() -> None:
    env, twin = (make(NAME, evaluator="table", measure="round") for _ in range(2))
    for each in (env, twin):
        each.reset(seed=0)
    for rate in (0.3, 0.6, 0.3):
        *_, info = env.step(env.action_for(rate))
        *_, expected = twin.step(twin.action_for(rate))
        assert stable(info) == stable(expected)
        for group in info["plan"].values():
            group["keep"] = ()
        info["plan"].clear()
        info.update(dict.fromkeys(info, 0))


def test_a_deep_copy_of_info_is_its_owners() -> None:
    plan = Plan(["a", "b"], [range(8), 5], bits=[4, 32], ranks=[0.5, 1.0]).trained()
    data = plan.to_dict()
    twin = copy.deepcopy(data)
    assert data == twin == pickle.loads(pickle.dumps(data)) == plan.to_dict()
    assert json.dumps(data) == json.dumps(twin) == json.dumps(dict(data))
    assert type(pickle.loads(pickle.dumps(data))) is dict
    assert Plan.from_dict(twin) == plan
    twin["a"]["keep"] = [1]
    twin["@after"]["b"]["bits"] = 2
    del twin["b"]
    again = copy.deepcopy(twin)
    again["a"]["keep"].append(2)
    assert twin["a"] == {"keep": [1], "bits": 4, "rank": 0.5}
    assert data == plan.to_dict()


def test_plans_with_one_group_changed_are_those_made_from_scratch() -> None:
    plan = Plan(["a", "b", "c"], [range(8), 5, range(3)], bits=[32, 4, 8], ranks=[1.0, 0.5, 1.0])
    assert (hash(plan), plan.widths) == (hash(plan), (8, 5, 3))  # what was worked out of one plan is not the other's
    for index, channels, bits, rank in [(0, (1, 2), None, None), (1, 4, 8, None), (2, None, None, 0.3), (2, None, 2, 0.9)]:
        changed = plan.replace(index, channels, bits, rank)
        values = [list(plan.keep), list(plan.bits), list(plan.ranks)]
        for each, value in zip(values, (channels, bits, rank), strict=True):
            each[index] = each[index] if value is None else value
        scratch = Plan(plan.names, *values)
        assert changed == scratch
        assert hash(changed) == hash(scratch)
        assert changed.levels == scratch.levels
        assert pickle.loads(pickle.dumps(changed)) == copy.deepcopy(changed) == scratch
        assert changed != plan
    for wrong in ((0, (2, 1)), (0, ()), (1, 0), (0, None, 9), (0, None, None, 1.5)):
        with pytest.raises(ValueError, match=r"group '[ab]'"):
            plan.replace(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no group number 3"):
        plan.replace(3, (1,))


def test_a_plan_of_other_channels_is_no_row() -> None:
    evaluator = make(NAME, evaluator="table").evaluator
    assert isinstance(evaluator, TableEvaluator)
    row = evaluator.grid.rows // 2
    plan = evaluator.grid.plan(row)
    assert evaluator.grid.find(plan) == row
    worst = sorted(evaluator.grid.orders[0][: plan.widths[0]])
    assert plan.widths[0] < evaluator.sizes[0]
    for other in (plan.replace(0, worst), plan.replace(0, bits=8), plan.replace(0, rank=0.5), plan.trained()):
        with pytest.raises(ValueError, match="table"):
            evaluator.measure(other)
