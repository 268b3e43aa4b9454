"""`ReptilePruneTransfer-v0`: one environment, many networks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

import reptile_env
from reptile_env import scenes
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.observations import GROUP_FEATURES, KINDS
from reptile_env.tasks.registry import references
from reptile_env.transfer import ReptilePruneTransferEnv
from tests.helpers import play, random_actions, small_task, stable

ID = "ReptilePruneTransfer-v0"
FAMILY = {row["name"]: row["split"] for row in reptile_env.tasks() if row["suite"] == "transfer"}
# A few quick networks of unequal numbers of groups.
FEW = ["transfer-mlp-3", "transfer-mlp-4", "transfer-gru-1"]


def make(**kwargs: Any) -> ReptilePruneTransferEnv:
    env = gym.make(ID, **kwargs).unwrapped
    assert isinstance(env, ReptilePruneTransferEnv)
    return env


def met(env: ReptilePruneTransferEnv, resets: int) -> list[str]:
    env.reset(seed=0)
    return [env.reset()[1]["task"] for _ in range(resets)]


def test_a_network_is_drawn_at_each_reset_by_the_seed() -> None:
    first, again = (met(make(task=FEW), 30) for _ in range(2))
    assert first == again
    assert set(first) == set(FEW)


@pytest.mark.parametrize("split", ["train", "test"])
def test_only_networks_of_the_split_are_drawn(split: str) -> None:
    env = make(split=split)
    observation, info = env.reset(seed=1)
    assert FAMILY[info["task"]] == split == info["split"]
    *_, later = env.step(env.action_for(0.3))
    assert later["split"] == split
    assert env.observation_space.contains(observation)
    assert set(env._scenes.names) == {name for name, of in FAMILY.items() if of == split}


def test_tables_play_every_network_without_torch() -> None:
    code = f"""
import sys
import gymnasium as gym
import reptile_env
played = {{}}
for split in ("train", "test"):
    env = gym.make({ID!r}, split=split, evaluator="table")
    for name in env.unwrapped.task_names:
        _, info = env.reset(seed=0, options={{"task": name}})
        terminated = False
        while not terminated:
            *_, terminated, _, info = env.step(env.unwrapped.action_for(0.3))
        assert env.unwrapped.optimum()[1] >= info["return"], name
        played[name] = split
print(sorted(played.items()), "torch" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == f"{sorted(FAMILY.items())} False"


def test_a_network_can_be_named() -> None:
    env = make(split="test")
    _, info = env.reset(options={"task": "transfer-mlp-7"})
    assert info["task"] == "transfer-mlp-7"
    with pytest.raises(ValueError, match="unknown task of this environment 'transfer-mlp-1'"):
        env.reset(options={"task": "transfer-mlp-1"})


@pytest.mark.parametrize("split", ["tests", "", None, 1])
def test_an_unknown_split_is_refused(split: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown split .* known: train, test"):
        gym.make(ID, split=split)


def test_a_network_of_the_other_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'transfer-mlp-7' is one of split 'test'"):
        gym.make(ID, task=["transfer-mlp-1", "transfer-mlp-7"])
    with pytest.raises(ValueError, match="unknown task 'transfer-mlp-0'"):
        gym.make(ID, task="transfer-mlp-0")
    assert make(split="test", task="transfer-mlp-7").reset()[1]["task"] == "transfer-mlp-7"


def test_a_network_of_ones_own_can_be_drawn_too() -> None:
    env = make(task=[*FEW, small_task("mine")])
    assert env.reset(options={"task": "mine"})[1]["task"] == "mine"


def test_what_fits_no_network_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        gym.make(ID, budget=1e-6)
    with pytest.raises(ValueError, match="observation='group'"):
        gym.make(ID, task=FEW, observation="network")
    with pytest.raises(ValueError, match="'digits-resnet' has no table"):
        gym.make(ID, task=[*FEW, "digits-resnet"], evaluator="table")


def test_networks_are_made_when_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = scenes.make_evaluator

    def counting(evaluator: str, task: Any, *rest: Any) -> Any:
        made.append(task)
        return original(evaluator, task, *rest)

    monkeypatch.setattr(scenes, "make_evaluator", counting)
    env = make()
    assert len(made) == 1
    for name in FEW * 2:
        env.reset(options={"task": name})
    assert set(made[1:]) == set(FEW) - {made[0]}
    assert len(made) <= 1 + len(FEW)


def test_the_best_uniform_rate_returns_one_on_every_network() -> None:
    env = make(task=FEW)
    for name in FEW:
        env.reset(options={"task": name})
        steps = play(env, [env.action_for(references()[name]["uniform"]["rate"])] * len(env.groups))
        assert sum(reward for _, reward, *_ in steps) == pytest.approx(1, abs=1e-9)
        assert steps[-1][-1]["score"] == pytest.approx(0, abs=1e-9)


def test_observations_tell_networks_apart() -> None:
    env, starts = make(task=FEW), {}
    for name in FEW:
        observation, _ = env.reset(options={"task": name})
        starts[name] = dict(zip((*KINDS, *GROUP_FEATURES), observation.tolist(), strict=True))
        assert starts[name]["weight of metric"] == pytest.approx(references()[name]["w"])
        assert 0 < starts[name]["share of macs"] < 1
    assert len({tuple(start.values()) for start in starts.values()}) == len(FEW)
    assert starts["transfer-gru-1"]["linear"] == 1
    observation = env.step(env.action_for(0.2))[0]
    assert observation[KINDS.index("recurrent")] == 1


def test_all_networks_share_the_memory() -> None:
    env = make(task=FEW, cache_bytes=600_000)
    for name in FEW:
        env.reset(options={"task": name})
        play(env, random_actions(env, len(env.groups)))
    held = []
    for scene in env._scenes:
        assert isinstance(scene.evaluator, LiveEvaluator)
        held.append(scene.evaluator.held_bytes)
    assert 0 < sum(held) <= 600_000


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_draws_the_same_networks(how: str) -> None:
    env = make(task=FEW, prune_probability=0.5)
    env.reset(seed=4)
    twin = pickle.loads(pickle.dumps(env)) if how == "pickle" else copy.deepcopy(env)
    for _ in range(4):
        (seen, info), (again, other) = env.reset(), twin.reset()
        assert stable(info) == stable(other)
        np.testing.assert_array_equal(seen, again)
        actions = random_actions(env, len(env.groups))
        assert play(env, actions) == play(twin, actions)


def test_a_snapshot_leads_back_to_its_network() -> None:
    env = make(task=FEW)
    env.reset(options={"task": FEW[0]})
    env.step(env.action_for(0.4))
    point, rest = env.snapshot(), random_actions(env, len(env.groups) - 1)
    gone_on = play(env, rest)
    env.reset(options={"task": FEW[2]})
    env.restore(point)
    assert play(env, rest) == gone_on


def test_a_vector_of_environments_draws_in_each() -> None:
    envs = gym.make_vec(ID, 4, task=FEW)
    alone = [make(task=FEW) for _ in range(4)]
    starts = [env.reset(seed=seed) for seed, env in enumerate(alone)]
    observations, infos = envs.reset(seed=0)
    np.testing.assert_array_equal(observations, [start for start, _ in starts])
    drawn = [info["task"] for _, info in starts]
    assert infos["task"].tolist() == drawn
    assert len(set(drawn)) > 1
    names = set(drawn)
    for _ in range(40):
        *_, infos = envs.step(envs.action_space.sample())
        names |= set(infos["task"])
    assert names == set(FEW)
    envs.close()


def test_ppo_trains_one_policy_over_several_networks() -> None:
    env = gym.make(ID, task=FEW, reward="tradeoff")
    names: set[str] = set()
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=2, seed=0, device="cpu")
    model.learn(256, callback=lambda variables, _: names.update(info["task"] for info in variables["infos"]) is None)
    assert names == set(FEW)
    test = make(split="test", task="transfer-mlp-7")
    observation, _ = test.reset(seed=0)
    assert test.action_space.contains(model.predict(observation, deterministic=True)[0])
