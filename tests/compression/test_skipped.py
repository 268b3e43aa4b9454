"""What can't be cut is never skipped in silence."""

from __future__ import annotations

import warnings

import gymnasium as gym
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.groups import find_groups
from reptile_env.compression.skipped import unexpected_layers
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, made
from tests.compression.test_odd_networks import ODD
from tests.helpers import classes, small_task


class Scaled(nn.Module):
    """A bare parameter stops the first group, an unknown layer with weights is no group."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.ones(6) / 2)
        self.mix = nn.Bilinear(4, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(torch.relu(self.second(torch.relu(self.first(x) * self.scale))))
        return x + self.mix(x, x)


def task_on(model: nn.Module) -> Task:
    x, y = classes(60)
    return Task(model, (x[:30], y[:30]), (x[30:], y[30:]))


def test_layers_that_are_not_cut_are_listed_and_warned_of_once() -> None:
    task = task_on(Scaled())
    with pytest.raises(ValueError, match=r"gym\.make"):
        _ = task.skipped
    with pytest.warns(UserWarning, match=r"layers are not cut.*first: .*mix: Bilinear") as caught:
        gym.make("ReptilePrune-v0", task=task)
    assert [warning.filename for warning in caught] == [__file__]
    assert set(task.skipped) == {"first", "", "mix", "head"}
    assert "Bilinear" in task.skipped["mix"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gym.make("ReptilePrune-v0", task=task, recovery="none")


def test_the_list_is_the_users_own_copy() -> None:
    task = task_on(Scaled())
    with pytest.warns(UserWarning, match="not cut"):
        LiveEvaluator(task, Settings())
    task.skipped.clear()
    assert task.skipped


def test_a_classifier_reads_groups_and_is_not_skipped(builtin: str) -> None:
    for task in (make_task(builtin), small_task("skips")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LiveEvaluator(task, Settings())
        assert task.skipped == {}


@pytest.mark.parametrize("name", KINDS)
def test_no_warning_of_layers_that_are_never_cut(name: str) -> None:
    model, data, _ = made(name)
    assert unexpected_layers(find_groups(model, data[:4])) == {}


def test_norms_of_a_residual_stream_are_listed() -> None:
    model, data, _ = made("transformer")
    task = Task(model, data[:6], data[6:], name="stream")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiveEvaluator(task, Settings())
    assert set(task.skipped) == {"embed", "head", *(f"encoder.layers.{i}.norm{j}" for i in (0, 1) for j in (1, 2))}
    assert "normalised as a whole by encoder.layers" in task.skipped["embed"]


@pytest.mark.parametrize("name", ["spectral norm", "weight norm"])
def test_producers_that_cant_be_followed_are_warned_of(name: str) -> None:
    model, _, (left, reason) = ODD[name]
    task = task_on(model)
    with pytest.warns(UserWarning, match=f"{left}: .*{reason}"):
        LiveEvaluator(task, Settings("none"))
    assert reason in task.skipped[left]
