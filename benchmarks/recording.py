"""From an agent's trace to the columns of its run, and what a run says of its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.trace import Trace
from benchmarks.results import COLUMNS
from benchmarks.run_file import Columns
from reptile_env.actions import RATE_ALONE
from reptile_env.compression.cost import CostModel
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.table_head import costs_to_json
from reptile_env.tasks.registry import known_anchors

BLOCKS = 128  # of times that are kept, at most
SAME = 1e-9  # sums of rewards differ from returns by rounding alone


class Stopwatch(gym.Wrapper[Any, Any, Any, Any]):
    """Notes what the measurement of each evaluated plan took, or took when its table was built.

    Attributes:
        seconds: of each measured plan, in order.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.seconds: list[float] = []

    @property
    def inner(self) -> ReptilePruneEnv:
        """The environment itself."""
        env = self.unwrapped
        assert isinstance(env, ReptilePruneEnv)
        return env

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Carry out one decision."""
        outcome = super().step(action)
        if outcome[4]["measured"]:
            self.seconds.append(outcome[4]["seconds"])
        return outcome


def recorded(trace: Trace, env: Stopwatch, settings: dict[str, Any]) -> dict[str, Any]:
    """What a `Run` holds of a trace.

    Args:
        trace: of an agent.
        env: the environment that it acted in.
        settings: arguments that the environment was made with.
    """
    columns = columns_of(trace, env)
    policy: tuple[float | None, int | None] = (None, None)
    if trace.policy is not None:
        # On the scale of all runs, whatever the agent's reward.
        policy = float(columns["plan_return"][trace.policy.evaluation - 1]), trace.policy.evaluation
    return {
        "agent_settings": trace.agent_settings,
        "columns": columns,
        "policy_return": policy[0],
        "policy_evaluation": policy[1],
        **described(env.inner, settings),
    }


def columns_of(trace: Trace, env: Stopwatch) -> Columns:
    """The columns of a run (see `Run`)."""
    rows, index = trace.rows, {name: number for number, name in enumerate(env.inner.groups)}
    raw: dict[str, Any] = {name: [getattr(row, name, None) for row in rows] for name in COLUMNS}
    raw["group"] = [index[row.group] for row in rows]
    raw["episode"] = 1 + np.unique(raw["episode"], return_inverse=True)[1]  # those in which nothing was measured don't count
    raw["measured_seconds"] = block_means(env.seconds)
    raw["simulated_seconds"] = np.cumsum(raw["measured_seconds"])
    raw["widths"] = np.array([row.plan.widths for row in rows], np.int64).reshape(len(rows), len(index))
    columns = {name: np.asarray(raw[name], dtype) for name, (dtype, _) in COLUMNS.items()}
    total, alone = columns["episode_return"], columns["plan_return"]
    columns["episode_return"] = np.where(np.abs(total - alone) < SAME, alone, total)
    columns["loss"] = np.where(_told_of(trace), columns["loss"], np.nan)
    if env.inner.components != RATE_ALONE:
        columns["bits"] = np.array([row.plan.bits for row in rows], np.int64).reshape(len(rows), len(index))
        columns["ranks"] = np.array([row.plan.ranks for row in rows], np.float64).reshape(len(rows), len(index))
    return columns


def _told_of(trace: Trace) -> NDArray[np.bool_]:
    """The plans whose loss is kept: those that were the best so far, and the policy's."""
    told, best = [], -np.inf
    for row in trace.rows:
        improved = row.within_budget and row.utility > best
        best = row.utility if improved else best
        told.append(improved or (trace.policy is not None and row.evaluation == trace.policy.evaluation))
    return np.array(told, bool)


def block_means(seconds: Sequence[float]) -> NDArray[np.float64]:
    """Times of as many plans, to three digits; where there are many, the mean of each block of neighbours stands for all of it.

    Times differ by noise, which can't be compressed; their sum so far is what counts.
    """
    size = -(-len(seconds) // BLOCKS)
    means = [float(f"{np.mean(seconds[start : start + size]):.2e}") for start in range(0, len(seconds), size or 1)]
    return np.repeat(np.array(means, np.float64), size)[: len(seconds)]


def described(env: ReptilePruneEnv, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run says of its task: groups, the dense network, the scale and the anchors of its returns."""
    evaluator, reference = env.evaluator, env.reference
    dense = reference.dense
    uniform, best = anchors(env, settings)
    return {
        "groups": env.groups,
        "sizes": tuple(evaluator.sizes),
        "dense": {name: getattr(dense, name) for name in ("metric", "loss", "params", "macs", "bytes")},
        "scale": {
            "cost": reference.cost,
            "w": reference.w,
            "scale": reference.scale,
            "higher_is_better": reference.higher_is_better,
            "metric_name": evaluator.metric_name,
        },
        "cost_model": costs_to_json(evaluator.costs) if isinstance(evaluator.costs, CostModel) else None,
        "uniform_return": uniform,
        "best_known_return": best,
    }


def anchors(env: ReptilePruneEnv, settings: dict[str, Any]) -> tuple[float, float]:
    """Returns of the best uniform setting and of the best plan known; NaN where they are not known."""
    evaluator, reference, budget = env.evaluator, env.reference, settings.get("budget")
    if env.components != RATE_ALONE:
        return (1.0 if budget is None else np.nan), np.nan
    known = known_anchors(evaluator.name, evaluator.settings, reference.cost, reference.uniform_rate, budget)
    uniform = 1.0 if budget is None else known.uniform
    return uniform, env.optimum()[1] if settings.get("evaluator") == "table" else known.best
