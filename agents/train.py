"""``python -m agents train``: one agent on one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from agents.arguments import Options, make_env, task_of
from agents.base import Listener
from agents.outputs import BestPlanFile, make_folder, versions, write_json
from agents.progress import ProgressReport
from agents.registry import agent_spec, make_agent
from agents.tensorboard_log import TensorBoardLog
from agents.trace import Trace


def train(name: str, options: Options, out: Path) -> int:
    """Run an agent and keep in `out` its trace, its best plan, TensorBoard logs and, where it has one, its model.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: see `task_of` and `make_env`.
    """
    torch.set_num_threads(options.threads)
    env = make_env(agent_spec(name), task_of(options), options)
    make_folder(out)
    write_json(out / "run.json", {"command": "train", "agent": name} | options.to_dict() | {"versions": versions()})
    trace = run_agent(name, env, options, out, [BestPlanFile(out / "best_plan.json")])
    print(_summary(trace, out))
    return 0


def run_agent(name: str, env: gym.Env[Any, Any], options: Options, out: Path, listeners: Sequence[Listener] = ()) -> Trace:
    """Run an agent with a progress report and TensorBoard logs.

    Args:
        name: of the agent.
        env: made by `make_env`.
        options: its steps and seed are used.
        out: the run's folder.
        listeners: told of each evaluated plan too.
    """
    log = TensorBoardLog(out / "tensorboard" / name)
    try:
        with ProgressReport(name, options.steps) as progress:
            return make_agent(name).run(env, options.steps, options.seed, out=out, listeners=[*listeners, progress, log])
    finally:
        log.close()


def _summary(trace: Trace, out: Path) -> str:
    if trace.best is None:
        best = "no plan within the budget was measured; give more --steps"
    else:
        row = trace.best
        best = (
            f"best plan: return {row.plan_return:.3f}, validation metric {row.metric:.4f}, {row.macs:,} MACs, {row.params:,} params"
        )
        best += f" (plan {row.evaluation} of {len(trace.rows)})"
    policy = f"\nfinal policy: return {trace.policy.episode_return:.3f}" if trace.policy is not None else ""
    scale = "return: 0 is the dense network, 1 the best uniform rate"
    return f"{best}{policy}\n{scale}\nresults: {out}"
