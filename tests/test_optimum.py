"""The best plan on a table against all episodes that there are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.optimum import reachable, utilities
from tests.helpers import make
from tests.tables import NAME, tiny_task, write_tiny

LISTED = (0.1, 0.35, 0.7)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))


def ends(env: ReptilePruneEnv, actions: list[Any]) -> dict[int, float]:
    """Row and return of the last plan of every episode of these actions."""
    assert isinstance(env.evaluator, TableEvaluator)
    env.reset(seed=0)
    found, start = {}, env.snapshot()
    stack = [start]
    while stack:
        here = stack.pop()
        for action in actions:
            env.restore(here)
            *_, ended, _, info = env.step(action)
            if ended:
                found[env.evaluator.grid.row(env.plan)] = info["return"]
            else:
                stack.append(env.snapshot())
    return found


CASES = [
    ("ReptilePrune-v0", {}),
    ("ReptilePrune-v0", {"max_rate": 0.5}),
    ("ReptilePrune-v0", {"budget": 0.3}),
    ("ReptilePrune-v0", {"budget": 0.6, "max_rate": 0.5, "rounds": 2, "cost": "params", "measure": "round"}),
    ("ReptilePruneDiscrete-v0", {}),
    ("ReptilePruneDiscrete-v0", {"rates": LISTED}),
    ("ReptilePruneDiscrete-v0", {"rates": LISTED, "budget": 0.3}),
    ("ReptilePruneDiscrete-v0", {"rates": LISTED, "budget": 0.35, "cost": "bytes"}),
    ("ReptilePruneDiscrete-v0", {"rates": (0.0, 0.3), "budget": 0.3, "rounds": 2}),
    ("ReptilePruneDiscrete-v0", {"budget": 0.5, "rounds": 1, "w": 0.6}),
]


@pytest.mark.parametrize(("id", "kwargs"), CASES, ids=str)
def test_it_is_what_all_episodes_together_find(id: str, kwargs: dict[str, Any]) -> None:
    env = make(NAME, id, evaluator="table", **kwargs)
    rates = np.linspace(0, env._actions.max_rate, 13 if kwargs.get("rounds", 1) == 1 else 4)
    actions = list(range(len(env._actions.rates))) if env._actions.rates else [env.action_for(rate) for rate in rates]
    found = ends(env, actions)
    plan, value = env.optimum()
    assert reachable(env._scene, env._rules, env._actions.rates).tolist() == sorted(found)
    assert value == pytest.approx(max(found.values()), abs=1e-9)
    assert env.reference.return_of(env.measure(plan)) == value


def test_utilities_are_those_of_the_reference() -> None:
    env = make(NAME, evaluator="table")
    assert isinstance(env.evaluator, TableEvaluator)
    rows = np.arange(env.evaluator.grid.rows)
    for better in (True, False):
        object.__setattr__(env.reference, "higher_is_better", better)
        expected = [env.reference.utility(env.evaluator.measurement(row)) for row in rows]
        assert utilities(env._scene, env.evaluator, rows).tolist() == expected


def test_more_budget_never_hurts() -> None:
    values = [make(NAME, evaluator="table", budget=budget).optimum()[1] for budget in (0.1, 0.3, 0.6, 1.0)]
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert values[-1] == make(NAME, evaluator="table").optimum()[1]


def test_a_running_network_has_none() -> None:
    env = make(tiny_task())
    with pytest.raises(ValueError, match="make the environment with evaluator='table'"):
        env.optimum()
