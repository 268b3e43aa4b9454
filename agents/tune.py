"""``python -m agents tune``: hyperparameters by Optuna (Akiba et al., KDD 2019) over ``hyperparameters/spaces.yaml``.

The shipped setting is the first that is tried, so that a study says what tuning gains. Networks of split ``test`` are refused, and
the seeds are others than those that benchmarks report.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
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
from optuna.trial import FrozenTrial, TrialState

from agents.arguments import Options, make_env, task_of
from agents.base import evaluations_of_episode
from agents.cli import BadArgumentError
from agents.outputs import make_folder, versions, write, write_json
from agents.progress import fraction_bar
from agents.registry import agent_spec, make_agent
from agents.replay import drop_torn_line
from agents.resume import RUN, alone_in, check_unchanged, conditions_of, options_of, read_run
from agents.space import read_space, setting_of, shipped, suggest
from agents.trace import Trace
from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import first_line, unknown
from reptile_env.tasks import registry

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
    space, envs = read_space(study.agent), environments(study, options)
    make_folder(out)
    with alone_in(out):
        write_json(out / RUN, _record(study, options, envs))
        return _try_all(study, options, envs, space, out)


def resume(out: Path) -> int:
    """Go on with an interrupted study; its trials are those that there would be without the interruption.

    Raises:
        BadArgumentError: `out` is not a folder that `tune` wrote, another process works there, or versions, code, networks, data
            or machine have changed since, or its files are damaged.
    """
    run = read_run(out, "tune")
    study, options = study_of(run)
    space, envs = read_space(study.agent), environments(study, options)
    with alone_in(out):
        check_unchanged(out, run, _record(study, options, envs))
        if (out / LOG).exists():
            drop_torn_line(out / LOG)
        return _try_all(study, options, envs, space, out)


def study_of(run: Mapping[str, Any]) -> tuple[Study, Options]:
    """A study and its runs' options, from what `agents.resume.read_run` gives.

    Raises:
        BadArgumentError: another version wrote it, or it is damaged.
    """
    asked = run.get("study")
    if (
        not isinstance(asked, dict)
        or set(asked) != {field.name for field in fields(Study)}
        or not isinstance(run.get("options"), dict)
    ):
        raise BadArgumentError(f"{RUN} of this study is not as this version writes it: another version wrote it; start a new study")
    try:
        study = Study(**asked | {"tasks": tuple(asked["tasks"])})
    except TypeError as error:
        raise BadArgumentError(f"{RUN} of this study is damaged: {error}; start a new study") from error
    return study, options_of(run["options"])


def _record(study: Study, options: Options, envs: Sequence[gym.Env[Any, Any]]) -> dict[str, Any]:
    asked = {"command": "tune", "study": asdict(study), "options": options.to_dict()}
    conditions = {task: conditions_of(env) for task, env in zip(study.tasks, envs, strict=True)}
    return asked | {"versions": versions(), "conditions": conditions}


def environments(study: Study, options: Options) -> list[gym.Env[Any, Any]]:
    """Those of a study's tasks.

    Raises:
        BadArgumentError: networks that are kept for tests, an agent without the policy whose value is asked for, or what
            `make_env` refuses.
    """
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
    try:
        storage = JournalStorage(JournalFileBackend(str(out / LOG)))
        kept = optuna.create_study(storage=storage, study_name=study.agent, direction="maximize", load_if_exists=True)
    except ValueError as error:  # a line that is no JSON
        raise BadArgumentError(f"{out / LOG} is damaged: {first_line(error)}; start a new study") from error
    for interrupted in kept.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        kept.tell(interrupted.number, state=TrialState.FAIL)
    if not kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.WAITING)):
        kept.enqueue_trial(shipped(study.agent, space))
    with fraction_bar(f"{study.agent}: {study.trials} settings") as show:
        _try_on(kept, study, options, envs, space, out, show)
    _write(kept, space, out)  # a study taken up again may have been through, and cut off before it was written down
    print(f"best setting: {out / 'best.yaml'}; `python -m agents train {study.agent} --hyperparameters` takes it")
    return 0


def _try_on(
    kept: optuna.Study,
    study: Study,
    options: Options,
    envs: Sequence[gym.Env[Any, Any]],
    space: Mapping[str, Mapping[str, Any]],
    out: Path,
    show: Callable[[float], None],
) -> None:
    while len(done := _done(kept)) < study.trials:
        # Seeded by what is done, so that a study taken up again asks for what it would have asked for.
        kept.sampler = optuna.samplers.TPESampler(seed=options.seed + len(done), multivariate=True)
        trial, told = kept.ask(), f"trial {len(done) + 1} of {study.trials}"
        chosen = suggest(trial, space)
        try:
            value = _value(study, options, envs, chosen, lambda part: show((len(done) + part) / study.trials))
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


def _done(kept: optuna.Study) -> list[FrozenTrial]:
    """Trials that won't be made again: those with a value, and those whose setting failed."""
    ended = kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [trial for trial in ended if trial.state == TrialState.COMPLETE or ERROR in trial.user_attrs]


def _value(
    study: Study,
    options: Options,
    envs: Sequence[gym.Env[Any, Any]],
    hyperparameters: dict[str, Any],
    show: Callable[[float], None],
) -> float:
    runs = [(env, options.seed + seed) for env in envs for seed in range(study.seeds)]
    values = []
    for env, seed in runs:
        values.append(reached(study, options, env, hyperparameters, seed))
        show(len(values) / len(runs))
    return float(np.mean(values))


def reached(study: Study, options: Options, env: gym.Env[Any, Any], hyperparameters: dict[str, Any], seed: int) -> float:
    """The value of one run with `hyperparameters` in `env`, see `Study.value`."""
    return _worth(make_agent(study.agent, hyperparameters).run(env, options.steps, seed), env, study.value)


def _worth(trace: Trace, env: gym.Env[Any, Any], value: str) -> float:
    """The score of a run; its return where scores are not known."""
    inner = env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    if value == "policy":
        assert trace.policy_return is not None
        value_of_run = trace.policy_return
    else:
        value_of_run = trace.best.plan_return if trace.best is not None else 0.0
    score = inner.score(value_of_run)
    return value_of_run if math.isnan(score) else score


def _write(kept: optuna.Study, space: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    _write_trials(_done(kept), space, out)
    write(out / "best.yaml", yaml.safe_dump(setting_of(kept.best_trial, space), sort_keys=False))


def _write_trials(trials: Sequence[FrozenTrial], space: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Every setting with its value, NaN where it failed, for people and spreadsheets; the first one is the shipped setting."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "value", *space])
    rows.writerows(
        [number, f"{math.nan if trial.value is None else trial.value:.6f}", *setting_of(trial, space).values()]
        for number, trial in enumerate(trials, 1)
    )
    write(out / "trials.csv", text.getvalue())
