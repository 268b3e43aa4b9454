"""How the cost of a live step grows with the network, the data and the number of environments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.speed.crawls import Crawl, draw_crawls, make_env, play
from benchmarks.speed.fresh import fresh
from benchmarks.speed.measure import Spread, exponent, interleaved, resident
from benchmarks.speed.networks import chain
from benchmarks.speed.rows import Goal, Progress, Row, row
from reptile_env.env import ReptilePruneEnv
from reptile_env.tasks.task import Task

LIMIT = Goal(most=1.05)
WAITED = 2  # steps of an episode at whose end many environments have plans of their own


def growth(quick: bool, progress: Progress) -> Iterator[Row]:
    """Exponents of time over work, and what more environments hold."""
    repeats = 1 if quick else 10
    groups = (2, 4) if quick else (5, 10, 20, 50)
    valid = 50 if quick else 200
    yield _episodes("groups", groups, [chain(n, valid) for n in groups], repeats)
    progress(0.3)
    sizes = (20, 60) if quick else (200, 600, 2000)
    yield _episodes("validation images", sizes, [chain(10, n) for n in sizes], repeats)
    progress(0.5)
    yield _environments(
        (1, 4) if quick else (1, 4, 16, 64), chain(4 if quick else 8, valid, channels=32, size=4), 1 if quick else 4
    )
    progress(0.8)
    yield fresh(_memory, 4 if quick else 64)


def _episodes(what: str, amounts: Sequence[int], tasks: list[Task], repeats: int) -> Row:
    """Mean step of an episode over an amount of something; each size has its turn in every repeat."""
    for task in tasks:
        task.kept.clear()  # what was measured before must answer nothing
    envs = [make_env(task) for task in tasks]
    crawls = [iter(draw_crawls(env.evaluator, repeats + 1)) for env in envs]

    def episode(env: ReptilePruneEnv, mine: Iterator[Crawl]) -> None:
        play(env, next(mine))

    sides = {str(n): partial(episode, env, mine) for n, env, mine in zip(amounts, envs, crawls, strict=True)}
    took = interleaved(sides, repeats)
    steps = [[s / len(env.groups) for s in took[str(n)]] for n, env in zip(amounts, envs, strict=True)]
    return _row(what, amounts, steps)


def _environments(counts: Sequence[int], task: Task, repeats: int) -> Row:
    """A step of all environments over their number; the first steps, where many have the same plan, are not timed."""
    vectors = [gym.make_vec("ReptilePrune-v0", num_envs=n, vectorization_mode="sync", task=task) for n in counts]
    generator = np.random.default_rng(0)
    groups = len(_single(vectors[0]).groups)
    took: list[list[float]] = [[] for _ in counts]
    for repeat in range(repeats + 1):
        for envs, seconds in zip(vectors, took, strict=True):
            envs.reset(seed=repeat)
            for step in range(groups):
                actions = generator.uniform(-0.8, 0.5, (envs.num_envs, 1)).astype(np.float32)
                timed = interleaved({"step": partial(envs.step, actions)}, repeats=1, warmup=0)["step"]
                if repeat and step >= WAITED:
                    seconds += timed
    return _row("environments in one process", counts, took)


def _single(envs: Any) -> ReptilePruneEnv:
    made = envs.envs[0].unwrapped
    assert isinstance(made, ReptilePruneEnv)
    return made


def _row(what: str, amounts: Sequence[int], seconds: Sequence[Sequence[float]]) -> Row:
    details = ", ".join(f"{n:,}: {Spread.of(s)}" for n, s in zip(amounts, seconds, strict=True))
    name = f"exponent of a step's time over {what}, {amounts[0]} to {amounts[-1]:,}"
    return row("growth", name, exponent(amounts, seconds), LIMIT, details=f"a step: {details}")


def _memory(envs: int) -> Row:
    """What more environments on a task hold, relative to what the first one does; all play alike."""
    _episode(gym.make("ReptilePrune-v0", task="digits-mlp"), 0)  # loads the libraries, which count for neither
    before = resident()
    first = gym.make("ReptilePrune-v0", task="digits-cnn")
    for seed in range(envs):
        _episode(first, seed)
    after = resident()
    more = [gym.make("ReptilePrune-v0", task="digits-cnn") for _ in range(envs - 1)]
    for seed, env in enumerate(more):
        _episode(env, seed)
    share = (resident() - after) / (after - before)
    details = f"the first holds {after - before:.1f} MB, {len(more)} more hold {resident() - after:.1f} MB together"
    name = f"memory that {len(more)} more environments add, relative to the first's"
    return row("growth", name, share, Goal(most=0.1), details=details)


def _episode(env: gym.Env[Any, Any], seed: int) -> None:
    env.reset(seed=seed)
    env.action_space.seed(seed)
    ended = False
    while not ended:
        ended = env.step(env.action_space.sample())[2]
