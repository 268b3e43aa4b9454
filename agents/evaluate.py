"""``python -m agents evaluate``: what a run found, on the validation and the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from agents import table
from agents.arguments import DRAWING, Options, make_env, task_of
from agents.base import evaluations_of_episode
from agents.cli import BadArgumentError
from agents.outputs import make_folder, write, write_json
from agents.policy import play_policy
from agents.registry import agent_spec, make_agent
from agents.resume import options_of, read_run
from agents.table import Entry
from agents.trace import Trace
from reptile_env.compression.device import make_device
from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import first_line


def evaluate(
    folder: Path, task: str | None, evaluator: str | None, policy: Path | None, device: str | None, out: Path | None
) -> int:
    """Replay the best plan of a run, play its trained policy once without exploration, and print what both measure.

    Args:
        folder: that `train` wrote.
        task: another network to play the policy on, which then sees nothing but this one episode; None for the run's own.
        evaluator: ``live`` or ``table``; None for the run's own.
        policy: file of the policy, such as a checkpoint; None for the one that the run ended with.
        device: on which networks run, so that a run of a GPU can be looked at without one; None for the run's own.
        out: a new folder for ``table.json`` and ``table.csv``; None writes nothing.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: no such run, a policy that can't be read or does not fit the task, or nothing to evaluate.
    """
    run = read_run(folder)
    options, name = options_of(run), run["agent"]
    if task is not None:
        # One network, whether the run was on one or drew them from a family.
        options = replace(options, task=task, env=None if options.env == DRAWING else options.env)
    if options.task is None:
        raise BadArgumentError(f"{folder}: its networks were drawn; name the one to play the policy on with --task")
    options = replace(options, evaluator=evaluator or options.evaluator)
    options = _on(device, folder, options)
    torch.set_num_threads(options.threads)
    made = make_env(agent_spec(name), task_of(options), options)
    env = made.unwrapped
    assert isinstance(env, ReptilePruneEnv)
    entries = [
        table.measured("dense", 0, env.evaluator.dense, env),
        table.measured("best uniform", len(env.uniform_sweep), env.reference.uniform_plan, env),
    ]
    trace = _trace(folder, name)
    if trace is not None and trace.task == env.evaluator.name and trace.best is not None:
        try:
            entries.append(table.measured("best plan", len(trace.rows), trace.best.plan, env))
        except ValueError as error:  # a user's network that has changed since
            raise BadArgumentError(f"{folder}: its best plan can't be carried out on task {trace.task!r}: {error}") from error
    entries += _policy_entry(folder, name, policy, env, evaluations_of_episode(made))
    if len(entries) == 2:
        raise BadArgumentError(f"{folder} holds no plan of task {env.evaluator.name!r} and no trained policy")
    metric = env.evaluator.metric_name
    if out is not None:
        make_folder(out)
        write_json(out / "table.json", table.to_json(entries, metric))
        write(out / "table.csv", table.to_csv(entries))
    print(table.to_text(entries, metric))
    of_which = "" if options.budget is None else " without a budget, as in the table"
    print(f"return: 0 is the dense network, 1 the best uniform rate{of_which}")
    return 0


def _on(device: str | None, folder: Path, options: Options) -> Options:
    """The options with that device, or with the run's own, which is to be here."""
    if device is not None:
        return replace(options, others=options.others | {"device": device})
    try:
        make_device(options.others.get("device"))
    except ValueError as error:
        raise BadArgumentError(f"{folder}: {error}; `python -m agents evaluate --device cpu` does the former") from error
    return options


def _trace(folder: Path, name: str) -> Trace | None:
    path = folder / f"trace-{name}.jsonl"
    try:
        return Trace.load(path) if path.exists() else None
    except ValueError as error:
        raise BadArgumentError(str(error)) from error


def _policy_entry(folder: Path, name: str, path: Path | None, env: ReptilePruneEnv, evaluated: int) -> list[Entry]:
    """What one episode of the policy, of so many evaluated plans, ends with; nothing where the run has none."""
    agent = make_agent(name)
    if path is None:
        if agent.policy_file is None or not (folder / agent.policy_file).is_file():
            return []
        path = folder / agent.policy_file
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "there is no such file"
        raise BadArgumentError(f"--policy {path}: {what}")
    try:
        policy = agent.load_policy(path)
    except Exception as error:  # the libraries raise whatever comes of a file that is not theirs
        raise BadArgumentError(f"{path} holds no policy of agent {name!r}: {first_line(error)}") from error
    try:
        play_policy(env, policy, seed=0)
    except (ValueError, RuntimeError) as error:
        raise BadArgumentError(
            f"{path} can't be played on task {env.evaluator.name!r}: {error}; only what was trained on observation 'group' plays "
            "on networks of other sizes"
        ) from error
    return [table.measured("policy", evaluated, env.plan, env)]
