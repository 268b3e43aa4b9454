"""Table environments: steps a second of one, of thousands, of an agent that trains on one, and of many networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO

from benchmarks.speed.measure import Spread, ratio
from benchmarks.speed.rows import Goal, Progress, Row, attempt, row
from reptile_env.tasks.registry import tasks

TASK, ID = "digits-mlp", "ReptilePrune-v0"
ENVS = 4096


def table(quick: bool, progress: Progress) -> Iterator[Row]:
    """Steps a second on a table."""
    repeats = 3 if quick else 15
    yield attempt("table", "one environment", lambda: _one(2_000 if quick else 20_000, repeats))
    progress(0.1)
    yield attempt("table", f"vector of {ENVS:,}", lambda: _many(20 if quick else 500, repeats))
    progress(0.2)
    yield attempt("table", "transfer", lambda: _family(repeats))
    progress(0.4)

    def train() -> Row:
        return _training(2_048 if quick else 20_480, 1 if quick else 5, lambda part: progress(0.4 + 0.6 * part))

    yield attempt("table", "PPO", train)


def _one(steps: int, repeats: int) -> Row:
    env = gym.make(ID, task=TASK, evaluator="table").unwrapped
    actions = _actions(env.action_space, steps)

    def play() -> None:
        env.reset()
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    return _rate("one environment", play, steps, repeats, Goal(least=40_000))


def _many(steps: int, repeats: int) -> Row:
    envs = gym.make_vec(ID, num_envs=ENVS, vectorization_mode="vector_entry_point", task=TASK, evaluator="table")
    actions = _actions(envs.action_space, steps)
    envs.reset(seed=0)

    def play() -> None:
        for action in actions:
            envs.step(action)

    return _rate(f"vector of {ENVS:,}", play, steps * ENVS, repeats, Goal(least=2_000_000))


def _rate(what: str, play: Callable[[], None], steps: int, repeats: int, goal: Goal) -> Row:
    """Steps a second; processor seconds beside them show that no more than one core worked."""
    play()
    took, busy = [], []
    for _ in range(repeats):
        start, worked = time.perf_counter(), time.process_time()
        play()
        took.append((time.perf_counter() - start) / steps)
        busy.append((time.process_time() - worked) / steps)
    details = f"a step {Spread.of(took)}; {np.median(busy) / np.median(took):.2f} cores busy"
    return row("table", f"{TASK}: steps a second, {what}", float(1 / np.median(took)), goal, "steps/s", details)


def _family(repeats: int) -> Row:
    """A random episode on one network of each kind of the transfer family, on running networks and on their tables by turns."""
    names = [known["name"] for known in tasks() if known["suite"] == "transfer" and known["name"].endswith("-1")]
    envs = {name: gym.make("ReptilePruneTransfer-v0", task=names, evaluator=name).unwrapped for name in ("live", "table")}
    took: dict[str, list[float]] = {name: [] for name in envs}
    for repeat in range(-1, repeats):  # the first makes the networks
        for name, env in envs.items():
            env.action_space.seed(repeat + 1)
            start, steps = time.perf_counter(), 0
            for network in names:
                env.reset(seed=0, options={"task": network})
                terminated = False
                while not terminated:
                    terminated, steps = env.step(env.action_space.sample())[2], steps + 1
            if repeat >= 0:
                took[name].append((time.perf_counter() - start) / steps)
    details = ", ".join(f"{name} {Spread.of(seconds)}" for name, seconds in took.items())
    measured = ratio(took["live"], took["table"])
    return row("table", "transfer family, one network of each kind: a step, live / table", measured, details=details)


def _training(steps: int, repeats: int, progress: Progress) -> Row:
    """PPO's steps a second on a table and on CartPole, the same hyperparameters, by turns."""
    makers: dict[str, Callable[[], gym.Env[Any, Any]]] = {
        "table": lambda: gym.make(ID, task=TASK, evaluator="table"),
        "CartPole-v1": lambda: gym.make("CartPole-v1"),
    }
    agents = {name: PPO("MlpPolicy", make(), seed=0, device="cpu", verbose=0) for name, make in makers.items()}
    for agent in agents.values():
        agent.learn(agent.n_steps)
    took: dict[str, list[float]] = {name: [] for name in agents}
    for repeat in range(repeats):
        for name in list(agents) if repeat % 2 == 0 else reversed(list(agents)):
            start = time.perf_counter()
            agents[name].learn(steps)
            took[name].append((time.perf_counter() - start) / steps)
        progress((repeat + 1) / repeats)
    details = ", ".join(f"{name} {1 / float(np.median(seconds)):,.0f} steps/s" for name, seconds in took.items())
    details += f"; PPO of Stable-Baselines3 with its defaults, {steps:,} steps, {repeats} times by turns"
    measured = ratio(took["CartPole-v1"], took["table"])
    return row("table", f"{TASK}: PPO's steps a second, table / CartPole-v1", measured, Goal(least=0.9), details=details)


def _actions(space: gym.Space[Any], count: int) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(count)]
