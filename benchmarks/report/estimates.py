"""What the runs of a suite say about its agents: scores, profiles, who beats whom, and how that came about over time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.cases import Case, Suite, on_scale, strata
from benchmarks.results import Run
from benchmarks.statistics.anytime import sampled
from benchmarks.statistics.comparing import fewest, performance_profile, probability_of_improvement, stands_out
from benchmarks.statistics.intervals import Band, Estimate, Floats, band, estimate

ALL = ""  # the scope of all tasks together
EXACT = 1e-9  # a regret below this is rounding: the best plan there is was found
PROFILE_POINTS, CURVE_POINTS, CURVE_RESAMPLES = 121, 61, 500
LOWEST_THRESHOLD = -1.0  # of performance profiles: further down lie single disasters,
LOWEST_SHARE = 0.05  # and so does what is below all but so many of the runs
AXES = ("evaluations", "seconds")


@dataclass(frozen=True)
class Scope:
    """All tasks of a track together, or one of them.

    Attributes:
        name: of the task; `ALL` for all.
        track: in which runs are judged.
        cases: the tasks whose runs count.
        left_out: names of tasks without a scale of scores, which the other tasks' can't be pooled with.
        number: ``score``, or ``return`` where there is no scale of scores.
        agents: those with a run, sorted.
        planned: runs that each agent should have: one of every seed that any agent has on a task.
    """

    name: str
    track: str
    cases: tuple[Case, ...]
    left_out: tuple[str, ...]
    number: str
    agents: tuple[str, ...]
    planned: int

    @property
    def exact(self) -> bool:
        """Whether regret is known of every task."""
        return all(case.exact for case in self.cases)

    def strata(self, agent: str, number: str | None = None) -> list[Floats]:
        """See `benchmarks.report.cases.strata`."""
        return strata(self.cases, agent, self.track, number or self.number)


@dataclass(frozen=True)
class Line:
    """What a scope's runs say about one agent.

    Attributes:
        agent: its name.
        main: interquartile mean of the scope's number.
        regret: of the regret; None where it is not known of every task.
        optimal: share of runs that found the best plan there is; None likewise.
        test: of the score on the test split, over the runs of which validation has measured it.
        hypervolume: of the area that a run's plans dominate; None outside the track ``search``.
        highest: best return of any run; NaN without one, and over several tasks, whose returns are on different scales.
        planned: runs that it should have, those that failed, found nothing or were not made among them.
        fewest: runs of the task that has the fewest.
    """

    agent: str
    main: Estimate
    regret: Estimate | None
    optimal: float | None
    test: Estimate
    hypervolume: Estimate | None
    highest: float
    planned: int
    fewest: int

    @property
    def complete(self) -> bool:
        """Whether no run is missing."""
        return self.main.n == self.planned


@dataclass(frozen=True)
class Curves:
    """One line with its band an agent.

    Attributes:
        points: ``(n,)``, where it is read.
        lines: arrays ``(n,)`` each.
    """

    points: Floats
    lines: dict[str, Band]


def scopes(suite: Suite, track: str) -> Iterator[Scope]:
    """All tasks of a track together (where there are several), then each of them."""
    cases = [case for case in suite.cases if case.of_track(track)]
    scored = [case for case in cases if case.scored]
    pooled = tuple(scored or cases)
    left_out = tuple(case.name for case in cases if case not in pooled)
    chosen = [(ALL, pooled, left_out)] if len(cases) > 1 else []
    chosen += [(case.name, (case,), ()) for case in cases]
    for scope, members, out in chosen:
        names = {case.name for case in members}
        runs = [run for case in members for run in case.of_track(track)]
        runs += [run for run in suite.failed_in(track) if run.task in names]
        agents, planned = tuple(sorted({run.agent for run in runs})), len({(run.task, run.seed) for run in runs})
        yield Scope(scope, track, members, out, "score" if members[0].scored else "return", agents, planned)


def lines(scope: Scope) -> list[Line]:
    """What there is to say about each agent, the best first."""
    found = [_line(scope, agent) for agent in scope.agents]
    return sorted(found, key=lambda line: -np.nan_to_num(line.main.value, nan=-np.inf))


def winner(found: Sequence[Line]) -> str | None:
    """The agent whose interval lies above all others', where every agent's runs are complete; else None."""
    if not all(line.complete for line in found):
        return None
    return stands_out({line.agent: line.main for line in found}, min((line.fewest for line in found), default=0))


def _line(scope: Scope, agent: str) -> Line:
    regrets = scope.strata(agent, "regret") if scope.exact else None
    known = np.concatenate(regrets) if regrets else np.array([])
    returns = np.concatenate(scope.strata(agent, "return"))
    return Line(
        agent=agent,
        main=estimate(scope.strata(agent)),
        regret=estimate(regrets) if regrets else None,
        optimal=float((known[~np.isnan(known)] < EXACT).mean()) if (~np.isnan(known)).any() else None,
        test=estimate(scope.strata(agent, "test")),
        hypervolume=estimate(scope.strata(agent, "hypervolume")) if scope.track == "search" else None,
        highest=float(np.nanmax(returns)) if len(scope.cases) == 1 and (~np.isnan(returns)).any() else float("nan"),
        planned=scope.planned,
        fewest=fewest(scope.strata(agent)),
    )


def profiles(scope: Scope) -> Curves:
    """Performance profiles: the share of each agent's runs above each threshold."""
    every = np.concatenate([runs for agent in scope.agents for runs in scope.strata(agent)])
    every = every[~np.isnan(every)]
    low, high = (float(np.quantile(every, LOWEST_SHARE, method="lower")), float(every.max())) if len(every) else (0.0, 1.0)
    low = max(low, LOWEST_THRESHOLD)
    margin = 0.05 * max(high - low, 0.1)
    points = np.linspace(low - margin, high + margin, PROFILE_POINTS)
    return Curves(points, {agent: performance_profile(scope.strata(agent), points) for agent in scope.agents})


def improvement(scope: Scope) -> dict[tuple[str, str], Estimate]:
    """For each two agents, in alphabetical order, the chance that a run of the first beats one of the second."""
    return {
        (first, second): probability_of_improvement(scope.strata(first), scope.strata(second))
        for first, second in itertools.combinations(scope.agents, 2)
    }


def anytime(scope: Scope, axis: str, number: str) -> Curves:
    """The best plan so far, against evaluations or simulated seconds.

    A curve ends where the first of its runs does.

    Args:
        scope: of the track ``search``.
        axis: one of `AXES`.
        number: the scope's, or ``regret``.
    """
    runs = [(case, run) for case in scope.cases for run in case.of_track(scope.track)]
    places = {id(run): _places(run, axis) for _, run in runs}
    last = max((float(at[-1]) for at in places.values() if len(at)), default=1.0)
    points = _evaluations(int(last)) if axis == "evaluations" else _seconds(last)
    found = {}
    for agent in scope.agents:
        curves = [
            [
                sampled(on_scale(case, case.progress(run), number), places[id(run)], points)
                for run in case.of_track(scope.track)
                if run.agent == agent
            ]
            for case in scope.cases
        ]
        stacked = [np.stack(each, axis=-1) if each else np.empty((len(points), 0)) for each in curves]
        found[agent] = band(stacked, resamples=CURVE_RESAMPLES)
    return Curves(points, found)


def _places(run: Run, axis: str) -> Floats:
    return np.asarray(run.columns["evaluation" if axis == "evaluations" else "simulated_seconds"], np.float64)


def _seconds(last: float) -> Floats:
    """Times, closer together at first, where most is learnt."""
    even = np.linspace(0, last, CURVE_POINTS)
    return np.unique(np.concatenate([even, np.geomspace(last / 1000, last, CURVE_POINTS)])) if last > 0 else even


def _evaluations(last: int) -> Floats:
    """Numbers of evaluations, closer together at first, where most is learnt."""
    even, early = np.linspace(1, last, CURVE_POINTS), np.geomspace(1, last, CURVE_POINTS // 2)
    return np.asarray(np.unique(np.round(np.concatenate([even, early]))))


@dataclass(frozen=True)
class ScopeResults:
    """All that is estimated of a scope, worked out once for the page, the pictures and the tables.

    Attributes:
        scope: what it is of.
        lines: the agents, the best first.
        winner: see `winner`.
        profiles: see `profiles`.
        improvement: see `improvement`.
        curves: by axis and number, see `anytime`; empty but for the track ``search``.
    """

    scope: Scope
    lines: list[Line]
    winner: str | None
    profiles: Curves
    improvement: dict[tuple[str, str], Estimate]
    curves: dict[tuple[str, str], Curves]


def results(suite: Suite, track: str) -> list[ScopeResults]:
    """What is estimated of each scope of a track."""
    return [_results(scope) for scope in scopes(suite, track)]


def _results(scope: Scope) -> ScopeResults:
    found = lines(scope)
    # Seconds of tasks that take a millisecond and of tasks that take a minute don't add up to one axis.
    axes = AXES if len(scope.cases) == 1 else AXES[:1]
    numbers = [scope.number, "regret"] if scope.exact else [scope.number]
    wanted = [(axis, number) for axis in axes for number in numbers] if scope.track == "search" else []
    curves = {(axis, number): anytime(scope, axis, number) for axis, number in wanted}
    return ScopeResults(scope, found, winner(found), profiles(scope), improvement(scope), curves)
