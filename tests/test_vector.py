"""Many episodes at once: row by row what as many environments give, and Gymnasium's rules for vectors."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from reptile_env.rewards import REWARDS
from reptile_env.vector import ReptileVectorEnv
from tests.helpers import run_python
from tests.tables import NAME, write_tiny

CONTINUOUS, DISCRETE = "ReptilePrune-v0", "ReptilePruneDiscrete-v0"
COUNT = 7
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "group": {"observation": "group"},
    "rounds": {"rounds": 3, "measure": "round"},
    "rounds, group": {"rounds": 2, "measure": "round", "observation": "group"},
    "budget": {"budget": 0.4},
    "budget, rounds": {"budget": 0.3, "rounds": 2, "cost": "params", "observation": "group"},
    "chance": {"prune_probability": 0.6, "budget": 0.5, "rounds": 2},
    "never": {"prune_probability": 0.0},
    "w, cost": {"w": 0.5, "cost": "bytes"},
}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are looked for in a folder that holds the tiny one, and unpacked beside it."""
    write_tiny(tmp_path)
    write_tiny(tmp_path, f"{NAME}@losses", train_loss=True)
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))


def make(id: str = CONTINUOUS, count: int = COUNT, **kwargs: Any) -> ReptileVectorEnv:
    envs = gym.make_vec(id, count, "vector_entry_point", **{"task": NAME, "evaluator": "table"} | kwargs)
    assert isinstance(envs, ReptileVectorEnv)
    return envs


def make_sync(
    id: str = CONTINUOUS, mode: AutoresetMode = AutoresetMode.NEXT_STEP, count: int = COUNT, **kwargs: Any
) -> SyncVectorEnv:
    envs = gym.make_vec(id, count, "sync", {"autoreset_mode": mode}, **{"task": NAME, "evaluator": "table"} | kwargs)
    assert isinstance(envs, SyncVectorEnv)
    return envs


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """The same to the last bit, dtypes too, but for the plans of info."""
    if isinstance(theirs, dict):
        left = {name for name in theirs if name.removeprefix("_") not in ("plan", "row")}
        assert {name for name in ours if name.removeprefix("_") != "row"} == left, where
        for name in left:
            assert_same(ours[name], theirs[name], f"{where} {name}")
    elif isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where} {index}")
    else:
        assert ours.dtype == theirs.dtype, where
        assert ours.shape == theirs.shape, where
        if ours.dtype == object:
            assert [_plain(each) for each in ours] == [_plain(each) for each in theirs], where
        else:
            assert ours.tobytes() == theirs.tobytes(), (where, ours, theirs)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def assert_twins(ours: ReptileVectorEnv, theirs: SyncVectorEnv, steps: int = 40) -> None:
    assert_same(ours.reset(seed=3), theirs.reset(seed=3))
    ours.action_space.seed(0)
    for step in range(steps):
        if step == steps // 2:
            assert_same(ours.reset(), theirs.reset())
        actions = ours.action_space.sample()
        one = ours.step(actions)
        assert_same(one, theirs.step(actions), f"step {step}")
        plans = [env.unwrapped.plan for env in theirs.envs]  # type: ignore[attr-defined]
        assert [ours.evaluator.grid.plan(row) for row in one[-1]["row"]] == plans


@pytest.mark.parametrize("id", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_every_row_is_what_one_environment_gives(id: str, kind: str, mode: AutoresetMode) -> None:
    assert_twins(make(id, autoreset_mode=mode, **KINDS[kind]), make_sync(id, mode, **KINDS[kind]))


@pytest.mark.parametrize("reward", REWARDS)
def test_rewards_by_name_are_the_same(reward: str) -> None:
    assert_twins(make(reward=reward, rounds=2), make_sync(reward=reward, rounds=2))


@pytest.mark.parametrize(
    ("id", "kwargs"),
    [
        (CONTINUOUS, {"max_rate": 0.55}),
        (DISCRETE, {"rates": [0.0, 0.33, 0.8]}),
        (DISCRETE, {"rates": [0.3, 0.6], "budget": 0.35}),
        ("ReptileCompress-v0", {"components": ["rate"], "budget": 0.5}),
    ],
)
def test_rates_are_the_same(id: str, kwargs: dict[str, Any]) -> None:
    assert_twins(make(id, **kwargs), make_sync(id, **kwargs))


@pytest.mark.parametrize("kwargs", [{}, {"budget": 0.3}, {"observation": "group", "rounds": 2, "budget": 0.15}])
def test_it_is_the_same_on_a_built_in_table(kwargs: dict[str, Any]) -> None:
    assert_twins(make(task="digits-mlp", **kwargs), make_sync(task="digits-mlp", **kwargs))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_out_of_step_go_on_as_they_should(mode: AutoresetMode) -> None:
    kwargs: dict[str, Any] = {"rounds": 2, "budget": 0.4, "prune_probability": 0.7}
    ours, theirs = make(autoreset_mode=mode, **kwargs), make_sync(mode=mode, **kwargs)
    generator = np.random.default_rng(0)
    seeds = [int(each) for each in generator.integers(100, size=COUNT)]
    assert_same(ours.reset(seed=seeds), theirs.reset(seed=seeds))
    for _ in range(60):
        ended = ours._at.made == 2 * 3  # type: ignore[union-attr]
        mask = generator.random(COUNT) < 0.1
        if mode is AutoresetMode.DISABLED:
            mask |= ended
        if mask.any():
            assert_same(ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask}))
        actions = ours.action_space.sample()
        assert_same(ours.step(actions), theirs.step(actions))


def test_an_ended_episode_is_not_stepped_where_nothing_starts_it_anew() -> None:
    envs = make(autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded):
        envs.step(envs.action_space.sample())
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(envs.action_space.sample())
    with pytest.raises(ResetNeeded, match="reset_mask"):
        envs.step(envs.action_space.sample())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("kind", ["plain", "rounds", "chance"])
def test_what_was_returned_stays_as_it_is(mode: AutoresetMode, kind: str) -> None:
    envs = make(autoreset_mode=mode, **KINDS[kind])
    envs.reset(seed=0)
    returned, copies = [], []
    for step in range(24):
        mask = np.arange(COUNT) % 3 == step % 5
        results = (
            envs.reset(options={"reset_mask": mask}) if step % 4 == 3 and mask.any() else envs.step(envs.action_space.sample())
        )
        returned.append(results)
        copies.append(copy.deepcopy(results))
    for one, other in zip(returned, copies, strict=True):
        assert_same(one, other)


def test_what_was_returned_can_be_written_to() -> None:
    envs = make(observation="group", rounds=2, measure="round")
    envs.reset(seed=0)
    twin = copy.deepcopy(envs)
    for step in range(8):
        actions = envs.action_space.sample()
        ours = envs.step(actions)
        assert_same(ours, twin.step(actions), f"step {step}")
        for array in [*ours[:4], *(values for name, values in ours[-1].items() if not name.startswith("_"))]:
            array[...] = 1
        mask = np.arange(COUNT) == step
        if mask.any():
            assert_same(envs.reset(options={"reset_mask": mask})[0], twin.reset(options={"reset_mask": mask})[0])


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_lives_on_by_itself(how: str) -> None:
    envs = make(prune_probability=0.5)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    twin = pickle.loads(pickle.dumps(envs)) if how == "pickle" else copy.deepcopy(envs)
    for _ in range(6):
        actions = envs.action_space.sample()
        assert_same(twin.step(actions), envs.step(actions))


@pytest.mark.parametrize("id", [CONTINUOUS, DISCRETE])
def test_actions_outside_the_space_change_nothing(id: str) -> None:
    envs = make(id)
    envs.reset(seed=0)
    good = envs.action_space.sample()
    twin = copy.deepcopy(envs)
    wrong = [good[:-1], good.astype(str), good + 20, good - 20]
    wrong += [np.where(np.arange(COUNT)[:, None] == 3, np.nan, good), good[:, 0]] if id == CONTINUOUS else [good.astype(float)]
    for actions in wrong:
        with pytest.raises(ValueError, match=r"actions (are|reach)"):
            envs.step(actions)
    assert_same(envs.step(good), twin.step(good))


def test_actions_of_environments_that_start_anew_do_not_matter() -> None:
    envs = make()
    start, _ = envs.reset(seed=0)
    for _ in range(3):
        envs.step(envs.action_space.sample())
    observations, rewards, ends, _, infos = envs.step(np.full((COUNT, 1), np.nan))
    np.testing.assert_array_equal(observations, start)
    assert not rewards.any()
    assert not ends.any()
    assert "return" not in infos


class TestWhichOneIsMade:
    def test_a_table_gives_ours_and_all_else_gymnasiums(self) -> None:
        assert isinstance(gym.make_vec(CONTINUOUS, 2, task=NAME, evaluator="table"), ReptileVectorEnv)
        assert isinstance(gym.make_vec(CONTINUOUS, 2, task=NAME, evaluator="table", disable_env_checker=True), ReptileVectorEnv)
        others: list[dict[str, Any]] = [
            {"task": "digits-mlp"},
            {"evaluator": "table", "reward": lambda t: 0.0},
            {"evaluator": "table", "render_mode": "ansi"},
            {"evaluator": "table", "max_episode_steps": 2},
            {"task": [NAME, "digits-mlp"], "evaluator": "table", "observation": "group"},
        ]
        for kwargs in others:
            envs = gym.make_vec(CONTINUOUS, 2, autoreset_mode="SameStep", **{"task": NAME} | kwargs)
            assert isinstance(envs, SyncVectorEnv), kwargs
            assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
            envs.reset(seed=0)
            assert envs.step(envs.action_space.sample())[0].shape == envs.observation_space.shape

    def test_ids_keep_their_defaults(self) -> None:
        assert gym.make_vec(DISCRETE, 2, task="digits-mlp").single_action_space == gym.spaces.Discrete(10)
        assert gym.make_vec("ReptileCompress-v0", 2, task="digits-mlp", recovery="none").action_space.shape == (2, 3)

    @pytest.mark.parametrize(
        ("kwargs", "said"),
        [
            ({"evaluator": "live", "task": "digits-mlp"}, "evaluator='table'"),
            ({"reward": lambda t: 0.0}, "by name"),
            ({"render_mode": "ansi"}, "not drawn"),
            ({"task": [NAME, "digits-mlp"], "observation": "group"}, "one task"),
        ],
    )
    def test_what_it_can_not_play_it_refuses(self, kwargs: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            ReptileVectorEnv(2, **{"task": NAME, "evaluator": "table"} | kwargs)

    def test_bad_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            make(count=0)
        with pytest.raises(TypeError, match="whole number"):
            make(count=2.5)  # type: ignore[arg-type]
        envs = make()
        with pytest.raises(TypeError, match="bool"):
            envs.reset(seed=True)
        with pytest.raises(ValueError, match="one for each"):
            envs.reset(seed=[1, 2])
        with pytest.raises(ValueError, match="reset_mask"):
            envs.reset(options={"reset_mask": np.zeros(COUNT, bool)})
        with pytest.raises(ValueError, match="reset option"):
            envs.reset(options={"tusk": NAME})

    def test_no_torch_is_loaded(self) -> None:
        found = run_python(
            """
            import sys
            import gymnasium as gym
            import reptile_env
            envs = gym.make_vec("ReptilePrune-v0", num_envs=64, task="digits-mlp", evaluator="table")
            envs.reset(seed=0)
            print(envs.step(envs.action_space.sample())[0].shape, "torch" in sys.modules)
            """
        )
        assert (found.returncode, found.stdout, found.stderr) == (0, "(64, 14) False\n", "")


def test_gymnasiums_wrappers_go_on_top() -> None:
    envs = RecordEpisodeStatistics(make())
    envs.reset(seed=0)
    for _ in range(3):
        *_, infos = envs.step(envs.action_space.sample())
    np.testing.assert_allclose(infos["episode"]["r"], infos["return"])
    assert infos["episode"]["l"].tolist() == [3] * COUNT
    listed = DictInfoToList(make())
    _, each = listed.reset(seed=0)
    assert [info["group"] for info in each] == [""] * COUNT


def test_the_optimum_can_be_played() -> None:
    envs = make(count=2)
    plan, value = envs.single.optimum()
    envs.reset(seed=0)
    for size, width in zip(envs.evaluator.sizes, plan.widths, strict=True):
        *_, infos = envs.step(np.stack([envs.single.action_for(1 - width / size)] * 2))
    assert infos["return"] == pytest.approx([value] * 2)
    assert envs.evaluator.grid.plan(infos["row"][1]) == plan


def test_seeds_are_one_more_each() -> None:
    envs = make(prune_probability=0.5)
    envs.reset(seed=11)
    assert envs.np_random_seed == tuple(range(11, 11 + COUNT))
    drawn = [each.random() for each in copy.deepcopy(envs.np_random)]
    assert drawn == [np.random.default_rng(11 + i).random() for i in range(COUNT)]
