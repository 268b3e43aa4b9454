"""Which listed rates the budget leaves alone: what masked algorithms ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from reptile_env.env import ReptilePruneEnv
from tests.helpers import make

DISCRETE = "ReptilePruneDiscrete-v0"


def carried_out_as_they_are(env: ReptilePruneEnv) -> list[bool]:
    """For each action whether the budget leaves it alone, found by trying it."""
    state, found = env.snapshot(), []
    for action in range(env.action_space.n):  # type: ignore[attr-defined]
        *_, info = env.step(action)
        found.append(not info["budget_bit"])
        env.restore(state)
    return found


@pytest.mark.parametrize("evaluator", ["live", "table"])
@pytest.mark.parametrize(
    "settings",
    [
        {"budget": 0.3},
        {"budget": 0.15, "cost": "params"},
        {"budget": 0.2, "rounds": 2},
        {"budget": 0.3, "rates": [0.8, 0.1, 0.45, 0.0]},
        {"budget": 0.5, "prune_probability": 0.5},
    ],
)
def test_a_mask_says_what_a_step_would_do(evaluator: str, settings: dict[str, Any]) -> None:
    env = make("digits-mlp", DISCRETE, evaluator=evaluator, measure="round", **settings)
    rng, seen = np.random.default_rng(0), []
    for episode in range(3):
        env.reset(seed=episode)
        ended = False
        while not ended:
            mask = env.action_masks()
            assert mask.dtype == bool
            assert mask.shape == (len(settings.get("rates", range(10))),)
            assert mask.any()
            if "prune_probability" not in settings:  # by chance no rate is carried out, so trying tells nothing
                assert mask.tolist() == carried_out_as_they_are(env)
            seen += mask.tolist()
            _, _, ended, _, _ = env.step(int(rng.choice(np.flatnonzero(mask))))
    assert not all(seen)
    assert any(seen)


def test_all_are_allowed_without_a_budget() -> None:
    env = make("digits-mlp", DISCRETE)
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True] * 10


def test_there_is_none_without_an_episode_or_a_list_of_rates() -> None:
    env = make("digits-mlp", DISCRETE, budget=0.5)
    with pytest.raises(ResetNeeded):
        env.action_masks()
    env.reset(seed=0)
    for _ in env.groups:
        env.step(9)
    with pytest.raises(ResetNeeded, match="ended"):
        env.action_masks()
    continuous = make("digits-mlp")
    continuous.reset(seed=0)
    with pytest.raises(ValueError, match="use ReptilePruneDiscrete-v0"):
        continuous.action_masks()
