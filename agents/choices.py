"""The few choices that planning agents have at a decision, whatever the actions are."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.base import Recorder
from reptile_env.compression.plan import Request


def choices(env: Recorder) -> list[Any]:
    """Actions: to leave a group alone, and all that the uniform sweep asks for.

    Those are the listed rates, or multiples of 0.05, or, with bits and ranks to decide on, a small grid of all three.
    """
    actions = [env.inner.action_for(*request) for request in (Request(), *env.inner.uniform_sweep)]
    return list({np.asarray(action).tobytes(): action for action in actions}.values())


def uniform_choice(env: Recorder) -> int:
    """Which of `choices` the best uniform setting is."""
    uniform = np.asarray(env.inner.action_for(*env.inner.reference.uniform))
    return next(i for i, action in enumerate(choices(env)) if np.array_equal(action, uniform))
