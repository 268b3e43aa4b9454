"""What a plan and a step of a task take on this machine."""

from __future__ import annotations

import math
import time

import gymnasium as gym
import numpy as np

from benchmarks.budgets import inner_of
from benchmarks.plans import random_plans

PLANS = 40
STEPS = 60  # at least


def measured_times(name: str, w: float | None = None) -> dict[str, float]:
    """Medians in seconds, one thread, of plans and steps that are drawn at random.

    Args:
        name: of a built-in task.
        w: weight of the metric; None takes the task's own.

    Returns:
        ``seconds`` of a measurement of a whole plan, ``step_seconds`` of a step of the environment that measures after every
        decision.
    """
    env = gym.make("ReptilePrune-v0", task=name, measure="step", w=w)
    evaluator = inner_of(env).evaluator
    plans = [evaluator.measure(plan).seconds for plan in random_plans(evaluator, PLANS)]
    env.action_space.seed(0)
    steps = []
    for _ in range(math.ceil(STEPS / len(evaluator.sizes))):
        env.reset(seed=0)
        over = False
        while not over:
            action = env.action_space.sample()
            start = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            steps.append(time.perf_counter() - start)
            over = terminated or truncated
    return {"seconds": round(float(np.median(plans)), 5), "step_seconds": round(float(np.median(steps)), 5)}
