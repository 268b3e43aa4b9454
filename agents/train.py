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
from agents.refusals import refuse_early
from agents.registry import agent_spec, make_agent
from agents.replay import put_back
from agents.resume import RUN, alone_in, check_unchanged, conditions_of, options_of, read_run
from agents.tensorboard_log import TensorBoardLog
from agents.trace import Trace

LOGS = "tensorboard"


def train(name: str, options: Options, out: Path) -> int:
    """Run an agent and keep in `out` its trace, its best plan, TensorBoard logs and, where it has one, its policy and checkpoints.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: see `task_of`, `make_env` and `refuse_early`.
    """
    torch.set_num_threads(options.threads)
    env = make_env(agent_spec(name), task_of(options), options)
    refuse_early(name, env, options)
    make_folder(out)
    with alone_in(out):
        write_json(out / RUN, _record(name, options, env))
        return _run(name, env, options, out, resume=False)


def resume(out: Path) -> int:
    """Go on with an interrupted run: in the end everything in `out` is as it would be without the interruption.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: `out` is not a folder that `train` wrote, another process works there, or settings, versions, code,
            network, data or machine are not those that the run began with, or a table that it went on with is gone.
        agents.replay.ReplayError: the run does not do again what it did.
    """
    run = read_run(out)
    options = options_of(run)
    torch.set_num_threads(options.threads)
    with alone_in(out):
        env = make_env(agent_spec(run["agent"]), task_of(options), options)
        check_unchanged(out, run, _record(run["agent"], options, env))
        refuse_early(run["agent"], env, options)
        trace = out / f"trace-{run['agent']}.jsonl"
        known = trace.read_bytes().count(b'{"type":"plan"') if trace.exists() else 0
        evaluated: list[int] = []
        # Training is done again up to where it was interrupted, and so are its logs.
        with put_back(out / LOGS, lambda: len(evaluated) >= known):
            return _run(run["agent"], env, options, out, True, [lambda trace, row, improved: evaluated.append(row.evaluation)])


def run_agent(
    name: str, env: gym.Env[Any, Any], options: Options, out: Path, listeners: Sequence[Listener] = (), resume: bool = False
) -> Trace:
    """Run an agent with a progress report and TensorBoard logs.

    Args:
        name: of the agent.
        env: made by `make_env`.
        options: its steps, seed and hyperparameters are used.
        out: the run's folder.
        listeners: told of each evaluated plan too.
        resume: go on with the run whose trace `out` holds.
    """
    log = TensorBoardLog(out / LOGS / name)
    agent = make_agent(name, options.hyperparameters)
    try:
        with ProgressReport(name, options.steps) as progress:
            told: list[Listener] = [*listeners, progress, log]
            return agent.run(env, options.steps, options.seed, out=out, listeners=told, resume=resume)
    finally:
        log.close()


def _run(name: str, env: gym.Env[Any, Any], options: Options, out: Path, resume: bool, listeners: Sequence[Listener] = ()) -> int:
    trace = run_agent(name, env, options, out, [*listeners, BestPlanFile(out / "best_plan.json")], resume)
    print(_summary(trace, out))
    return 0


def _record(name: str, options: Options, env: gym.Env[Any, Any]) -> dict[str, Any]:
    """What the run depends on, JSON-able."""
    asked = {"command": "train", "agent": name} | options.to_dict()
    return asked | {"versions": versions(), "conditions": conditions_of(env)}


def _summary(trace: Trace, out: Path) -> str:
    if trace.best is None:
        best = "no plan within the budget was measured; give more --steps"
    else:
        row = trace.best
        best = (
            f"best plan: return {row.plan_return:.3f}, validation metric {row.metric:.4f}, {row.macs:,} MACs, {row.params:,} params"
        )
        best += f", {row.bytes:,} bytes" + ("" if row.latency is None else f", {1000 * row.latency:.3g} ms")
        best += f" (plan {row.evaluation} of {len(trace.rows)})"
    policy = f"\nfinal policy: return {trace.policy_return:.3f}" if trace.policy_return is not None else ""
    scale = "return: 0 is the dense network, 1 the best uniform rate"
    if trace.env_settings.get("budget") is not None:
        scale += " without a budget"
    met = trace.test_networks
    marked = f"\ntrained on test networks, so no score of a policy on them counts: {', '.join(met)}" if met else ""
    return f"{best}{policy}{marked}\n{scale}\nresults: {out}"
