"""``python -m agents tune``: hyperparameters by Optuna (Akiba et al., KDD 2019) over ``hyperparameters/spaces.yaml``.

The shipped setting is the first that is tried, so that a study says what tuning gains. Networks of split ``test`` are refused, and
the seeds are others than those that benchmarks report.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from agents.arguments import Options, make_env, task_of
from agents.base import evaluations_of_episode
from agents.cli import BadArgumentError
from agents.outputs import make_folder, versions, write, write_json
from agents.registry import agent_spec, make_agent
from agents.replay import drop_torn_line
from agents.resume import RUN, alone_in, check_unchanged, conditions_of, options_of, read_run
from agents.trace import Trace
from agents.tuned import HYPERPARAMETERS
from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import unknown
from reptile_env.tasks import registry

SPACES = HYPERPARAMETERS / "spaces.yaml"
VALUES = ("best", "policy")
LOG = "study.log"  # Optuna's
ERROR = "error"  # what a trial is marked with whose runs raised; one that was interrupted bears no mark


@dataclass(frozen=True)
class Study:
    """What is tuned.

    Attributes:
        agent: its name.
        tasks: names of tasks; the value of a trial is the mean over all of them.
        trials: settings to try.
        seeds: runs of each setting on each task.
        value: ``best``: of the best plan of a run; ``policy``: of the trained policy's own episode.
    """

    agent: str
    tasks: tuple[str, ...]
    trials: int
    seeds: int
    value: str

    def __post_init__(self) -> None:
        if self.value not in VALUES:
            raise BadArgumentError(f"--value: {unknown('value', self.value, VALUES)}")
        for name, number in (("--trials", self.trials), ("--seeds", self.seeds)):
            if number < 1:
                raise BadArgumentError(f"{name} {number}: give at least 1")
        if len(set(self.tasks)) < len(self.tasks):
            raise BadArgumentError(f"--task: {', '.join(self.tasks)}: name each task once")
        for task in self.tasks:
            if ":" in task:
                continue  # a user's own
            try:
                split = registry.task_spec(task).split
            except ValueError as error:
                raise BadArgumentError(f"--task: {error}") from error
            if split == "test":
                raise BadArgumentError(f"--task {task}: this network is kept for tests, so nothing may be tuned on it")


def tune(study: Study, options: Options, out: Path) -> int:
    """Try settings, and keep in a new folder `out` every trial (``study.log``, ``trials.csv``) and the best one (``best.yaml``).

    Args:
        study: what is tuned.
        options: of each run.
        out: a new folder.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: an agent that has no space or, for the value ``policy``, no policy, and what `make_env` refuses.
    """
    if options.seed + study.seeds > 2**32:
        raise BadArgumentError(f"--seed {options.seed}: the last of {study.seeds} --seeds is above 2**32 - 1; give a lower one")
    space, envs = read_space(study.agent), _envs(study, options)
    make_folder(out)
    with alone_in(out):
        write_json(out / RUN, _record(study, options, envs))
        return _try_all(study, options, envs, space, out)


def resume(out: Path) -> int:
    """Go on with an interrupted study; its trials are those that there would be without the interruption.

    Raises:
        BadArgumentError: `out` is not a folder that `tune` wrote, another process works there, or versions, code, networks, data
            or machine have changed since.
    """
    run = read_run(out, "tune")
    asked = run.get("study")
    if (
        not isinstance(asked, dict)
        or set(asked) != {field.name for field in fields(Study)}
        or not isinstance(run.get("options"), dict)
    ):
        raise BadArgumentError(f"{RUN} of this study is not as this version writes it: another version wrote it; start a new study")
    study, options = Study(**asked | {"tasks": tuple(asked["tasks"])}), options_of(run["options"])
    space, envs = read_space(study.agent), _envs(study, options)
    with alone_in(out):
        check_unchanged(out, run, _record(study, options, envs))
        if (out / LOG).exists():
            drop_torn_line(out / LOG)
        return _try_all(study, options, envs, space, out)


def read_space(agent: str) -> dict[str, dict[str, Any]]:
    """Which values an agent's hyperparameters may take.

    Raises:
        BadArgumentError: none are listed for it.
    """
    spaces = yaml.safe_load(SPACES.read_text(encoding="utf-8"))
    if agent not in spaces:
        raise BadArgumentError(str(unknown(f"agent in {SPACES.name}", agent, spaces)))
    space: dict[str, dict[str, Any]] = spaces[agent]
    return space


def suggest(trial: Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Hyperparameters that a trial asks for: a choice among ``choices``, or a number from ``low`` to ``high``.

    A number is whole where both bounds are; ``log: true`` searches its logarithm.
    """
    found: dict[str, Any] = {}
    for name, among in space.items():
        if "choices" in among:
            # By number: Optuna's storages take plain values alone, and choices may be lists.
            found[name] = among["choices"][trial.suggest_categorical(name, range(len(among["choices"])))]
        elif isinstance(among["low"], int) and isinstance(among["high"], int):
            found[name] = trial.suggest_int(name, among["low"], among["high"], log=among.get("log", False))
        else:
            found[name] = trial.suggest_float(name, among["low"], among["high"], log=among.get("log", False))
    return found


def shipped(agent: str, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The setting of an agent's own file, as parameters of a trial, see `suggest`.

    Raises:
        ValueError: the space leaves it out.
    """
    settings, found = make_agent(agent).settings, {}
    for name, among in space.items():
        value = settings[name]
        if not (value in among["choices"] if "choices" in among else among["low"] <= value <= among["high"]):
            raise ValueError(f"{agent}: {SPACES.name} leaves out the shipped {name}: {value!r}; put it there")
        found[name] = among["choices"].index(value) if "choices" in among else value
    return found


def _record(study: Study, options: Options, envs: Sequence[gym.Env[Any, Any]]) -> dict[str, Any]:
    asked = {"command": "tune", "study": asdict(study), "options": options.to_dict()}
    conditions = {task: conditions_of(env) for task, env in zip(study.tasks, envs, strict=True)}
    return asked | {"versions": versions(), "conditions": conditions}


def _envs(study: Study, options: Options) -> list[gym.Env[Any, Any]]:
    torch.set_num_threads(options.threads)
    if study.value == "policy" and make_agent(study.agent).policy_file is None:
        raise BadArgumentError(f"--value policy: {study.agent} trains no policy; tune it by --value best")
    spec = agent_spec(study.agent)
    each = [replace(options, task=task) for task in study.tasks]
    envs = [make_env(spec, task_of(one), one) for one in each]
    kept = {row["name"] for row in registry.tasks() if row["split"] == "test"}
    for task, env in zip(study.tasks, envs, strict=True):
        met = kept.intersection(env.unwrapped.task_names)  # type: ignore[attr-defined]
        if met:  # also where a function returns one
            raise BadArgumentError(f"--task {task}: {', '.join(met)} is kept for tests, so nothing may be tuned on it")
        least = 2 * evaluations_of_episode(env)  # see `agents.policy.reserved`
        if study.value == "policy" and options.steps < least:
            raise BadArgumentError(f"--value policy: {options.steps} --steps leave none for the policy; give at least {least}")
    return envs


def _try_all(
    study: Study, options: Options, envs: Sequence[gym.Env[Any, Any]], space: Mapping[str, Mapping[str, Any]], out: Path
) -> int:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / LOG)))
    kept = optuna.create_study(storage=storage, study_name=study.agent, direction="maximize", load_if_exists=True)
    for interrupted in kept.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        kept.tell(interrupted.number, state=TrialState.FAIL)
    if not kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.WAITING)):
        kept.enqueue_trial(shipped(study.agent, space))
    while len(done := _done(kept)) < study.trials:
        # Seeded by what is done, so that a study taken up again asks for what it would have asked for.
        kept.sampler = optuna.samplers.TPESampler(seed=options.seed + len(done), multivariate=True)
        trial, told = kept.ask(), f"trial {len(done) + 1} of {study.trials}"
        chosen = suggest(trial, space)
        try:
            value = _value(study, options, envs, chosen)
        except (ArithmeticError, RuntimeError, ValueError) as error:
            if not done:  # the shipped setting, so it is not the setting's fault
                raise
            # Such as weights that became NaN: the setting is worth nothing, and what the others have cost is not lost for it.
            trial.set_user_attr(ERROR, str(error) or type(error).__name__)
            kept.tell(trial, state=TrialState.FAIL)
            print(f"{told}: failed, {trial.user_attrs[ERROR]:.200}", flush=True)
        else:
            kept.tell(trial, value)
            first = " (the shipped setting)" if not done else ""
            print(f"{told}: {value:.4f}{first}, best {kept.best_value:.4f}", flush=True)
        _write(kept, space, out)
    _write(kept, space, out)  # a study taken up again may have been through, and cut off before it was written down
    print(f"best setting: {out / 'best.yaml'}; `python -m agents train {study.agent} --hyperparameters` takes it")
    return 0


def _done(kept: optuna.Study) -> list[FrozenTrial]:
    """Trials that won't be made again: those with a value, and those whose setting failed."""
    ended = kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [trial for trial in ended if trial.state == TrialState.COMPLETE or ERROR in trial.user_attrs]


def _value(study: Study, options: Options, envs: Sequence[gym.Env[Any, Any]], hyperparameters: dict[str, Any]) -> float:
    values = []
    for env in envs:
        for seed in range(study.seeds):
            trace = make_agent(study.agent, hyperparameters).run(env, options.steps, options.seed + seed)
            values.append(_reached(trace, env, study.value))
    return float(np.mean(values))


def _reached(trace: Trace, env: gym.Env[Any, Any], value: str) -> float:
    """The score of a run; its return where scores are not known."""
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    if value == "policy":
        assert trace.policy is not None
        reached = trace.rows[trace.policy.evaluation - 1].plan_return
    else:
        reached = trace.best.plan_return if trace.best is not None else 0.0
    score = inner.score(reached)
    return reached if math.isnan(score) else score


def _chosen(trial: FrozenTrial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return suggest(optuna.trial.FixedTrial(trial.params), space)  # type: ignore[arg-type]


def _write(kept: optuna.Study, space: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    _write_trials(_done(kept), space, out)
    write(out / "best.yaml", yaml.safe_dump(_chosen(kept.best_trial, space), sort_keys=False))


def _write_trials(trials: Sequence[FrozenTrial], space: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Every setting with its value, NaN where it failed, for people and spreadsheets; the first one is the shipped setting."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "value", *space])
    rows.writerows(
        [number, f"{math.nan if trial.value is None else trial.value:.6f}", *_chosen(trial, space).values()]
        for number, trial in enumerate(trials, 1)
    )
    write(out / "trials.csv", text.getvalue())
