"""How long runs take, before they are made: so many plans, each with its measurement and with what the agent does beside."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from benchmarks.execution import Job
from reptile_env.tasks.registry import references

LOOK_UP = 2e-5  # seconds of a plan on a table
UNKNOWN = 0.01  # seconds of a measurement, where a task was not calibrated

# Seconds an evaluated plan takes beside its measurement, by agent: of a core, measured on the table of digits-mlp (1,500 plans).
AGENT_SECONDS: dict[str, float] = {
    "random": 0.00029,
    "uniform": 0.00029,
    "global-magnitude": 0.00029,
    "lamp": 0.00029,
    "greedy": 0.00026,
    "coordinate-ascent": 0.00026,
    "cma-es": 0.00044,
    "simulated-annealing": 0.00027,
    "tpe": 0.011,
    "evolution": 0.0003,
    "beam-search": 8.3e-05,
    "mcts": 0.00021,
    "q-learning": 8.4e-05,
    "sarsa": 0.0001,
    "sarsa-lambda": 0.00013,
    "double-q-learning": 8.1e-05,
    "a2c": 0.0017,
    "ppo": 0.005,
    "ppo-group": 0.0013,
    "recurrent-ppo": 0.0036,
    "maskable-ppo": 0.0018,
    "trpo": 0.00091,
    "ars": 0.00033,
    "sac": 0.007,
    "tqc": 0.019,
    "crossq": 0.013,
    "td3": 0.0044,
    "ddpg": 0.0042,
    "dqn": 0.0024,
    "qr-dqn": 0.0036,
    "amc": 0.03,
    "purl": 0.0024,
    "pretrained": 0.00029,
}
# Those that soon have no more to say: plans that they evaluate where more are allowed.
AGENT_PLANS = {"uniform": 18, "global-magnitude": 18, "lamp": 18, "pretrained": 1}


def expected_seconds(job: Job) -> float:
    """Seconds that one worker needs for a job."""
    agent = AGENT_SECONDS.get(job.agent, statistics.median(AGENT_SECONDS.values()))
    plans = min(job.cases[0].evaluations, AGENT_PLANS.get(job.agent, job.cases[0].evaluations))
    return plans * (agent + _measurement(job))


def total_seconds(jobs: Iterable[Job]) -> float:
    """Seconds that one worker needs for all jobs."""
    return sum(expected_seconds(job) for job in jobs)


def _measurement(job: Job) -> float:
    case = job.cases[0]
    if dict(job.suite.settings + case.settings).get("evaluator") == "table":
        return LOOK_UP
    seconds = [references().get(name, {}).get("seconds") or UNKNOWN for name in job.suite.training_networks or (case.task,)]
    return statistics.mean(seconds)


def duration(seconds: float) -> str:
    """For people: ``40 s``, ``12 min``, ``5.3 h``, ``3.1 days``."""
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}" if name == "h" else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.3g} days"
