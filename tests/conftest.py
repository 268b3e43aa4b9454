from __future__ import annotations

import os
import shutil
from pathlib import Path

# One thread, here and in the processes that tests start: measurements are bitwise equal for one thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["SDL_VIDEODRIVER"] = "dummy"

import gymnasium as gym
import pytest
from hypothesis import HealthCheck, settings

import reptile_env
from reptile_env.env import ReptilePruneEnv
from reptile_env.saving import Compressed
from reptile_env.tasks.task import Task
from tests.helpers import TASKS, make, small_task

# The fixtures that given() repeats over are names and read-only tasks.
_checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=20, suppress_health_check=_checks)
settings.load_profile("tests")


@pytest.fixture(params=TASKS)
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


@pytest.fixture(scope="module", params=TASKS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Compressed, Path]:
    small = reptile_env.compress(request.param, make(request.param).reference.uniform_plan)
    return small, small.save(tmp_path_factory.mktemp("saved") / "network")


@pytest.fixture
def saved(original: tuple[Compressed, Path], tmp_path: Path) -> tuple[Compressed, Path]:
    """A network and a folder of it that a test may alter."""
    return original[0], shutil.copytree(original[1], tmp_path / "network")
