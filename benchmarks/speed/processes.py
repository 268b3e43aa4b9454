"""What processes cost: two workers beside one, an import, and the memory that a long run holds."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.speed.fresh import fresh
from benchmarks.speed.measure import Spread, interleaved, ratio, resident, slope
from benchmarks.speed.rows import Goal, Progress, Row, row
from reptile_env.env import ReptilePruneEnv

TASK = "digits-cnn"
SAMPLES = 200  # of the resident memory over a long run
CACHE_BYTES = 2**25  # of the long run: its warming up fills this, so that what grows afterwards is a leak
WARMUP = 0.2  # share of a long run that is warming up
SIDE, PRODUCTS = 256, 10  # of the matrices multiplied beside the workers
MULTIPLIED = f"{PRODUCTS} products of {SIDE}x{SIDE} matrices a step, one thread each: what no environment can exceed"


def workers(quick: bool, progress: Progress) -> Iterator[Row]:
    """Steps a second of two workers with one thread each, beside one worker with one thread and one with all."""
    if "num_threads" not in inspect.signature(ReptilePruneEnv).parameters:
        raise TypeError("the environment takes no num_threads yet, without which two workers fight over the cores")
    steps, repeats = (14, 1) if quick else (210, 8)
    pools = {
        "two workers": SubprocVecEnv([partial(_worker, 1)] * 2, start_method="spawn"),
        "one worker": SubprocVecEnv([partial(_worker, 1)], start_method="spawn"),
        "one worker with all threads": SubprocVecEnv([partial(_worker, None)], start_method="spawn"),
        "two multiplying": SubprocVecEnv([Multiplying] * 2, start_method="spawn"),
        "one multiplying": SubprocVecEnv([Multiplying], start_method="spawn"),
    }
    try:
        generator = np.random.default_rng(0)
        for pool in pools.values():
            pool.reset()

        def play(pool: SubprocVecEnv) -> None:
            for _ in range(steps):
                pool.step(generator.uniform(-0.8, 0.5, (pool.num_envs, 1)).astype(np.float32))

        took = interleaved({name: partial(play, pool) for name, pool in pools.items()}, repeats)
    finally:
        for pool in pools.values():
            pool.close()
    progress(1.0)
    each = {name: [s / steps / pools[name].num_envs for s in seconds] for name, seconds in took.items()}
    details = ", ".join(f"{name} {Spread.of(seconds)} a step" for name, seconds in each.items())
    two = each["two workers"]
    what = f"{TASK}: steps a second of two workers / of one"
    yield row("workers", what, ratio(each["one worker"], two), Goal(least=1.7), details=details)
    yield row("workers", f"{what} with all threads", ratio(each["one worker with all threads"], two))
    alone = ratio(each["one multiplying"], each["two multiplying"])
    yield row("workers", "the machine itself: products a second of two processes / of one", alone, details=MULTIPLIED)


class Multiplying(gym.Env[Any, Any]):
    """Multiplies matrices with one thread: how much two processes get out of this machine where nothing is shared."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._matrix = torch.ones(SIDE, SIDE) / SIDE

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Nothing to start."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Some milliseconds of products."""
        for _ in range(PRODUCTS):
            self._matrix = self._matrix @ self._matrix
        return np.zeros(1, np.float32), 0.0, False, False, {}


def _worker(threads: int | None) -> gym.Env[Any, Any]:
    arguments: dict[str, Any] = {} if threads is None else {"num_threads": threads}
    return gym.make("ReptilePrune-v0", task=TASK, **arguments)


def import_time(quick: bool, progress: Progress) -> Iterator[Row]:
    """Seconds that the import takes in a fresh interpreter, its start left out."""
    code = "import time; start = time.perf_counter(); import reptile_env; print(time.perf_counter() - start)"
    took = []
    count = 2 if quick else 10
    for done in range(count + 1):
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took.append(float(found.stdout))
        progress((done + 1) / (count + 1))
    spread = Spread.of(took[1:])  # the first may read from disk
    details = f"{spread}, {count} fresh processes"
    yield row("import", "import reptile_env", spread.median, Goal(most=0.4), "s", details)


def memory(quick: bool, progress: Progress) -> Iterator[Row]:
    """Growth of the resident memory over many episodes, warming up left out."""
    episodes = 200 if quick else 10_000
    held = fresh(_held, "digits-mlp", episodes)
    progress(1.0)
    flat = held[int(WARMUP * len(held)) :]
    found = slope([count / 1000 for count, _ in flat], [megabytes for _, megabytes in flat])
    first, warm, last = (f"{megabytes:.0f} MB" for _, megabytes in (held[0], flat[0], held[-1]))
    details = (
        f"{episodes:,} episodes of digits-mlp, caches of {CACHE_BYTES >> 20} MiB: {first} at first, {warm} warm, {last} at last"
    )
    yield row("memory", "resident memory over live episodes", found, Goal(most=1), "MB per 1,000", details)


def _held(task: str, episodes: int) -> list[tuple[int, float]]:
    """Episodes so far and megabytes held, `SAMPLES` times."""
    env = gym.make("ReptilePrune-v0", task=task, cache_bytes=CACHE_BYTES).unwrapped
    env.action_space.seed(0)
    found = []
    for episode in range(1, episodes + 1):
        env.reset()
        ended = False
        while not ended:
            ended = env.step(env.action_space.sample())[2]
        if episode % max(1, episodes // SAMPLES) == 0:
            found.append((episode, resident()))
    return found
