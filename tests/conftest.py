from __future__ import annotations

import os

# One thread, here and in the processes that tests start: measurements are bitwise equal for one thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["SDL_VIDEODRIVER"] = "dummy"

import gymnasium as gym
import pytest
from hypothesis import HealthCheck, settings

from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks.task import Task
from tests.helpers import small_task

# The fixtures that given() repeats over are names and read-only tasks.
_checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=20, suppress_health_check=_checks)
settings.load_profile("tests")


@pytest.fixture(params=["digits-cnn", "digits-mlp"])
def builtin(request: pytest.FixtureRequest) -> str:
    """Each built-in task that needs no extra package."""
    return str(request.param)


@pytest.fixture(scope="session")
def user_task() -> Task:
    """A small network of a user's own, two groups, trained."""
    return small_task("small")


@pytest.fixture
def env() -> ReptilePruneEnv:
    """An environment on the quickest built-in task, reset."""
    made = gym.make("ReptilePrune-v0", task="digits-mlp").unwrapped
    assert isinstance(made, ReptilePruneEnv)
    made.reset(seed=0)
    return made
