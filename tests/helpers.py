"""What several test files share."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import reptile_env
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train

ROOT = Path(reptile_env.__file__).parents[1]
TASKS = ["digits-cnn", "digits-mlp"]  # built in, and in need of no extra package
VOLATILE = {"seconds"}  # wall time: the one entry of info that differs from run to run


def make(task: Any = "digits-mlp", id: str = "ReptilePrune-v0", **kwargs: Any) -> ReptilePruneEnv:
    """An environment without its wrappers."""
    env = gym.make(id, task=task, **kwargs).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    return env


def stable(info: dict[str, Any]) -> dict[str, Any]:
    """`info` without its wall time, NaN as a string so that it equals itself."""
    return {k: "nan" if isinstance(v, float) and v != v else v for k, v in info.items() if k not in VOLATILE}


def play(env: ReptilePruneEnv, actions: Iterable[Any]) -> list[tuple[list[float], float, bool, bool, dict[str, Any]]]:
    """What `actions` bring from where `env` stands, comparable with ``==``."""
    steps = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((observation.tolist(), reward, terminated, truncated, stable(info)))
    return steps


def episode(env: ReptilePruneEnv, rates: Sequence[float] | float) -> tuple[float, dict[str, Any]]:
    """Sum of rewards and last info of an episode of the given rates (or of one rate everywhere)."""
    env.reset(seed=0)
    total, terminated, info, k = 0.0, False, {}, 0
    while not terminated:
        rate = rates if isinstance(rates, float) else rates[k]
        _, reward, terminated, _, info = env.step(env.action_for(rate))
        total, k = total + reward, k + 1
    return total, info


def random_actions(env: ReptilePruneEnv, count: int, seed: int = 0) -> list[Any]:
    """Seeded actions that leave the generator of the environment's own space alone."""
    space = type(env.action_space)(**_arguments(env.action_space), seed=seed)
    return [space.sample() for _ in range(count)]


def _arguments(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Box):
        return {"low": space.low, "high": space.high}
    assert isinstance(space, gym.spaces.Discrete)
    return {"n": space.n}


def random_plan(names: Sequence[str], sizes: Sequence[int], generator: np.random.Generator) -> Plan:
    """A plan that keeps arbitrary channels, not the most important ones; some groups stay whole."""
    keep = []
    for size in sizes:
        count = size if generator.random() < 0.2 else int(generator.integers(1, size + 1))
        keep.append(sorted(generator.choice(size, count, replace=False).tolist()))
    return Plan(names, keep)


def classes(count: int, features: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points and their class: which of four random directions is nearest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, features, generator=generator)
    directions = torch.randn(4, features, generator=torch.Generator().manual_seed(99))
    return x, (x @ directions.T).argmax(1)


def small_network(seed: int = 0) -> nn.Sequential:
    """8 numbers to 4 logits by way of two groups."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 4))


def small_task(name: str, **kwargs: Any) -> Task:
    """A user's task on `small_network`, trained to about 0.9; `kwargs` replace arguments of `Task`."""
    x, y = classes(600)
    model = train(small_network(), Split(x[:300], y[:300]), epochs=20, loss=nn.functional.cross_entropy, lr=1e-2)
    return Task(**{"model": model, "train": (x[:300], y[:300]), "valid": (x[300:], y[300:]), "name": name, **kwargs})


def generator_states() -> tuple[Any, ...]:
    """Fingerprints of the global generators of torch, numpy and random."""
    numpy_state = np.random.get_state()  # noqa: NPY002 - the legacy global generator is the subject
    return torch.get_rng_state().numpy().tobytes(), str(numpy_state[1].tobytes()), numpy_state[2:], random.getstate()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs `code`; its output is captured."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
