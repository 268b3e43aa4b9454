"""Carrying out a suite: which runs are missing in a folder, and writing each as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agents.registry import agent_spec
from benchmarks.engine import Engine, Lost
from benchmarks.execution import AGENT_CODE, TRAINING, Finished, Job, agent_code, execute, failure, now, shipped_settings
from benchmarks.results import Run, iter_runs, read_run, run_path
from benchmarks.results_folder import check_claim, claim, is_empty, write_new, write_over
from benchmarks.suites import Suite, check_agent, env_of

# Told of every job that is done: the job, and what came of it.
Listener = Callable[[Job, Finished], None]


def jobs_of(suite: Suite, agents: Sequence[str], tasks: Sequence[str], seeds: int, git: str | None = None) -> list[Job]:
    """What is to be run of a suite.

    Args:
        suite: that they belong to.
        agents: names.
        tasks: names of the suite's cases.
        seeds: how many, from 0.
        git: revision of the code.

    Raises:
        ValueError: an unknown agent or case, an agent that can't run the suite, or seeds that it has not.
    """
    if not 1 <= seeds <= suite.seeds:
        raise ValueError(
            f"seeds={seeds}; {suite.title} has the seeds 0 to {suite.seeds - 1}: give a number from 1 to {suite.seeds}"
        )
    if not agents or not tasks:
        raise ValueError(f"no {'task' if agents else 'agent'} is named; name at least one")
    for agent in agents:
        check_agent(suite, agent)
    cases = tuple(suite.case(task) for task in dict.fromkeys(tasks))
    together = [cases] if suite.training_networks else [(case,) for case in cases]
    # Seeds first, so that a suite that is stopped early has compared all agents on all tasks.
    return [Job(suite, agent, each, seed, git) for seed in range(seeds) for each in together for agent in dict.fromkeys(agents)]


def paths_of(folder: Path, job: Job) -> dict[str, Path]:
    """By name of the case the files of a job."""
    return {case.name: run_path(folder, job.agent, case.name, job.seed) for case in job.cases}


@dataclass(frozen=True)
class State:
    """What a folder holds of some jobs.

    Attributes:
        missing: those of which a run is missing.
        done: those whose runs are there and done.
        failed: those that failed, with the error.
        other_code: agents of which the folder holds runs that other code of theirs has made, as far as the runs tell.
    """

    missing: list[Job]
    done: list[Job]
    failed: list[tuple[Job, str]]
    other_code: list[str]


def state_of(folder: Path, suite: Suite, jobs: Sequence[Job]) -> State:
    """Compare a folder with the jobs.

    Raises:
        ValueError: it holds something else than results of this suite, damaged ones, or runs that were made with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the results")
    if is_empty(folder):
        return State(list(jobs), [], [], [])
    check_claim(folder, suite.title, suite.digest)
    wanted = {path: job for job in jobs for path in paths_of(folder, job).values()}
    errors: dict[Path, str | None] = {}
    other_code: set[str] = set()
    for run in iter_runs(folder):
        path = run_path(folder, run.agent, run.task, run.seed)
        if path in wanted:
            _check_settings(path, wanted[path], run)
            errors[path] = run.error
            if AGENT_CODE in run.versions and not agent_code(run.agent).items() <= run.versions.items():
                other_code.add(run.agent)
    state = State([], [], [], sorted(other_code))
    for job in jobs:
        paths = paths_of(folder, job).values()
        error = next((errors[path] for path in paths if errors.get(path)), None)
        if not all(path in errors for path in paths):
            state.missing.append(job)
        elif error is None:
            state.done.append(job)
        else:
            state.failed.append((job, error))
    return state


def _check_settings(path: Path, job: Job, run: Run) -> None:
    """Refuse to mix runs of an agent under different settings."""
    case = job.suite.case(run.task)
    env_id, settings = env_of(job.suite, case, agent_spec(job.agent))
    differing = [] if (run.env_id, run.settings) == (env_id, settings) else [f"its environment was {run.env_id} {run.settings}"]
    if not run.error:
        wanted = shipped_settings(job.agent, TRAINING if job.suite.training_networks else case.task)
        if run.agent_settings != wanted:
            differing.append(f"its hyperparameters were {run.agent_settings}")
    if differing:
        raise ValueError(
            f"{path} was made with other settings ({'; '.join(differing)}); name another folder, or delete {path.parent}"
        )


def run_jobs(jobs: Sequence[Job], folder: Path, engine: Engine, listener: Listener = lambda job, finished: None) -> None:
    """Carry out jobs and write each run as soon as it is there; one that failed before stays until then.

    Args:
        jobs: those that are missing.
        folder: of the results.
        engine: carries them out.
        listener: told of every run once it is on disk.

    Raises:
        OSError: a run can't be written; those before it are kept.
        RuntimeError: see `Engine`.
    """
    if not jobs:
        return
    claim(folder, jobs[0].suite.title, jobs[0].suite.digest)
    started = now()
    with closing(engine.run(execute, jobs)) as results:
        for job, result in results:
            finished = failure(job, result.reason, 0.0, started) if isinstance(result, Lost) else result
            for name, path in paths_of(folder, job).items():
                _keep(path, finished.files[name])
            listener(job, finished)


def _keep(path: Path, data: bytes) -> None:
    """Write a run. It takes the place of one that failed; one that is done, by whatever command, stays."""
    try:
        write_new(path, data)
    except FileExistsError:
        if read_run(path).status == "failed":
            write_over(path, data)
