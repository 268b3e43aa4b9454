"""Every registered id, whatever it is: what Gymnasium and its users expect of it."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import reptile_env
from reptile_env.env import ReptilePruneEnv
from tests.helpers import make as make_one
from tests.helpers import play, random_actions, run_python, stable

IDS = sorted(spec.id for spec in gym.registry.values() if str(spec.entry_point).startswith(f"{reptile_env.__name__}."))
every_id = pytest.mark.parametrize("id", IDS)
# The quickest way to quantize; no matter to ids without bits.
QUICK = {"rounding": "nearest"}


def make(task: Any, id: str = "ReptilePrune-v0", **kwargs: Any) -> ReptilePruneEnv:
    """An environment without its wrappers."""
    return make_one(task, id, **QUICK, **kwargs)


def test_the_ids_are_registered() -> None:
    assert {"ReptilePrune-v0", "ReptilePruneDiscrete-v0", "ReptileCompress-v0"} <= set(IDS)


@every_id
def test_gymnasium_finds_nothing_to_say(id: str, builtin: str) -> None:
    env = gym.make(id, task=builtin, disable_env_checker=True, **QUICK).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


@every_id
@pytest.mark.parametrize("settings", [{}, {"observation": "group"}, {"budget": 0.5, "rounds": 2, "prune_probability": 0.5}])
def test_stable_baselines3_finds_nothing_to_say(id: str, settings: dict[str, Any], builtin: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(make(builtin, id, **settings), warn=True)


@every_id
def test_twins_live_the_same_life(id: str, builtin: str) -> None:
    first, second = (make(builtin, id, prune_probability=0.7) for _ in range(2))
    for seed in (3, None):
        one, other = first.reset(seed=seed), second.reset(seed=seed)
        np.testing.assert_array_equal(one[0], other[0])
        assert stable(one[1]) == stable(other[1])
        actions = random_actions(first, len(first.groups), seed=1)
        assert play(first, actions) == play(second, actions)


@every_id
def test_the_episode_ends_terminated_and_is_never_truncated(id: str, builtin: str) -> None:
    env = make(builtin, id, rounds=2)
    env.reset(seed=0)
    steps = play(env, random_actions(env, 2 * len(env.groups)))
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * (len(steps) - 1) + [True]
    assert not any(truncated for _, _, _, truncated, _ in steps)
    assert [info["group"] for *_, info in steps] == list(env.groups) * 2


@every_id
@pytest.mark.parametrize("mode", ["ansi", "rgb_array", "human"])
def test_it_renders(id: str, mode: str, builtin: str) -> None:
    env = gym.make(id, task=builtin, render_mode=mode, budget=0.5, **QUICK)
    env.unwrapped.metadata["render_fps"] = 1000
    env.reset(seed=0)
    before = env.render()
    env.step(env.unwrapped.action_for(0.5))
    after = env.render()
    if mode == "human":
        assert before is None
        assert after is None
    elif mode == "rgb_array":
        assert before.dtype == np.uint8
        assert before.shape == after.shape == (480, 800, 3)
        assert (before != after).any()
    else:
        assert before != after
    env.close()


@every_id
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_lives_on_by_itself(id: str, how: str, builtin: str) -> None:
    env = make(builtin, id, prune_probability=0.7, render_mode="human")
    env.metadata["render_fps"] = 1000
    env.reset(seed=5)
    actions = random_actions(env, len(env.groups), seed=2)
    env.step(actions[0])
    twin = pickle.loads(pickle.dumps(env)) if how == "pickle" else copy.deepcopy(env)
    went_on = play(twin, actions[1:])
    assert env.plan.widths[1:] == env.evaluator.sizes[1:], "the original moved with its copy"
    assert play(env, actions[1:]) == went_on
    twin.close()
    env.close()


@every_id
def test_its_spec_survives_json(id: str) -> None:
    env = gym.make(id, task="digits-mlp", budget=0.6, observation="group", rounds=2)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec.kwargs == env.spec.kwargs
    assert again.observation_space == env.observation_space
    env.reset(seed=0)
    again.reset(seed=0)
    actions = random_actions(env.unwrapped, 4)
    assert play(env.unwrapped, actions) == play(again.unwrapped, actions)


@every_id
def test_info_is_plain_data(id: str, builtin: str) -> None:
    env = make(builtin, id)
    _, info = env.reset(seed=0)
    steps = play(env, random_actions(env, len(env.groups)))
    for each in (info, steps[-1][-1]):
        assert json.loads(json.dumps(each))["plan"].keys() == set(env.groups)
    named = {"group", "rate_requested", "rate", "metric", "loss", "params", "macs", "bytes", "utility", "plan", "seconds"}
    assert named <= info.keys()
    assert {"return", "score"} <= steps[-1][-1].keys()
    assert not {"return", "score"} & steps[0][-1].keys()
    assert ({"bits_requested", "bits", "rank_requested", "rank"} <= info.keys()) == (id == "ReptileCompress-v0")


@every_id
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_restart_as_gymnasium_says(id: str, mode: AutoresetMode) -> None:
    envs = gym.make_vec(id, 2, "sync", {"autoreset_mode": mode}, task="digits-mlp", **QUICK)
    alone = make("digits-mlp", id)
    start, _ = alone.reset(seed=0)
    observations, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observations, [start, start])
    for action in random_actions(alone, len(alone.groups)):
        expected, reward, terminated, _, info = alone.step(action)
        observations, rewards, ends, cuts, infos = envs.step(np.stack([action, action]))
        assert rewards.tolist() == [reward, reward]
        assert ends.tolist() == [terminated, terminated]
        assert not cuts.any()
    assert ends.all()
    if mode is AutoresetMode.SAME_STEP:
        np.testing.assert_array_equal(np.stack(infos["final_obs"]), [expected, expected])
        assert infos["final_info"]["return"].tolist() == [info["return"]] * 2
    else:
        np.testing.assert_array_equal(observations, [expected, expected])
        assert infos["return"].tolist() == [info["return"]] * 2
    if mode is AutoresetMode.NEXT_STEP:
        observations, rewards, ends, _, _ = envs.step(np.stack([action, action]))
        assert not rewards.any()
        assert not ends.any()
    if mode is AutoresetMode.DISABLED:
        observations, _ = envs.reset(options={"reset_mask": np.array([True, True])})
    np.testing.assert_array_equal(observations, [start, start])
    envs.close()


def test_a_fresh_interpreter_needs_no_import_of_ours() -> None:
    found = run_python(
        """
        import gymnasium as gym
        env = gym.make("reptile_env:ReptilePrune-v0", task="digits-mlp")
        env.reset(seed=0)
        print(env.step(env.unwrapped.action_for(0.5))[4]["rate"])
        """
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == "0.5\n"
    assert found.stderr == ""


def test_sac_learns_on_it() -> None:
    env = gym.make("ReptilePrune-v0")
    model = SAC("MlpPolicy", env, learning_starts=50, batch_size=32, seed=0, device="cpu").learn(150)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


def test_ppo_takes_the_id_itself() -> None:
    model = PPO("MlpPolicy", "reptile_env:ReptilePrune-v0", n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(128)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert len(returns) == 128 // len(make("digits-cnn").groups)
    assert np.isfinite(returns).all()


@pytest.mark.parametrize("components", [None, ["bits", "rate"]])
def test_sac_and_ppo_take_several_components(components: list[str] | None) -> None:
    env = gym.make("ReptileCompress-v0", task="digits-mlp", components=components, recovery="none")
    for model in (
        SAC("MlpPolicy", env, learning_starts=20, batch_size=16, seed=0, device="cpu").learn(40),
        PPO("MlpPolicy", env, n_steps=20, batch_size=20, n_epochs=1, seed=0, device="cpu").learn(40),
    ):
        action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)
        assert np.isfinite([episode["r"] for episode in model.ep_info_buffer]).all()
