"""A round of decisions on a task, for tests of built-in ones."""

from __future__ import annotations

from typing import Any

import pytest

from reptile_env.tasks.task import Task
from tests.helpers import make, random_actions


def sliced(task: Task, count: int, calibration: int = 200) -> Task:
    """The task with few examples, for speed; its network, metric and loss are the same."""
    settings: dict[str, Any] = {"metric": task.metric, "loss": task.loss, "higher_is_better": task.higher_is_better, "w": task.w}
    return Task(task.model, task.train[:calibration], task.valid[:count], name=f"few-{task.name}", family=task.family, **settings)


def play_round(task: Task) -> dict[str, Any]:
    """Play an episode of random rates, measured at its end, and check what every round shows; returns the last info."""
    env = make(task, measure="round")
    env.reset(seed=0)
    total = 0.0
    for action in random_actions(env, len(env.groups)):
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert not truncated
        total += reward
    assert terminated
    assert info["macs"] < env.reference.dense.macs
    assert info["return"] == pytest.approx(total)
    return info
