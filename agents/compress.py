"""``python -m agents compress``: the engineer's command. A task goes in, a smaller network comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import reptile_env
from agents import picture, table
from agents.arguments import Options, make_env, resolve_task
from agents.cli import BadArgumentError
from agents.outputs import BestPlanFile, make_folder, versions, write, write_json
from agents.registry import AGENTS, agent_spec
from agents.table import Entry
from agents.trace import Trace
from agents.train import run_agent
from reptile_env.actions import DEFAULT_MAX_RATE, uniform_rates
from reptile_env.compression import program
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator, structure_of


def compress(agent: str, options: Options, out: Path) -> int:
    """Search with an agent and with random search on as many evaluated plans, and save the best network found.

    Plans are chosen on the validation split alone; the test split is read once, for the table.

    Returns:
        The exit status: 0, or 1 where the saved network does not measure what the table says.

    Raises:
        BadArgumentError: see `resolve_task` and `make_env`.
    """
    torch.set_num_threads(options.threads)
    task = resolve_task(options.task)
    env = make_env(agent_spec(agent), task, options)
    try:
        # What can't be saved in the end is refused now, not after the search.
        program.trace(structure_of(task).model, task.valid[:2].inputs)
    except ValueError as error:
        raise BadArgumentError(f"--task {options.task}: {error}") from error
    make_folder(out)
    write_json(out / "run.json", {"command": "compress", "agent": agent} | options.to_dict() | {"versions": versions()})
    best_plan = BestPlanFile(out / "best_plan.json")
    traces = {}
    # The sweep is cheap and its plans are what returns are measured against; the agent's name may itself be one of these.
    for name in dict.fromkeys(["uniform", "random", agent]):
        measured = env if name == agent else make_env(AGENTS[name], task, replace(options, measure=None))
        sweep = replace(options, steps=len(uniform_rates(DEFAULT_MAX_RATE)) * options.rounds)
        traces[name] = run_agent(name, measured, sweep if name == "uniform" else options, out, [best_plan])
    entries = _entries(env, agent, traces)
    metric = _inner(env).evaluator.metric_name
    write_json(out / "table.json", table.to_json(entries, metric))
    write(out / "table.csv", table.to_csv(entries))
    chosen = next(entry for entry in entries if entry.chosen)
    assert chosen.plan is not None
    reptile_env.compress(task, chosen.plan, recovery=options.recovery).save(out / "network")
    picture.draw(out / "picture.png", _inner(env), entries, {name: traces[name] for name in dict.fromkeys(["random", agent])})
    print(f"\n{task.name}: compressed for {options.cost}, budget {options.budget or 'none'}, seed {options.seed}\n")
    print(table.to_text(entries, metric))
    print(_verdict(agent, entries, traces), flush=True)
    return _verify(out)


def _inner(env: gym.Env[Any, Any]) -> ReptilePruneEnv:
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    return inner


def _entries(env: gym.Env[Any, Any], agent: str, traces: dict[str, Trace]) -> list[Entry]:
    inner = _inner(env)
    budget = traces[agent].env_settings["budget"]
    uniform = traces["uniform"].best.plan if budget is not None and traces["uniform"].best else inner.reference.uniform_plan
    entries = [
        _entry("dense", 0, inner.evaluator.dense, inner),
        _entry("best uniform", len(traces["uniform"].rows), uniform, inner),
    ]
    for name in dict.fromkeys(["random", agent]):
        if name != "uniform":
            best = traces[name].best
            entries.append(_entry(table.label(name), len(traces[name].rows), best.plan if best else None, inner))
    winner = max(entries[1:], key=lambda entry: -float("inf") if entry.plan_return is None else entry.plan_return)
    return [replace(entry, chosen=entry is winner) for entry in entries]


def _entry(name: str, evaluated: int, plan: Plan | None, env: ReptilePruneEnv) -> Entry:
    if plan is None:
        return Entry(name, evaluated)
    evaluator = env.evaluator
    assert isinstance(evaluator, LiveEvaluator)
    measured = evaluator.measure(plan)
    test = evaluator.test(plan).metric if evaluator.task.has_test else None
    costs = (measured.params, measured.macs, measured.bytes)
    return Entry(
        name, evaluated, measured.metric, test, *costs, env.reference.return_of(measured), plan=plan, latency=measured.latency
    )


def _verdict(agent: str, entries: list[Entry], traces: dict[str, Trace]) -> str:
    chosen = next(entry for entry in entries if entry.chosen)
    lines = [f"> {chosen.name} found the best plan on the validation split; its network is saved."]
    lines += [f"  {e.name} measured no plan within the budget; give more --steps." for e in entries if e.plan_return is None]
    policy = traces[agent].policy
    if policy is not None:
        lines.append(f"  The trained {agent} policy, played once without exploring, returns {policy.episode_return:.3f}.")
    by_step = traces[agent].env_settings["measure"] == "step"
    exception = f", but {agent}'s are measured after each decision" if by_step else ""
    lines.append(f"  evaluated: complete plans{exception}.")
    lines.append("  return: 0 is the dense network, 1 the best uniform rate" + _without(traces[agent]))
    return "\n".join(lines)


def _without(trace: Trace) -> str:
    """What tells the scale's best uniform rate from the table's, which meets the budget."""
    return "." if trace.env_settings["budget"] is None else " without a budget; the table's best uniform meets it."


def _verify(out: Path) -> int:
    """Load the saved network in a new process and measure it there."""
    checkout = str(Path(__file__).parent.parent)
    paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-m", "agents", "verify", str(out)], env=environment, check=False).returncode
