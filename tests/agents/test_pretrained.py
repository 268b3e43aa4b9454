"""The policy that was trained on many networks: its file, what it does on others, and the command that trains one."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from torch import nn

import reptile_env
from agents.__main__ import main
from agents.pretrain import ID, played, pretrain, training_networks
from agents.pretrained import SHIPPED, GroupPolicy, Pretrained, exported
from agents.registry import make_agent
from agents.trace import Trace
from reptile_env.env import ReptilePruneEnv
from tests.helpers import small_task

FEW = ["transfer-mlp-4", "transfer-gru-1"]
TEST = [row["name"] for row in reptile_env.tasks() if row["split"] == "test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training leaves."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(4096, 0, out, FEW)
    return out


def test_a_training_is_told_by_its_file_and_repeats(folder: Path, tmp_path: Path) -> None:
    policy = GroupPolicy.load(folder / "pretrained.safetensors")
    assert policy.about["networks"] == FEW
    assert policy.about["command"] == f"python -m agents pretrain --steps 4096 --seed 0 --network {FEW[0]} --network {FEW[1]}"
    assert policy.about == json.loads((folder / "run.json").read_text(encoding="utf-8"))
    again = pretrain(4096, 0, tmp_path / "again", FEW)
    for (weights, biases), (others, further) in zip(policy.layers, again.layers, strict=True):
        np.testing.assert_array_equal(weights, others)
        np.testing.assert_array_equal(biases, further)
    other = pretrain(2048, 1, tmp_path / "other", FEW)
    assert not np.array_equal(other.layers[0][0], policy.layers[0][0])


def test_a_policy_acts_as_its_model_does(tmp_path: Path) -> None:
    env = gym.make(ID, task=FEW, measure="round")
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(64)
    policy = exported(model, {"command": "none"})
    policy.save(tmp_path / "policy.safetensors")
    policy = GroupPolicy.load(tmp_path / "policy.safetensors")
    for _ in range(20):
        observation = env.observation_space.sample()
        np.testing.assert_allclose(policy.act(observation, env), model.predict(observation, deterministic=True)[0], atol=1e-6)
    relu = A2C("MlpPolicy", env, policy_kwargs={"activation_fn": nn.ReLU}, device="cpu")
    with pytest.raises(ValueError, match="other activations than tanh"):
        exported(relu, {})


def test_the_shipped_policy_met_training_networks_alone() -> None:
    about = GroupPolicy.load(SHIPPED).about
    assert about["networks"] == training_networks()
    assert not set(about["networks"]) & set(TEST)
    assert SHIPPED.stat().st_size < 100_000


@pytest.mark.slow
def test_one_pass_over_unseen_networks_is_as_good_as_the_best_uniform_rate_in_hindsight() -> None:
    returns = played(GroupPolicy.load(SHIPPED), TEST, "test")
    assert len(returns) == 16
    assert np.mean(list(returns.values())) >= 1.0


def test_one_plan_is_measured() -> None:
    env = gym.make("ReptilePrune-v0", task="digits-mlp", observation="group", measure="round")
    trace = make_agent("pretrained").run(env, 1, 0)
    assert len(trace.rows) == 1
    assert trace.policy is not None
    assert trace.policy.episode_return == trace.rows[0].plan_return
    again = make_agent("pretrained").run(env, 50, 3)
    assert [row.plan for row in again.rows] == [trace.rows[0].plan]


def capped(task: str, budget: float | None, measure: str = "round") -> Trace:
    env = gym.make("ReptilePrune-v0", task=task, observation="group", measure=measure, budget=budget)
    return make_agent("pretrained").run(env, 10, 0)


@pytest.mark.slow
def test_one_pass_over_unseen_networks_with_half_of_the_macs_is_as_good_as_the_best_uniform_rate_without_a_cap() -> None:
    returns = [capped(name, 0.5).rows[-1].plan_return for name in TEST]
    assert np.mean(returns) >= 1.0


def test_a_cap_that_its_own_plan_meets_changes_nothing() -> None:
    (free,), (under,) = (capped("digits-mlp", budget).rows for budget in (None, 0.75))
    assert under.plan == free.plan


@pytest.mark.parametrize("budget", [0.2, 0.3])
def test_under_a_tight_cap_the_last_groups_do_not_bear_it_alone(budget: float) -> None:
    inner = gym.make("ReptilePrune-v0", task="digits-mlp").unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    (row,) = capped("digits-mlp", budget).rows
    assert row.within_budget
    assert 0.95 * budget < row.macs / inner.reference.dense.macs <= budget
    assert row.plan_return > 0  # what is left to the wall returns -9.7 under .3


def test_measured_by_step_it_meets_a_cap_too() -> None:
    assert all(row.within_budget for row in capped("digits-mlp", 0.2, "step").rows[-1:])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the policy reads observation='group' of 23 numbers"):
        make_agent("pretrained").run(gym.make("ReptilePrune-v0", task="digits-mlp"), 1, 0)
    joint = gym.make("ReptileCompress-v0", task=small_task("mine"), observation="group", measure="round")
    with pytest.raises(ValueError, match="decisions are about rate, bits, rank"):
        make_agent("pretrained").run(joint, 1, 0)
    by_step = gym.make("ReptilePrune-v0", task="digits-mlp", observation="group")
    with pytest.raises(ValueError, match="one pass evaluates 5 plans; 1 are allowed"):
        make_agent("pretrained").run(by_step, 1, 0)
    with pytest.raises(ValueError, match="can't be read"):
        Pretrained("pretrained", tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no policy", encoding="utf-8")
    with pytest.raises(ValueError, match="can't be read"):
        Pretrained("pretrained", tmp_path / "text.safetensors")


def test_compress_takes_one_pass_and_no_search(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["compress", "--agent", "pretrained", "--task", "digits-mlp", "--out", str(out)]) == 0
    table = json.loads((out / "table.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in table["rows"]}
    assert set(rows) == {"dense", "best uniform", "pretrained"}
    assert rows["pretrained"]["chosen"]
    assert rows["pretrained"]["evaluated"] == 1
    assert reptile_env.load(out / "network").model is not None
    assert Trace.load(out / "trace-pretrained.jsonl").evaluations == 1


def test_the_command_trains(tmp_path: Path) -> None:
    assert main(["pretrain", "--steps", "2048", "--network", FEW[0], "--out", str(tmp_path / "run")]) == 0
    assert GroupPolicy.load(tmp_path / "run" / "pretrained.safetensors").about["networks"] == FEW[:1]
    assert main(["pretrain", "--steps", "0", "--out", str(tmp_path / "none")]) == 2
    assert main(["pretrain", "--network", "transfer-mlp-7", "--out", str(tmp_path / "none")]) == 2
    assert main(["pretrain", "--seed", "-1", "--network", FEW[0], "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
