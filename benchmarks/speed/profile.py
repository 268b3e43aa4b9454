"""Where every millisecond of a live step goes: by phase, with a stopwatch around functions, and by operation of torch."""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.crawls import at_once, draw_crawls, make_env, play
from benchmarks.speed.live import RECOVERIES
from benchmarks.speed.networks import task_of
from benchmarks.speed.rows import Progress, Row, row

# phase -> functions in which it happens; time in a function of another phase that one calls counts for that one
PHASES: dict[str, tuple[str, ...]] = {
    "choose channels": ("reptile_env.evaluation.live:LiveEvaluator.cut",),
    "cut tensors": ("reptile_env.compression.engine:Engine._cut_tensors",),
    "install tensors": ("reptile_env.compression.prune:install",),
    "refit": (
        "reptile_env.compression.reconstruct:_from_dense",
        "reptile_env.compression.reconstruct:refit",
        "reptile_env.compression.reconstruct:tensors_for",
    ),
    "forward, calibration": ("reptile_env.compression.reconstruct:_pass",),
    "forward, validation": ("reptile_env.compression.prefix:Prefixes.outputs",),
    "score": ("reptile_env.tasks.task:Task.score",),
    "rest of the measurement": ("reptile_env.evaluation.live:LiveEvaluator.measure",),
}
OUTSIDE = "environment"
OPERATIONS = 6  # the slowest of torch are named


class Stopwatch:
    """Adds up what phases take while it runs, each without the phases inside it; functions are wrapped meanwhile."""

    def __init__(self, phases: dict[str, tuple[str, ...]], clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._phases, self._clock = phases, clock
        self._inside = [0.0]  # for each running phase what phases inside it took
        self._wrapped: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Stopwatch:
        for phase, paths in self._phases.items():
            for path in paths:
                module, name = path.split(":")
                owner: Any = importlib.import_module(module)
                *above, last = name.split(".")
                for part in above:
                    owner = getattr(owner, part)
                self._wrapped.append((owner, last, getattr(owner, last)))
                setattr(owner, last, self.timed(phase, getattr(owner, last)))
        return self

    def __exit__(self, *error: object) -> None:
        for owner, name, function in reversed(self._wrapped):
            setattr(owner, name, function)
        self._wrapped.clear()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted for `phase`."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = self._clock()
            try:
                return function(*args, **kwargs)
            finally:
                took = self._clock() - start
                self.seconds[phase] += took - self._inside.pop()
                self._inside[-1] += took

        return wrapper


def step_profile(quick: bool, progress: Progress) -> Iterator[Row]:
    """Milliseconds of a mean step by phase, for each recovery."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes to the terminal
    task = task_of("resnet20", quick)
    number = 1 if quick else 6
    for position, recovery in enumerate(RECOVERIES):
        env = make_env(task, recovery=recovery)
        # Twice as many: half for the stopwatch, half for torch's profiler, which slows what it looks at.
        warm, *crawls = draw_crawls(env.evaluator, 2 * number + 1, seed=position)
        play(env, warm)
        watch = Stopwatch(PHASES)
        with watch:
            for crawl in crawls[:number]:
                play(env, crawl, watch.timed(OUTSIDE, at_once))
        steps = number * len(env.groups)
        whole = sum(watch.seconds.values())
        for phase in (*PHASES, OUTSIDE):
            took = watch.seconds[phase]
            what = f"{task.name}, {recovery}: {phase}"
            details = f"{took / whole:.0%} of a step of {whole / steps * 1e3:.3g} ms"
            yield row("profile", what, took / steps * 1e3, unit="ms", details=details)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for crawl in crawls[number:]:
                play(env, crawl)
        yield from _operations(profiled, f"{task.name}, {recovery}", steps)
        progress((position + 1) / len(RECOVERIES))


def _operations(profiled: Any, what: str, steps: int) -> Iterator[Row]:
    events = [event for event in profiled.key_averages() if event.self_cpu_time_total > 0]
    whole = sum(event.self_cpu_time_total for event in events)
    events.sort(key=lambda event: -event.self_cpu_time_total)
    for event in events[:OPERATIONS]:
        took = event.self_cpu_time_total
        details = f"{took / whole:.0%} of what torch takes, {event.count / steps:.1f} calls a step, under the profiler"
        yield row("profile", f"{what}: {event.key}", took / steps / 1e3, unit="ms", details=details)
