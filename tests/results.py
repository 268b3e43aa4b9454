"""Made-up runs for the tests of statistics and report: numbers that anyone can check, and as many as are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Run, write_run
from benchmarks.results_folder import claim

GROUPS, SIZES = ("stem", "layer1.conv1", "layer1.conv2", "head"), (16, 32, 32, 64)
DENSE: dict[str, Any] = {"metric": 0.95, "loss": 0.2, "params": 40_000, "macs": 1_000_000, "bytes": 160_000}
SCALE: dict[str, Any] = {"cost": "macs", "w": 0.9, "scale": 0.05, "higher_is_better": True, "metric_name": "accuracy"}
_COMMON: dict[str, Any] = {
    "env_id": "ReptilePrune-v0",
    "agent_settings": {"learning_rate": 0.001},
    "versions": {"reptile_env": "0.1.0", "torch": "2.13.0"},
    "machine": {"processor": "a processor", "system": "a system"},
    "git": "0123abc",
    "threads": 1,
    "training_networks": (),
    "on_test": False,
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 12.5,
    "groups": GROUPS,
    "sizes": SIZES,
    "dense": DENSE,
    "scale": SCALE,
    "uniform_return": 1.0,
    "best_known_return": 1.6,
}


def made_run(
    agent: str = "random",
    task: str = "task-a",
    seed: int = 0,
    plans: int = 40,
    skill: float = 0.0,
    by_round: bool = False,
    **replaced: Any,
) -> Run:
    """A run whose plans get better over time, the more so with `skill`; the same arguments give the same run.

    Args:
        agent: its name.
        task: name of the case.
        seed: of what is drawn.
        plans: evaluated.
        skill: added to how good plans are in the end.
        by_round: one plan an episode instead of one a decision.
        replaced: other values of the run's attributes; in `columns` those that differ.
    """
    groups = len(GROUPS)
    generator = np.random.default_rng([seed, *agent.encode(), *task.encode()])
    sizes = np.array(SIZES)
    episode = np.arange(plans) if by_round else np.arange(plans) // groups
    group = np.full(plans, groups - 1) if by_round else np.arange(plans) % groups
    rates = generator.uniform(0, 0.9, (int(episode[-1]) + 1 if plans else 0, groups))
    kept = sizes - (rates[episode] * sizes).astype(np.int64) if plans else np.empty((0, groups), np.int64)
    widths = np.where(np.arange(groups) <= group[:, None], kept, sizes)
    share = (widths / sizes).mean(axis=1)
    macs = np.round(DENSE["macs"] * share**2).astype(np.int64)
    better = skill * np.linspace(0.2, 1, plans) if plans else np.empty(0)
    metric = np.clip(DENSE["metric"] - 0.25 * (1 - share) ** 2 * np.exp(-better) + generator.normal(0, 0.004, plans), 0, 1)
    gain = SCALE["w"] * (metric / DENSE["metric"] - 1) + (1 - SCALE["w"]) * (1 - macs / DENSE["macs"])
    seconds = generator.uniform(0.001, 0.002, plans)
    returns = gain / SCALE["scale"]
    columns = {
        "evaluation": np.arange(1, plans + 1),
        "episode": episode + 1,
        "group": group,
        "rate": 1 - widths[np.arange(plans), group] / sizes[group],
        "metric": metric,
        "loss": np.full(plans, np.nan),
        "params": np.round(DENSE["params"] * share).astype(np.int64),
        "macs": macs,
        "bytes": np.round(DENSE["bytes"] * share).astype(np.int64),
        "plan_return": returns,
        "episode_return": returns,
        "within_budget": np.ones(plans, bool),
        "measured_seconds": seconds,
        "simulated_seconds": np.cumsum(seconds),
        "widths": widths,
    }
    settings = {"task": task, "evaluator": "live", "measure": "round" if by_round else "step"}
    head = {"suite": "made-v1", "track": "search", "status": "done", "error": None, "settings": settings, "evaluations": plans}
    columns |= replaced.pop("columns", {})
    return Run(**{**_COMMON, **head, "agent": agent, "task": task, "seed": seed, "columns": columns, **replaced})


def failed_run(
    agent: str = "random", task: str = "task-a", seed: int = 0, error: str = "Traceback\nValueError: no", **replaced: Any
) -> Run:
    """A run that failed."""
    head = {
        "suite": "made-v1",
        "track": "search",
        "status": "failed",
        "error": error,
        "settings": {"task": task},
        "evaluations": 40,
    }
    known = {name: value for name, value in _COMMON.items() if name not in ("groups", "sizes", "dense", "scale")}
    return Run(**{**known, **head, "agent": agent, "task": task, "seed": seed, **replaced})


def with_returns(returns: Sequence[float], **replaced: Any) -> Run:
    """A run of one plan for each of these returns, in order."""
    columns = {name: np.array(returns, np.float64) for name in ("plan_return", "episode_return")} | replaced.pop("columns", {})
    return made_run(plans=len(returns), columns=columns, **replaced)


def write_runs(folder: Path, runs: Sequence[Run]) -> Path:
    """A folder of results."""
    claim(folder, runs[0].suite, "0" * 64)
    for run in runs:
        write_run(folder, run)
    return folder


def many_runs(plans: int = 400, seeds: int = 5, tasks: Sequence[str] = ("task-a", "task-b")) -> list[Run]:
    """Four agents of different skill, one of them with a policy, one that measures whole plans alone."""
    skills = {"cma-es": 0.6, "ppo": 0.2, "random": 0.0, "sac": 0.5}
    return [
        made_run(agent, task, seed, plans, skill, agent in ("cma-es", "random"), **_policy(agent, seed))
        for agent, skill in skills.items()
        for task in tasks
        for seed in range(seeds)
    ]


def _policy(agent: str, seed: int) -> dict[str, Any]:
    return {"policy_return": {"ppo": 0.5, "sac": 1.2}[agent] + 0.05 * seed} if agent in ("ppo", "sac") else {}
