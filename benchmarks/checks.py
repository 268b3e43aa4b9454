"""What a run claims, held against its suite, its task and a replay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.registry import AGENTS
from benchmarks.derived_columns import DERIVED, without_derived
from benchmarks.execution import TRAINING, plays_a_policy, shipped_settings, trained_on, trains_on_test
from benchmarks.recording import block_means, described
from benchmarks.replay import Replay
from benchmarks.results import Run, head_of
from benchmarks.suites import Suite, env_of
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator

TOLERANCE = 1e-4  # of floats that another machine measures; a table gives the same bits everywhere


@dataclass(frozen=True)
class Problem:
    """What a run claims, and what is found instead.

    Attributes:
        evaluation: number of the plan; None: of the whole run.
        what: the column, or the attribute of the run.
        expected: as the run claims.
        received: from the suite, the task or the replay.
    """

    evaluation: int | None
    what: str
    expected: Any
    received: Any


def problems_of(run: Run, suite: Suite, rows: Sequence[int]) -> list[Problem]:
    """Everything in a run that is not confirmed.

    Args:
        run: that is done.
        suite: that it says it is of.
        rows: indices of the plans to measure again; what can be told without measuring is checked of all.
    """
    found = list(against_suite(run, suite))
    if found:
        return found  # its environment is not the suite's: there is nothing to repeat
    replay = Replay(run)
    try:
        near = Nearness.of(replay.env)
        found += against_task(run, replay.env, near)
        impossible = list(as_decisions(run))
        found += impossible or [*within_itself(run), *against_replay(run, replay, near, rows)]
    finally:
        replay.close()
    return found


def against_suite(run: Run, suite: Suite) -> Iterator[Problem]:
    """What the suite fixes."""
    cases = {case.name: case for case in suite.cases}
    if run.agent not in AGENTS or run.task not in cases or not 0 <= run.seed < suite.seeds:
        yield Problem(None, "agent, task, seed", [run.agent, run.task, run.seed], f"not in {suite.title}")
        return
    env_id, settings = env_of(suite, cases[run.task], AGENTS[run.agent])
    wanted = {
        "suite": suite.title,
        "env_id": env_id,
        "settings": settings,
        "evaluations": cases[run.task].evaluations,
        "threads": suite.threads,
        "track": suite.tracks[0],
        "training_networks": trained_on(suite, run.agent),
        "on_test": trains_on_test(suite, run.agent),
        "agent_settings": shipped_settings(run.agent, TRAINING if suite.training_networks else cases[run.task].task),
    }
    for name, value in wanted.items():
        if getattr(run, name) != value:
            yield Problem(None, name, getattr(run, name), value)
    spec = AGENTS[run.agent]
    if spec.searches and not spec.stops and not suite.training_networks and run.evaluated < run.evaluations:
        # What came after the best plan may have been left out, to let it pass for the policy's.
        yield Problem(None, "evaluated", run.evaluated, run.evaluations)


@dataclass(frozen=True)
class Nearness:
    """How near a claim must come to what is measured here.

    Attributes:
        metric: distance allowed; None: the last bit counts.
        utility: what that makes of the utility.
        plan_return: what that makes of a return.
    """

    metric: float | None
    utility: float = 0.0
    plan_return: float = 0.0

    @classmethod
    def of(cls, env: ReptilePruneEnv) -> Nearness:
        """On a table the last bit; else an example of the validation split may be seen otherwise by another machine."""
        evaluator, reference = env.evaluator, env.reference
        if not isinstance(evaluator, LiveEvaluator):
            return cls(None)
        metric = TOLERANCE + max(1.0, abs(reference.dense.metric)) / len(evaluator.task.valid)
        utility = metric * reference.w / reference.dense.metric
        return cls(metric, utility, utility / reference.scale)

    def accepts(self, what: str, claimed: Any, received: Any) -> bool:
        """Whether a claim holds."""
        if not isinstance(received, float) or not isinstance(claimed, (int, float)):
            return bool(claimed == received)
        if math.isnan(received) or math.isnan(claimed):
            return math.isnan(received) and math.isnan(claimed)
        if self.metric is None:
            return claimed == received
        room = {"metric": self.metric, "scale": self.utility, "plan_return": self.plan_return}.get(what, TOLERANCE)
        return math.isclose(claimed, received, rel_tol=TOLERANCE, abs_tol=room)


def against_task(run: Run, env: ReptilePruneEnv, near: Nearness) -> Iterator[Problem]:
    """What the task and its calibration say."""
    for name, value in described(env, run.settings).items():
        claimed = getattr(run, name)
        if name in ("dense", "scale"):
            for key, number in value.items():
                if not near.accepts(key, claimed.get(key), number):
                    yield Problem(None, f"{name}: {key}", claimed.get(key), number)
        elif name == "best_known_return" and near.metric is not None and claimed < value:
            continue  # a better plan has been found since; reports take the better one
        elif not near.accepts(name, claimed, value):
            short = name == "cost_model"  # thousands of numbers
            yield Problem(None, name, "another one" if short else claimed, "the task's" if short else value)


def as_decisions(run: Run) -> Iterator[Problem]:
    """Whether the columns tell of decisions at all."""
    group, widths, sizes = run.columns["group"], run.columns["widths"], np.array(run.sizes)
    most = max(run.evaluations, len(sizes))  # a policy that was trained elsewhere plays an episode here
    if not 0 < run.evaluated <= most:
        yield Problem(None, "evaluations", run.evaluated, f"1 to {most}")
    elif group.min() < 0 or group.max() >= len(sizes) or (widths < 1).any() or (widths > sizes).any():
        yield Problem(None, "widths", "groups or channels that there are not", f"groups of {run.sizes}")
    elif (widths != sizes)[np.arange(len(sizes)) > group[:, None]].any():
        yield Problem(None, "widths", "groups are cut before they are decided on", "they are dense")


def within_itself(run: Run) -> Iterator[Problem]:
    """What columns say of each other."""
    columns, episode = run.columns, run.columns["episode"]
    if episode[0] < 1 or (np.diff(episode) < 0).any():
        yield Problem(None, "episode", "numbers that fall", "numbers from 1 that rise")
    if run.settings.get("evaluator") == "table" and columns["plan_return"].max() > run.best_known_return:
        yield Problem(None, "plan_return", columns["plan_return"].max().item(), f"at most the optimum, {run.best_known_return}")
    if (columns["measured_seconds"] < 0).any():
        yield Problem(None, "measured_seconds", "a negative time", "times from 0 up")
    own = {"episode"} if run.settings.get("reward") == "tradeoff" else {"episode", "episode_return"}
    for name in sorted((set(DERIVED) - own) & set(without_derived(head_of(run), columns))):
        yield Problem(None, name, "numbers of its own", "it follows from other columns, which say otherwise")
    yield from _policy(run)


def _policy(run: Run) -> Iterator[Problem]:
    trains = plays_a_policy(run.agent)
    if run.policy_evaluation is None or run.policy_return is None:
        if run.policy_evaluation != run.policy_return:
            yield Problem(None, "policy_return", run.policy_return, f"plan {run.policy_evaluation}")
        elif trains and run.evaluations >= 2 * len(run.groups):
            yield Problem(None, "policy_return", None, "what its policy's last episode returned")
        return
    if not trains:
        yield Problem(run.policy_evaluation, "policy_return", run.policy_return, f"none, for {run.agent} has no policy")
        return
    at = run.policy_evaluation - 1
    complete = 0 <= at < run.evaluated and run.columns["group"][at] == len(run.groups) - 1
    received = run.columns["plan_return"][at].item() if complete else "no complete plan"
    if received != run.policy_return:
        yield Problem(run.policy_evaluation, "policy_return", run.policy_return, received)
    elif run.policy_evaluation != run.evaluated:
        # A better plan from the middle of the training is none of the policy's.
        yield Problem(run.policy_evaluation, "policy_evaluation", run.policy_evaluation, run.evaluated)


def against_replay(run: Run, replay: Replay, near: Nearness, rows: Sequence[int]) -> Iterator[Problem]:
    """What plans measure when their decisions are made again."""
    seconds = []
    for row in sorted(rows):
        measurement = replay.measured(row)
        if measurement is None:
            widths = run.columns["widths"][row].tolist()
            yield Problem(row + 1, "widths", widths, "no actions of the environment lead there")
            continue
        seconds.append(measurement.seconds)
        received: dict[str, Any] = {name: getattr(measurement, name) for name in ("metric", "loss", "params", "macs", "bytes")}
        received["plan_return"] = replay.env.reference.return_of(measurement)
        for name, value in received.items():
            claimed = run.columns[name][row].item()
            untold = name == "loss" and math.isnan(claimed)
            if not untold and not near.accepts(name, claimed, value):
                yield Problem(row + 1, name, claimed, value)
    if near.metric is None and len(seconds) == run.evaluated:
        differing = np.flatnonzero(block_means(seconds) != run.columns["measured_seconds"])
        if len(differing):
            at = int(differing[0])
            yield Problem(at + 1, "measured_seconds", run.columns["measured_seconds"][at].item(), block_means(seconds)[at].item())
