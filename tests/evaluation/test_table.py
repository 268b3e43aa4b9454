"""An environment on a table: the spaces and floats of the running network, no torch."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation import table
from reptile_env.evaluation.live import live_evaluator
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.tasks.task import Task
from tests.helpers import make, play, random_actions, run_python, stable
from tests.tables import NAME, tiny, tiny_task, write_tiny


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables are looked for in a folder that holds the tiny one, and unpacked beside it."""
    tables = tmp_path / "tables"
    tables.mkdir()
    write_tiny(tables)
    monkeypatch.setenv("REPTILE_TABLES", str(tables))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    return tables


def looked_up(**kwargs: Any) -> ReptilePruneEnv:
    return make(NAME, evaluator="table", **kwargs)


def evaluator_of(env: ReptilePruneEnv) -> TableEvaluator:
    assert isinstance(env.evaluator, TableEvaluator)
    return env.evaluator


def test_every_row_is_what_the_running_network_measures() -> None:
    evaluator, live = evaluator_of(looked_up()), live_evaluator(tiny_task(), Settings())
    for row in range(evaluator.grid.rows):
        plan = evaluator.grid.plan(row)
        assert evaluator.measure(plan) == evaluator.measurement(row) == live.measure(plan)
        assert evaluator.test(plan) == live.test(plan)
        assert evaluator.measure(plan).seconds == evaluator.columns["seconds"][row] > 0


def test_what_describes_the_network_is_the_same() -> None:
    evaluator, live = evaluator_of(looked_up()), live_evaluator(tiny_task(), Settings())
    for name in ("name", "group_names", "sizes", "rankable", "features", "dense", "higher_is_better", "metric_name", "w"):
        assert getattr(evaluator, name) == getattr(live, name)
    assert evaluator.sensitivity() == live.sensitivity()
    widths = [(24, 12, 16), (3, 12, 5), (1, 1, 1)]
    assert [list(evaluator.costs.all(each).items()) for each in widths] == [list(live.costs.all(each).items()) for each in widths]
    coded = [each.costs.cost("bytes", widths, [[8, 4, 2]] * 3) for each in (evaluator, live)]
    np.testing.assert_array_equal(*coded)


@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
@pytest.mark.parametrize("kwargs", [{}, {"cost": "params", "w": 0.7}, {"observation": "group", "measure": "round"}])
def test_returns_stand_on_the_same_scale(id: str, kwargs: dict[str, Any]) -> None:
    env, live = make(NAME, id, evaluator="table", **kwargs), make(tiny_task(), id, **kwargs)
    assert env.reference == live.reference
    assert (env.observation_space, env.action_space) == (live.observation_space, live.action_space)
    rate = live.reference.uniform_rate
    assert env.reference.return_of(env.measure(uniform_plan(env.evaluator, rate))) == 1


@pytest.mark.parametrize("kwargs", [{}, {"observation": "group"}, {"measure": "round", "rounds": 2}, {"reward": "amc_macs"}])
def test_an_episode_of_the_same_cuts_is_the_same_bit_for_bit(kwargs: dict[str, Any]) -> None:
    env, live = looked_up(**kwargs), make(tiny_task(), **kwargs)
    grid = evaluator_of(env).grid
    generator = np.random.default_rng(0)
    for _ in range(20):
        seen = [env.reset(seed=0), live.reset(seed=0)]
        assert seen[0][0].tolist() == seen[1][0].tolist()
        ended = False
        while not ended:
            group, width = env._at.group, env.plan.widths[env._at.group]
            rate = float(generator.choice(grid.counts(group, width))) / width
            action = live.action_for(min(rate, 0.9))
            ours, theirs = play(env, [action])[0], play(live, [action])[0]
            assert ours == theirs
            ended = ours[2]


def test_any_action_is_carried_out_as_the_nearest_width() -> None:
    env = looked_up()
    for action in random_actions(env, 30):
        env.reset(seed=0)
        for group, widths in enumerate(evaluator_of(env).grid.levels):
            *_, info = env.step(action)
            size = widths[0]
            wanted = size * (1 - info["rate_requested"])
            assert info["rate"] == (size - env.plan.widths[group]) / size
            assert abs(env.plan.widths[group] - wanted) <= min(abs(width - wanted) for width in widths) + 1
            assert env.plan.widths[group] in widths
        assert info["plan"] == env.plan.to_dict() == json.loads(json.dumps(info["plan"]), object_hook=_tuples)


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def test_the_clock_is_the_recorded_one() -> None:
    env = looked_up()
    env.reset(seed=0)
    infos = [env.step(env.action_for(0.3))[4] for _ in env.groups]
    rows = [evaluator_of(env).grid.row(env.plan)]
    assert infos[-1]["seconds"] == evaluator_of(env).columns["seconds"][rows[0]]


def test_compression_goes_on_from_round_to_round() -> None:
    env = looked_up(rounds=2)
    env.reset(seed=0)
    for _ in range(2 * len(env.groups)):
        *_, ended, _, _ = env.step(env.action_for(0.35))
    assert ended
    assert env.plan.widths == tuple(_twice(widths) for widths in evaluator_of(env).grid.levels)


def _twice(widths: tuple[int, ...]) -> int:
    for _ in range(2):
        target = widths[0] - int(0.35 * widths[0] + 0.5001)
        widths = tuple(each for each in widths if each <= min(widths, key=lambda w: (abs(w - target), -w)))
    return widths[0]


@pytest.mark.parametrize("budget", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
def test_a_budget_is_met_with_the_widths_that_there_are(budget: float, rounds: int, id: str) -> None:
    env = make(NAME, id, evaluator="table", budget=budget, rounds=rounds)
    bitten = False
    for rate in (0.0, 0.2, 0.5, 0.9):
        env.reset(seed=0)
        for _ in range(rounds * len(env.groups)):
            *_, info = env.step(env.action_for(rate))
            bitten |= info["budget_bit"]
            assert evaluator_of(env).grid.find(env.plan) is not None
        assert info["macs"] <= budget * env.reference.dense.macs
    assert bitten
    with pytest.raises(ValueError, match="can't be reached"):
        make(NAME, id, evaluator="table", budget=0.001, rounds=rounds)


def test_no_torch_is_loaded() -> None:
    found = run_python(
        f"""
        import sys, warnings
        warnings.simplefilter("error")
        import gymnasium as gym
        import reptile_env
        env = gym.make("ReptilePrune-v0", task={NAME!r}, evaluator="table", observation="group", budget=0.5, render_mode="ansi")
        env.reset(seed=0)
        ended = False
        while not ended:
            _, reward, ended, _, info = env.step(env.action_space.sample())
            env.render()
        inner = env.unwrapped
        inner.restore(inner.snapshot())
        inner.best, inner.optimum()
        assert "return" in info
        assert not [name for name in ("torch", "sklearn", "scipy", "torch_pruning", "safetensors") if name in sys.modules]
        """
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_environments_share_one_evaluator_also_as_copies_and_pickles() -> None:
    env = looked_up()
    env.reset(seed=0)
    evaluator = env.evaluator
    assert looked_up(cost="params").evaluator is evaluator
    assert copy.deepcopy(env).evaluator is evaluator
    assert pickle.loads(pickle.dumps(evaluator)) is evaluator
    twin = pickle.loads(pickle.dumps(env))
    actions = random_actions(env, len(env.groups))
    assert play(twin, actions) == play(env, actions)


def test_train_losses_are_there_for_the_rewards_that_need_them(folders: Path) -> None:
    with pytest.raises(ValueError, match=r"no table of these settings; it has: recovery='reconstruct'.*train_loss=False"):
        looked_up(reward="loss")
    write_tiny(folders, f"{NAME}@losses", train_loss=True)
    env, live = looked_up(reward="loss"), make(tiny_task(), reward="loss")
    env.reset(seed=0), live.reset(seed=0)
    actions = [env.action_for(0.3)] * 3
    assert play(env, actions) == play(live, actions)
    (folders / f"{NAME}.table").unlink()
    plain = looked_up()
    assert plain.measure(plain.evaluator.dense).train_loss is None


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"recovery": "none"}, "it has: recovery='reconstruct', importance='l1'"),
        ({"importance": "l2"}, "python -m benchmarks table tiny"),
        ({"residual_width": True}, "residual_width=False"),
        ({"granularity": "2:4"}, "use evaluator='live'"),
        ({"recovery": "reconstruct+finetune"}, "without 'finetune'"),
        ({"cost": "latency"}, "measured on one machine"),
    ],
)
def test_other_settings_are_refused_with_those_of_the_table(kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        looked_up(**kwargs)


def test_settings_that_touch_no_float_plan_are_not_asked_about() -> None:
    assert looked_up(rounding="nearest", finetune={"steps": 7}).evaluator.settings.rounding == "nearest"


def test_bits_and_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"components=\['rate'\]"):
        make(NAME, "ReptileCompress-v0", evaluator="table")
    env = make(NAME, "ReptileCompress-v0", evaluator="table", components=["rate"])
    env.reset(seed=0)
    env.step(env.action_space.sample())
    with pytest.raises(ValueError, match="float plans of whole layers"):
        env.measure(env.plan.replace(0, bits=4))


def test_tasks_without_a_table_are_refused(user_task: Task) -> None:
    with pytest.raises(ValueError, match=r"takes a task by name, got Task; build .*python -m benchmarks table module:function"):
        make(user_task, evaluator="table")
    with pytest.raises(ValueError, match=r"'nothing' has no table; `python -m benchmarks table nothing --out FILE`"):
        make("nothing", evaluator="table")


def test_settings_of_a_table_are_read_from_it(folders: Path) -> None:
    path = write_tiny(folders, f"{NAME}@none", recovery="none")
    head = table.open_table(path).head
    assert head.settings == Settings(recovery="none")
    assert head.weights == tiny()[1].weights
    assert set(head.made_by) == {"versions", "machine", "threads"}
    assert looked_up(recovery="none").evaluator.settings == Settings(recovery="none")


@pytest.mark.parametrize("id", ["ReptilePrune-v0", "ReptilePruneDiscrete-v0"])
def test_it_is_an_environment_as_gymnasium_checks_it(id: str) -> None:
    check_env(make(NAME, id, evaluator="table"), skip_render_check=True)


def test_rewards_and_infos_of_twins_are_equal() -> None:
    first, second = looked_up(prune_probability=0.5), looked_up(prune_probability=0.5)
    actions = random_actions(first, len(first.groups))
    starts = [env.reset(seed=3) for env in (first, second)]
    assert stable(starts[0][1]) == stable(starts[1][1])
    assert play(first, actions) == play(second, actions)
