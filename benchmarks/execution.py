"""One job of a suite: an agent on a case with a seed, from the environment to the bytes of its files. What engines carry out."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch

import reptile_env  # noqa: F401 (registers the environments)
from agents.base import Recorder
from agents.outputs import versions
from agents.policy import play_policy
from agents.registry import agent_spec, make_agent
from agents.source import source_digest
from agents.trace import Trace
from benchmarks.recording import Stopwatch, recorded
from benchmarks.results import Run, from_bytes, to_bytes
from benchmarks.suites import Case, Suite, env_of, training_env_of
from reptile_env.compression.latency_file import machine
from reptile_env.tasks.registry import task_spec
from reptile_env.tasks.transfer.members import SUITE

TRAINING = f"{SUITE}-train"  # what agents are prepared for where they are trained on a family of networks


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        suite: that it belongs to.
        agent: a name of the agents' registry.
        cases: what the agent is scored on: one, or where it is trained on other networks, several.
        seed: of everything that is drawn.
        git: revision of the code, as the machine knows it that hands out the jobs.
    """

    suite: Suite
    agent: str
    cases: tuple[Case, ...]
    seed: int
    git: str | None = None

    @property
    def family(self) -> str:
        """Jobs of one family share networks, tables and caches."""
        return self.suite.name if self.suite.training_networks else self.cases[0].task


class Finished(NamedTuple):
    """What came of a job.

    Attributes:
        files: by name of the case the content of the run's file.
        error: the traceback of a job that failed, else None.
        seconds: that it took.
    """

    files: dict[str, bytes]
    error: str | None
    seconds: float


def execute(job: Job) -> Finished:
    """Carry out a job. What goes wrong in it is its result: it never raises an `Exception`."""
    torch.set_num_threads(job.suite.threads)
    _versions()  # of the code as this process has it, whatever happens to its files during a long run
    begun, started = time.perf_counter(), now()
    try:
        found = list(_transferred(job) if job.suite.training_networks else _searched(job))
        seconds = time.perf_counter() - begun
        files = {
            case.name: to_bytes(Run(**_head(job, case, started, seconds), status="done", error=None, **parts))
            for case, parts in zip(job.cases, found, strict=True)
        }
        for data in files.values():
            from_bytes(data)  # what nobody can read again is a failure, not a file that stops every command
    except Exception:
        error = traceback.format_exc()
        return failure(job, error, time.perf_counter() - begun, started)
    return Finished(files, None, seconds)


def failure(job: Job, error: str, seconds: float, started: str) -> Finished:
    """A job that failed: the rows that say so."""
    rows = {
        case.name: to_bytes(Run(**_head(job, case, started, seconds), agent_settings={}, status="failed", error=error))
        for case in job.cases
    }
    return Finished(rows, error, seconds)


def now() -> str:
    """Date and time in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _searched(job: Job) -> Iterator[dict[str, Any]]:
    """The agent evaluates plans of the case's own network."""
    for case in job.cases:
        env_id, settings = env_of(job.suite, case, agent_spec(job.agent))
        env = Stopwatch(gym.make(env_id, **settings))
        try:
            trace = make_agent(job.agent).run(env, case.evaluations, job.seed)
            yield recorded(trace, env, settings)
        finally:
            env.close()


def _transferred(job: Job) -> Iterator[dict[str, Any]]:
    """The agent is trained on other networks; its policy then plays one episode on that of each case, which it never met."""
    spec, agent = agent_spec(job.agent), make_agent(job.agent)
    assert agent.policy_file is not None
    env_id, settings = training_env_of(job.suite, spec)
    with tempfile.TemporaryDirectory() as folder:
        training = gym.make(env_id, **settings)
        agent.run(training, job.cases[0].evaluations, job.seed, out=Path(folder))
        training.close()
        policy = agent.load_policy(Path(folder) / agent.policy_file)
    for case in job.cases:
        env_id, settings = env_of(job.suite, case, spec)
        env = Stopwatch(gym.make(env_id, **settings))
        try:
            trace = Trace(job.agent, env_id, case.task, job.seed, len(env.inner.groups), agent_settings=agent.settings)
            recorder = Recorder(env, trace)
            recorder.report_policy(play_policy(recorder, policy, seed=job.seed)[0])
            yield recorded(trace, env, settings)
        finally:
            env.close()


def _head(job: Job, case: Case, started: str, seconds: float) -> dict[str, Any]:
    """What is known of a run whether or not it is done."""
    env_id, settings = env_of(job.suite, case, agent_spec(job.agent))
    return {
        "suite": job.suite.title,
        "agent": job.agent,
        "task": case.name,
        "seed": job.seed,
        "track": job.suite.tracks[0],
        "env_id": env_id,
        "settings": settings,
        "evaluations": case.evaluations,
        "versions": _versions() | agent_code(job.agent),
        "machine": {"processor": machine(), "system": platform.platform()},
        "git": job.git,
        "threads": job.suite.threads,
        "training_networks": trained_on(job.suite, job.agent),
        "on_test": trains_on_test(job.suite, job.agent),
        "started": started,
        "seconds": round(seconds, 3),
    }


AGENT_CODE = "agent"  # in the versions of a run: of the agent's own modules
_versions = functools.cache(versions)


def agent_code(agent: str) -> dict[str, str]:
    """The part of a run's versions that tells one version of its agent from another; empty where the agent can't be loaded."""
    try:
        return {AGENT_CODE: source_digest(agent)}
    except Exception:  # whatever its module raises is what the run itself fails with, and tells
        return {}


def trained_on(suite: Suite, agent: str) -> tuple[str, ...]:
    """Networks beside the case's own that an agent has learnt on: those of the suite, or those that it comes with."""
    brought = () if agent_spec(agent).searches else make_agent(agent).networks
    return suite.training_networks + brought


def trains_on_test(suite: Suite, agent: str) -> bool:
    """Whether one of the networks that an agent is trained on is a test network."""
    return any(task_spec(name).split == "test" for name in trained_on(suite, agent))


def plays_a_policy(agent: str) -> bool:
    """Whether an agent ends a search with an episode of the policy that it trained, or brings one."""
    made = make_agent(agent)
    return made.policy_file is not None or bool(made.networks)


@functools.lru_cache(maxsize=1024)
def shipped_settings(agent: str, task: str) -> Any:
    """An agent's hyperparameters for a task as they are in this checkout, the way that files of runs hold them."""
    made = make_agent(agent)
    made.prepare(task)
    return json.loads(json.dumps(made.settings))


def git_revision() -> str | None:
    """The revision of this checkout, ``-dirty`` where it was changed; None where git or the checkout is missing."""
    folder = Path(__file__).parents[1]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
