"""``python -m agents confirm``: the best setting of a study beside the shipped one, on networks that the study did not see.

The best of many settings is the best partly by luck, and on other networks and seeds the luck is gone (Bouthillier et al.,
Accounting for Variance in Machine Learning Benchmarks, MLSys 2021). Both settings run on the same networks with the same seeds, so
that their difference is a paired one; its interval is over networks.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from scipy.stats import bootstrap

from agents.arguments import Options
from agents.cli import BadArgumentError
from agents.outputs import make_folder, versions, write_json
from agents.progress import fraction_bar
from agents.resume import RUN, alone_in, check_unchanged, conditions_of, read_run
from agents.space import SPACES, read_space, setting_of
from agents.tune import LOG, Study, environments, reached, study_of
from reptile_env.errors import first_line

FOLDER = "confirmation"  # within the study's
ROWS = "runs.csv"
COLUMNS = ("task", "seed", "shipped", "best")


class Gain(NamedTuple):
    """What the best setting gains over the shipped one.

    Attributes:
        shipped: mean value of the shipped setting over networks.
        best: that of the study's best one.
        gain: their difference.
        low: lower end of its 95 % bootstrap interval over networks.
        high: upper end.
    """

    shipped: float
    best: float
    gain: float
    low: float
    high: float


def confirm(folder: Path, tasks: Sequence[str], seed: int, seeds: int) -> int:
    """Run both settings on each task with each seed and tell what the best one gains; a confirmation that was cut off goes on.

    Args:
        folder: of a study; what is found is kept in its ``confirmation``.
        tasks: at least two, none of them the study's.
        seed: of the first run on each task.
        seeds: runs of each setting on each task.

    Returns:
        The exit status, 0.

    Raises:
        BadArgumentError: no study, one whose best setting is the shipped one, tasks or seeds of the study itself, networks that are
            kept for tests, or a confirmation that is there already and is of other tasks, seeds or code, or damaged.
    """
    study, options = study_of(read_run(folder, "tune"))
    shipped, best = settings(folder, study.agent)
    if shipped == best:
        raise BadArgumentError(f"{folder}: no setting of this study is better than the shipped one, so there is nothing to confirm")
    if known := sorted(set(tasks) & set(study.tasks)):
        raise BadArgumentError(f"--task {', '.join(known)}: the study chose its setting there; name others")
    if len(tasks) < 2:
        raise BadArgumentError("--task: name two other tasks at least, the interval is over them")
    if seed < options.seed + study.seeds and options.seed < seed + seeds:
        raise BadArgumentError(f"--seed {seed}: the study chose its setting with seeds from {options.seed}; give another")
    if seed + seeds > 2**32:
        raise BadArgumentError(f"--seed {seed}: the last of {seeds} --seeds is above 2**32 - 1; give a lower one")
    asked, each = replace(study, tasks=tuple(tasks), seeds=seeds), replace(options, task=tasks[0], seed=seed)
    envs = environments(asked, each)
    conditions = {task: conditions_of(env) for task, env in zip(tasks, envs, strict=True)}
    record = {
        "command": "confirm",
        "tasks": list(tasks),
        "seed": seed,
        "seeds": seeds,
        "shipped": shipped,
        "best": best,
        "versions": versions(),
        "conditions": conditions,
    }
    out = folder / FOLDER
    begun = (out / RUN).exists()
    if not begun:
        make_folder(out)
        if (out / ROWS).exists():
            raise BadArgumentError(f"{out} holds {ROWS} and no {RUN}, so what it ran is not known; move it away to confirm anew")
    with alone_in(out):
        if begun:
            _check_same(out, record)
        else:
            write_json(out / RUN, record)
        done = {(row["task"], int(row["seed"])) for row in read_rows(out)} if (out / ROWS).exists() else set()
        left = [(task, env, each.seed + n) for task, env in zip(tasks, envs, strict=True) for n in range(seeds)]
        left = [(task, env, number) for task, env, number in left if (task, number) not in done]
        with (out / ROWS).open("a", encoding="utf-8", newline="") as file, fraction_bar(f"confirm {study.agent}") as show:
            rows = csv.writer(file, lineterminator="\n")
            if not file.tell():
                rows.writerow(COLUMNS)
            for number, (task, env, of) in enumerate(left, 1):
                values = reached(asked, each, env, shipped, of), _value(asked, each, env, best, of)
                rows.writerow([task, of, *(f"{value:.6f}" for value in values)])
                file.flush()
                show(number / len(left))
    told = gain_of(read_rows(out))
    print(f"{study.agent}, {len(tasks)} networks, {seeds} seeds: shipped {told.shipped:.3f}, best of the study {told.best:.3f}")
    print(f"gain {told.gain:+.3f}, 95 % interval over networks {told.low:+.3f} to {told.high:+.3f}; runs in {out / ROWS}")
    return 0


def _check_same(out: Path, record: dict[str, Any]) -> None:
    """As `check_unchanged`, which can't tell that a study has one folder for its confirmation."""
    try:
        check_unchanged(out, read_run(out, "confirm"), record, "confirm")
    except BadArgumentError as error:
        raise BadArgumentError(f"{error}: move {out} away to confirm anew") from error


def _value(study: Study, options: Options, env: gym.Env[Any, Any], setting: dict[str, Any], seed: int) -> float:
    """NaN for a setting whose run fails, as `agents.tune` has it: elsewhere it is worth nothing, which is what was asked."""
    try:
        return reached(study, options, env, setting, seed)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        print(f"{study.agent}, seed {seed}, failed with {setting}: {error!s:.200}", flush=True)
        return math.nan


def settings(folder: Path, agent: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shipped and the best setting of a study: that of its first trial, and that of the highest value.

    Raises:
        BadArgumentError: the study has no trial yet, its log is damaged, or the space has changed since.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, trials = read_space(agent), []
    if (folder / LOG).exists():
        try:
            kept = optuna.load_study(study_name=agent, storage=JournalStorage(JournalFileBackend(str(folder / LOG))))
            trials = kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        except KeyError:
            pass  # killed before its first trial was asked for
        except ValueError as error:
            raise BadArgumentError(f"{folder / LOG} is damaged: {first_line(error)}; start a new study") from error
    if not trials:
        raise BadArgumentError(f"{folder}: no trial of this study has ended; `python -m agents tune --resume {folder}` goes on")
    try:
        return setting_of(trials[0], space), setting_of(kept.best_trial, space)
    except ValueError as error:
        raise BadArgumentError(f"{folder}: {SPACES.name} has changed since: {first_line(error)}; start a new study") from error


def read_rows(out: Path) -> list[dict[str, str]]:
    """The runs of a confirmation; a last line that was torn by a kill is left out, and taken out of the file.

    Raises:
        BadArgumentError: damaged.
    """
    path = out / ROWS
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(whole.splitlines()))
        for row in rows:
            _ = row["task"], int(row["seed"]), float(row["shipped"]), float(row["best"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadArgumentError(f"{path} is damaged: {first_line(error)}; move {out} away to confirm anew") from error
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return rows


def gain_of(rows: Sequence[dict[str, str]]) -> Gain:
    """What the rows of a confirmation say; the interval is a percentile bootstrap over the networks' mean differences.

    All are NaN of a setting that failed in a run, and so is the difference.
    """
    tasks = sorted({row["task"] for row in rows})
    means = {
        name: np.array([np.mean([float(row[name]) for row in rows if row["task"] == task]) for task in tasks])
        for name in ("shipped", "best")
    }
    gains = means["best"] - means["shipped"]
    ends = (math.nan, math.nan)
    if np.isfinite(gains).all():
        ends = bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return Gain(float(means["shipped"].mean()), float(means["best"].mean()), float(gains.mean()), *map(float, ends))
