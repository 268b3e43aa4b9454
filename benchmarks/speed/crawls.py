"""Episodes to time: every decision cuts something, and no two steps lead to the same plan, so that no memo answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from reptile_env.compression.plan import Plan, removal_count
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.base import Evaluator

RATES = (0.1, 0.7)


@dataclass(frozen=True)
class Crawl:
    """The decisions of an episode of one round: rates in network order, and the plans that they lead to."""

    rates: tuple[float, ...]
    plans: tuple[Plan, ...]


def draw_crawls(evaluator: Evaluator, number: int, seed: int = 0) -> list[Crawl]:
    """`number` crawls over the groups, rates drawn evenly from `RATES`, at least one channel a decision.

    The first decisions remove different numbers of channels, so that all plans differ.

    Raises:
        ValueError: more crawls than there are first decisions.
    """
    generator = np.random.default_rng(seed)
    first = generator.permutation(np.arange(1, evaluator.sizes[0]))
    if number > len(first):
        raise ValueError(f"{number} crawls; the first group of {evaluator.name} allows {len(first)} that differ from the start")
    crawls = []
    for crawl in range(number):
        plan, rates, plans = evaluator.dense, [], []
        for group, size in enumerate(evaluator.sizes):
            drawn = max(1, removal_count(size, generator.uniform(*RATES)))
            count = int(first[crawl]) if group == 0 else drawn
            plan = evaluator.cut(plan, group, count)
            rates.append(count / size)
            plans.append(plan)
        crawls.append(Crawl(tuple(rates), tuple(plans)))
    return crawls


def make_env(task: Any, **arguments: Any) -> ReptilePruneEnv:
    """The environment without wrappers; any rate can be asked of it."""
    made = gym.make("ReptilePrune-v0", task=task, max_rate=0.99, **arguments).unwrapped
    assert isinstance(made, ReptilePruneEnv)
    return made


def at_once(step: Callable[[], Any]) -> Any:
    """Carry out a step, nothing more."""
    return step()


def play(env: ReptilePruneEnv, crawl: Crawl, each: Callable[[Callable[[], Any]], Any] = at_once) -> list[dict[str, Any]]:
    """An episode, each step carried out by `each`; its infos.

    Raises:
        RuntimeError: a step led to another plan than the crawl says.
    """
    env.reset(seed=0)
    infos = []
    for rate, plan in zip(crawl.rates, crawl.plans, strict=True):
        action = env.action_for(rate)
        *_, info = each(partial(env.step, action))
        if env.plan != plan:
            raise RuntimeError(f"rate {rate} led to {env.plan}, not to {plan}")
        infos.append(info)
    return infos
