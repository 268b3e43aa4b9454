"""Runs sorted by suite, task and track, on one scale a task."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.validation import NOT_VALIDATED, Validation
from benchmarks.results import TRACKS, Run, best_row
from benchmarks.statistics.anytime import best_so_far
from benchmarks.statistics.intervals import Floats
from benchmarks.statistics.pareto import hypervolume
from reptile_env.tasks.registry import Anchors, anchors_today

COSTS = ("macs", "params", "bytes")
_FEWEST_METRICS = 10  # that differ: from fewer nobody can tell how many examples an accuracy was counted on
_SAME = 1e-6  # of a count of examples


@dataclass(frozen=True)
class Case:
    """One task of a suite, with its runs.

    Agents may act in environments whose uniform sweeps differ (listed rates are fewer), and so do the scales of their returns. Here
    all returns are on the scale of the best uniform setting that any of them measured.

    Attributes:
        name: of the suite's case.
        runs: those that are done, on this task.
        validation: what is known of them.
    """

    name: str
    runs: tuple[Run, ...]
    validation: Validation = NOT_VALIDATED

    @functools.cached_property
    def lead(self) -> Run:
        """The run on whose scale all returns are: the first with the best uniform setting."""
        return max(self.runs, key=lambda run: float(run.scale["scale"]))

    @functools.cached_property
    def anchors(self) -> Anchors:
        """Returns of the best uniform setting and of the best plan known, then or today; NaN where none is."""
        uniform = [self._factor(run) * run.uniform_return for run in self.runs]
        best = [self._factor(run) * run.best_known_return for run in self.runs]
        if not self._tabled:
            known = anchors_today(self.lead.settings, self.lead.scale)
            uniform, best = [*uniform, known.uniform], [*best, known.best]
        return Anchors(*(max((each for each in column if not math.isnan(each)), default=math.nan) for column in (uniform, best)))

    @property
    def scored(self) -> bool:
        """Whether there is a scale of scores."""
        return self.anchors.best > self.anchors.uniform

    @property
    def exact(self) -> bool:
        """Whether the best plan known is the best there is: on a table."""
        return self._tabled and not math.isnan(self.anchors.best)

    @property
    def _tabled(self) -> bool:
        return self.lead.settings.get("evaluator") == "table"

    @property
    def budget(self) -> float | None:
        """The cap on the cost, relative to dense."""
        budget = self.lead.settings.get("budget")
        return None if budget is None else float(budget)

    @property
    def cost(self) -> str:
        """The cost that returns weigh; MACs where it is none that every run records."""
        return self.lead.scale["cost"] if self.lead.scale["cost"] in COSTS else "macs"

    @property
    def metric_name(self) -> str:
        """Name of the metric."""
        return str(self.lead.scale["metric_name"])

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return bool(self.lead.scale["higher_is_better"])

    def of_track(self, track: str) -> list[Run]:
        """The runs that are scored in a track."""
        return [run for run in self.runs if track in tracks_of(run)]

    def returns(self, run: Run, column: str = "plan_return") -> Floats:
        """Return of each evaluated plan (or, with ``episode_return``, of its episode so far)."""
        return np.asarray(self._factor(run) * run.columns[column])

    def best(self, run: Run) -> int | None:
        """Index of the run's best plan within the budget, the earliest of equals; None where there is none."""
        return best_row(run)

    def result(self, run: Run, track: str) -> float:
        """The return that a run is judged by in a track; NaN where it has none."""
        if track == "search":
            best = self.best(run)
            return math.nan if best is None else float(self.returns(run)[best])
        return math.nan if run.policy_return is None else self._factor(run) * run.policy_return

    def on_test(self, run: Run, track: str) -> float:
        """Score of the plan that a run is judged by on the test split: 0 is the best uniform setting's plan there.

        The unit is that of the score on the validation split; NaN where it is not known.
        """
        if not self.scored:
            return math.nan
        gained = self._factor(run) * self.validation.on_test(run, track) - self._uniform_on_test
        return gained / (self.anchors.best - self.anchors.uniform)

    @functools.cached_property
    def _uniform_on_test(self) -> float:
        """One zero for all agents: that of an environment with the best uniform setting, whatever setting others found best."""
        found = (self.validation.uniform_on_test(run) for run in self.runs if self._factor(run) == 1)
        return next((uniform for uniform in found if not math.isnan(uniform)), math.nan)

    @functools.cached_property
    def example_worth(self) -> float:
        """What one validation example, right instead of wrong, adds to the score; NaN where the metrics don't tell.

        Accuracies are multiples of one example's share, which is the smallest difference between two of them where all are.
        """
        metrics = np.unique(np.concatenate([run.columns["metric"] for run in self.runs]))
        if self.metric_name != "accuracy" or not self.scored or len(metrics) < _FEWEST_METRICS:
            return math.nan
        count = round(1 / float(np.diff(metrics).min()))
        if np.abs(metrics * count - np.round(metrics * count)).max() > _SAME * count:
            return math.nan
        worth = float(self.lead.scale["w"]) / count / float(self.lead.dense["metric"]) / float(self.lead.scale["scale"])
        return worth / (self.anchors.best - self.anchors.uniform)

    def progress(self, run: Run) -> Floats:
        """Return of the best plan so far, after each evaluated plan."""
        return best_so_far(self.returns(run), run.columns["within_budget"])

    def relative_cost(self, run: Run) -> Floats:
        """Cost of each evaluated plan, relative to dense."""
        return np.asarray(run.columns[self.cost] / run.dense[self.cost])

    def hypervolume(self, run: Run) -> float:
        """The area that a run's plans dominate; see `benchmarks.statistics.pareto.hypervolume`."""
        metric, dense = run.columns["metric"], float(run.dense["metric"])
        with np.errstate(divide="ignore"):
            quality = metric / dense if self.higher_is_better else np.where(metric > dense, dense / metric, 2 - metric / dense)
        return hypervolume(self.relative_cost(run), quality)

    def _factor(self, run: Run) -> float:
        return float(run.scale["scale"]) / float(self.lead.scale["scale"])


@dataclass(frozen=True)
class Suite:
    """All runs of a suite.

    Attributes:
        name: with its version.
        runs: all of them.
        validation: what is known of them.
    """

    name: str
    runs: tuple[Run, ...]
    validation: Validation = NOT_VALIDATED

    @functools.cached_property
    def cases(self) -> tuple[Case, ...]:
        """Tasks with at least one run that is done, in the order of their names."""
        done = [run for run in self.runs if run.status == "done" and not run.on_test]
        names = sorted({run.task for run in done})
        return tuple(Case(name, tuple(run for run in done if run.task == name), self.validation) for name in names)

    @property
    def failed(self) -> list[Run]:
        """Runs that failed."""
        return [run for run in self.runs if run.status == "failed"]

    def failed_in(self, track: str) -> list[Run]:
        """Runs that failed and would have been scored in a track, as far as the agent's other runs tell."""
        playing = {run.agent for run in self.runs if run.policy_return is not None}
        return [run for run in self.failed if run.track == track or (track == "policy" and run.agent in playing)]

    @property
    def on_test(self) -> list[Run]:
        """Runs of agents that had learnt on test networks: they are told of and not scored."""
        return [run for run in self.runs if run.status == "done" and run.on_test]

    @property
    def agents(self) -> list[str]:
        """Names, sorted."""
        return sorted({run.agent for run in self.runs})

    @property
    def tracks(self) -> list[str]:
        """Those in which there is something to score; where nothing is done, those of the runs that failed."""
        found = {track for case in self.cases for run in case.runs for track in tracks_of(run)}
        return [track for track in TRACKS if track in (found or {run.track for run in self.runs})]


def tracks_of(run: Run) -> tuple[str, ...]:
    """The tracks in which a run is scored: one that searched is scored by its policy too, where it trained one."""
    if run.track == "search" and run.policy_return is not None:
        return ("search", "policy")
    return (run.track,)


def by_suite(runs: Iterable[Run]) -> list[Suite]:
    """Runs of several suites, never mixed, in the order of their names."""
    found = list(runs)
    return [Suite(name, tuple(run for run in found if run.suite == name)) for name in sorted({run.suite for run in found})]


def strata(cases: Sequence[Case], agent: str, track: str, number: str) -> list[NDArray[np.float64]]:
    """One array a task: a number of each of an agent's runs.

    Args:
        cases: the tasks.
        agent: whose runs.
        track: in which they are judged.
        number: ``score``, ``return``, ``regret`` or ``hypervolume``.
    """
    return [
        np.array([judged(case, run, track, number) for run in case.of_track(track) if run.agent == agent], np.float64)
        for case in cases
    ]


def judged(case: Case, run: Run, track: str, number: str) -> float:
    """A number that a run is judged by; see `strata`."""
    if number == "hypervolume":
        return case.hypervolume(run)
    if number == "test":
        return case.on_test(run, track)
    return float(on_scale(case, np.array(case.result(run, track)), number))


def on_scale(case: Case, returns: Floats, number: str) -> Floats:
    """Returns as ``score``, ``return`` or ``regret`` (NaN where the best plan is not known for sure)."""
    if number == "regret":
        return np.asarray(case.anchors.best - returns if case.exact else np.full_like(returns, math.nan))
    return np.asarray(case.anchors.score(returns) if number == "score" else returns)
