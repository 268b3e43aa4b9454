"""``python -m agents compress``: the engineer's command. A task goes in, a smaller network comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import reptile_env
from agents import picture, table
from agents.arguments import Options, make_env, resolve_task
from agents.base import evaluations_of_episode
from agents.cli import BadArgumentError
from agents.outputs import BestPlanFile, make_folder, versions, write, write_json
from agents.refusals import refuse_early
from agents.registry import AGENTS, agent_spec
from agents.table import Entry
from agents.trace import Trace
from agents.train import run_agent
from reptile_env.compression import program
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import structure_of


def compress(agent: str, options: Options, out: Path) -> int:
    """Search with an agent and with random search on as many evaluated plans, and save the best network found.

    Of an agent that does not search, its one plan is saved. Plans are chosen on the validation split alone; the test split is read
    once, for the table.

    Returns:
        The exit status: 0, or 1 where the saved network does not measure what the table says.

    Raises:
        BadArgumentError: see `resolve_task`, `make_env` and `refuse_early`.
    """
    torch.set_num_threads(options.threads)
    assert options.task is not None
    task = resolve_task(options.task)
    spec = agent_spec(agent)
    env = make_env(spec, task, options)
    if not spec.searches:
        options = replace(options, steps=evaluations_of_episode(env))
    try:
        # What can't be saved in the end is refused now, not after the search.
        program.trace(structure_of(task).model, task.valid[:2].inputs)
    except ValueError as error:
        raise BadArgumentError(
            f"--task {options.task}: {error}; find a plan with `python -m agents train`, and save its network with "
            "reptile_env.compress(task, plan).save(directory, with_program=False), for load(directory, into=the dense network)"
        ) from error
    refuse_early(agent, env, options)
    # What was asked of the agent alone is not asked of the others.
    plain = replace(options, measure=None, observation=None, reward=None, hyperparameters={})
    if "rates" in options.others:  # they are listed: the others choose among the same
        plain = replace(plain, env=spec.env_id if options.env is None else options.env)
    # The sweep is cheap and its plans are what returns are measured against; the agent's name may itself be one of these.
    names = list(dict.fromkeys(["uniform", "random", agent] if spec.searches else [agent]))
    envs = {name: env if name == agent else make_env(AGENTS[name], task, plain) for name in names}
    make_folder(out)
    write_json(out / "run.json", {"command": "compress", "agent": agent} | options.to_dict() | {"versions": versions()})
    inner = _inner(env)
    # Of another sweep the others' returns can be on another scale.
    best_plan = BestPlanFile(out / "best_plan.json", lambda row: inner.reference.return_of(inner.evaluator.measure(row.plan)))
    traces = {}
    for name, own in envs.items():
        asked = options if name == agent else plain
        if name == "uniform":
            asked = replace(asked, steps=len(_inner(own).uniform_sweep) * evaluations_of_episode(own))
        traces[name] = run_agent(name, own, asked, out, [best_plan])
    entries = _entries(env, agent, traces)
    metric = _inner(env).evaluator.metric_name
    write_json(out / "table.json", table.to_json(entries, metric))
    write(out / "table.csv", table.to_csv(entries))
    chosen = next(entry for entry in entries if entry.chosen)
    assert chosen.plan is not None
    settings = asdict(_inner(env).evaluator.settings)
    reptile_env.compress(task, chosen.plan, device=options.others.get("device"), **settings).save(out / "network")
    picture.draw(out / "picture.png", _inner(env), entries, {name: traces[name] for name in ("random", agent) if name in traces})
    print(f"\n{task.name}: compressed for {_inner(env).reference.cost}, budget {options.budget or 'none'}, seed {options.seed}\n")
    print(table.to_text(entries, metric))
    print(_verdict(agent, entries, traces), flush=True)
    return _verify(out)


def _inner(env: gym.Env[Any, Any]) -> ReptilePruneEnv:
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    return inner


def _entries(env: gym.Env[Any, Any], agent: str, traces: dict[str, Trace]) -> list[Entry]:
    inner = _inner(env)
    swept = traces.get("uniform")
    # The sweep meets the budget, and its rates are more than those that some agents choose among.
    uniform = swept.best.plan if swept and swept.best else inner.reference.uniform_plan
    entries = [
        table.measured("dense", 0, inner.evaluator.dense, inner),
        table.measured("best uniform", len(swept.rows) if swept else len(inner.uniform_sweep), uniform, inner),
    ]
    for name in dict.fromkeys(["random", agent]):
        if name != "uniform" and name in traces:
            best = traces[name].best
            entries.append(table.measured(table.label(name), len(traces[name].rows), best.plan if best else None, inner))
    # Whoever asks for a pass without a search gets what it gives; the sweep is there to compare with.
    choices = entries[1:] if agent_spec(agent).searches else entries[-1:]
    winner = max(choices, key=lambda entry: -float("inf") if entry.plan_return is None else entry.plan_return)
    return [replace(entry, chosen=entry is winner) for entry in entries]


def _verdict(agent: str, entries: list[Entry], traces: dict[str, Trace]) -> str:
    chosen = next(entry for entry in entries if entry.chosen)
    if agent_spec(agent).searches:
        lines = [f"> {chosen.name} found the best plan on the validation split; its network is saved."]
    else:
        lines = [f"> The network of {chosen.name}'s one pass is saved; the sweep of uniform rates is there to compare with."]
    lines += [f"  {e.name} measured no plan within the budget; give more --steps." for e in entries if e.plan_return is None]
    returned = traces[agent].policy_return
    if returned is not None and agent_spec(agent).searches:
        lines.append(f"  The trained {agent} policy, played once without exploring, returns {returned:.3f}.")
    by_step = traces[agent].env_settings["measure"] == "step"
    exception = f", but {agent}'s are measured after each decision" if by_step else ""
    lines.append(f"  evaluated: complete plans{exception}.")
    lines.append("  return: 0 is the dense network, 1 the best uniform rate" + _of_which(entries[1], traces, agent))
    return "\n".join(lines)


def _of_which(uniform: Entry, traces: dict[str, Trace], agent: str) -> str:
    """What tells the scale's best uniform rate from the table's: that one meets a budget, or is none that the agent can choose."""
    if traces[agent].env_settings["budget"] is None:
        return f" that {agent} can choose." if uniform.plan_return is not None and uniform.plan_return > 1 else "."
    return " without a budget" + ("; the table's best uniform meets it." if "uniform" in traces else ", as in the table.")


def _verify(out: Path) -> int:
    """Load the saved network in a new process and measure it there."""
    checkout = str(Path(__file__).parent.parent)
    paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-m", "agents", "verify", str(out)], env=environment, check=False).returncode
