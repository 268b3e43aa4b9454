"""Live steps beside the straightforward ones and beside their floor, and an episode beside one forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.speed.crawls import Crawl, draw_crawls, make_env, play
from benchmarks.speed.floor import Floor, fastest_layout
from benchmarks.speed.measure import Spread, interleaved, ratio
from benchmarks.speed.networks import task_of
from benchmarks.speed.rows import Goal, Progress, Row, row
from benchmarks.speed.straightforward import Straightforward
from reptile_env.compression.plan import Plan
from reptile_env.tasks.task import Task

RECOVERIES = ("reconstruct", "reconstruct-sequential")
OURS, PLAIN, FLOOR = "environment", "straightforward", "floor"
LOSS_TOLERANCE = 1e-3  # relative: the refits' ridges are not quite the same


class Sides:
    """The environment, the straightforward one and the floor on the same crawls.

    Args:
        task: what is compressed.
        recovery: of all sides.

    Attributes:
        seconds: of each step, by side.
        measured: metric and loss of each step, by side.
    """

    def __init__(self, task: Task, recovery: str) -> None:
        self.task, self.recovery = task, recovery
        self.env, self.plain = make_env(task, recovery=recovery), Straightforward(task, recovery)
        self.layout = fastest_layout(self.plain.build(self.env.evaluator.dense), images_of(task))
        self.seconds: dict[str, list[float]] = {OURS: [], PLAIN: [], FLOOR: []}
        self.measured: dict[str, list[tuple[float, float]]] = {OURS: [], PLAIN: [], FLOOR: []}
        self._built: list[nn.Module] = []  # by the last straightforward crawl

    def ours(self, crawl: Crawl) -> None:
        """An episode of the environment."""
        infos = play(self.env, crawl, self._timed(OURS))
        self.measured[OURS] += [(info["metric"], info["loss"]) for info in infos]

    def straightforward(self, crawl: Crawl) -> None:
        """The same plans, measured one by one."""
        self._built = []

        def step(plan: Plan) -> tuple[float, float]:
            self._built.append(self.plain.build(plan))
            return self.plain.score(self._built[-1])

        for plan in crawl.plans:
            self.measured[PLAIN].append(self._timed(PLAIN)(partial(step, plan)))

    def floor(self) -> None:
        """What changed in each of the networks of the last crawl, run forward."""
        calibration = self.plain.calibration if self.recovery == "reconstruct-sequential" else None
        for network, group in zip(self._built, self.env.groups, strict=True):
            changed = Floor(network, group, images_of(self.task), calibration, self.layout)
            outputs = self._timed(FLOOR)(changed.run)
            self.measured[FLOOR].append(self.task.score(outputs, self.task.valid))

    def take_turns(self, crawl: Crawl, environment_first: bool) -> None:
        """Every side once; the floor comes after the straightforward side, whose networks it runs."""
        if environment_first:
            self.ours(crawl)
        self.straightforward(crawl)
        self.floor()
        if not environment_first:
            self.ours(crawl)

    def forget(self) -> None:
        """Drop the numbers so far: they were for warming up."""
        for name in (OURS, PLAIN, FLOOR):
            self.seconds[name].clear()
            self.measured[name].clear()

    def _timed(self, side: str) -> Callable[[Callable[[], Any]], Any]:
        def each(function: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = function()
            self.seconds[side].append(time.perf_counter() - start)
            return result

        return each


def compare(
    part: str, network: str, goals: tuple[Goal, Goal], crawls: dict[str, int], quick: bool, progress: Progress
) -> Iterator[Row]:
    """Rows for a network: how many times faster than the straightforward step, how many times the floor, for each recovery."""
    task = task_of(network, quick)
    for position, recovery in enumerate(RECOVERIES):
        number = 1 if quick else crawls[recovery]
        sides = Sides(task, recovery)
        drawn = draw_crawls(sides.env.evaluator, number + 1)
        sides.ours(drawn[-1])
        sides.straightforward(Crawl(drawn[-1].rates[:1], drawn[-1].plans[:1]))
        sides.forget()
        for done, crawl in enumerate(drawn[:-1]):
            sides.take_turns(crawl, environment_first=done % 2 == 0)
            progress((position + (done + 1) / number) / len(RECOVERIES))
        yield from _rows(part, sides, goals)
        if recovery == "reconstruct-sequential":
            yield _unsampled(part, sides, drawn[0])


def _rows(part: str, sides: Sides, goals: tuple[Goal, Goal]) -> Iterator[Row]:
    spreads = ", ".join(f"{name} {Spread.of(seconds)}" for name, seconds in sides.seconds.items())
    totals = {name: sum(seconds) for name, seconds in sides.seconds.items()}
    ours, plain, floor = (sides.seconds[name] for name in (OURS, PLAIN, FLOOR))
    what = f"{sides.task.name}, {sides.recovery}"
    details = f"a step: {spreads}; whole crawls: {totals[PLAIN] / totals[OURS]:.3g} times; batches of {sides.plain.batch_size}"
    yield row(part, f"{what}: straightforward / environment", ratio(plain, ours), goals[0], details=details)
    details = f"whole crawls: {totals[OURS] / totals[FLOOR]:.3g} times; by group: {_by_group(sides)}; {sides.layout}"
    yield row(part, f"{what}: environment / floor", ratio(ours, floor), goals[1], details=details)
    examples, loss = differences(sides.measured[OURS], sides.measured[PLAIN], len(sides.task.valid))
    details = f"largest of {len(ours)} plans; loss differs by {loss:.1e} at most, relative"
    if loss > LOSS_TOLERANCE:
        details += f", more than {LOSS_TOLERANCE:g}"
    yield row(part, f"{what}: metric, environment and straightforward", examples, Goal(most=1), "examples apart", details)
    examples, loss = differences(sides.measured[FLOOR], sides.measured[PLAIN], len(sides.task.valid))
    yield row(part, f"{what}: metric, floor and straightforward", examples, Goal(most=1), "examples apart", f"loss {loss:.1e}")


def _by_group(sides: Sides) -> str:
    groups = len(sides.env.groups)
    ours, floor = sides.seconds[OURS], sides.seconds[FLOOR]
    return " ".join(f"{ratio(ours[i::groups], floor[i::groups]).value:.2f}" for i in range(groups))


def _unsampled(part: str, sides: Sides, crawl: Crawl) -> Row:
    """The sequential refit from all rows, which the environment samples: what one would write who does not think of that."""
    plain = Straightforward(sides.task, sides.recovery, sampled=False)
    took, metrics = [], []
    for plan in crawl.plans:
        start = time.perf_counter()
        metrics.append(plain.measure(plan))
        took.append(time.perf_counter() - start)
    ours = sides.seconds[OURS][: len(took)]
    examples, loss = differences(sides.measured[OURS][: len(took)], metrics, len(sides.task.valid))
    details = f"one crawl, {Spread.of(took)} a step; {examples:.0f} examples and {loss:.1e} of loss apart, for it fits other rows"
    return row(
        part,
        f"{sides.task.name}, {sides.recovery}: straightforward from all rows / environment",
        ratio(took, ours),
        details=details,
    )


def differences(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], examples: int) -> tuple[float, float]:
    """Largest difference of accuracies, in examples, and of losses, relative to the second's."""
    metrics = max(abs(a[0] - b[0]) for a, b in zip(first, second, strict=True)) * examples
    return round(metrics, 6), max(abs(a[1] / b[1] - 1) for a, b in zip(first, second, strict=True))


def live(quick: bool, progress: Progress) -> Iterator[Row]:
    """A step on ResNet-20, 1,000 images of 32x32."""
    crawls = {"reconstruct": 3, "reconstruct-sequential": 8}
    yield from compare("live", "resnet20", (Goal(least=10), Goal(most=1.3)), crawls, quick, progress)


def digits(quick: bool, progress: Progress) -> Iterator[Row]:
    """A step on digits-cnn."""
    crawls = {"reconstruct": 12, "reconstruct-sequential": 12}
    yield from compare("digits", "digits-cnn", (Goal(least=20), Goal(most=2)), crawls, quick, progress)


def round_episode(quick: bool, progress: Progress) -> Iterator[Row]:
    """An episode that is measured once, beside one forward pass of the network that it ends with."""
    task = task_of("resnet56", quick)
    valid = images_of(task)
    env = make_env(task, measure="round")
    number = 2 if quick else 6
    crawls = draw_crawls(env.evaluator, number + 1)
    plain = Straightforward(task, "reconstruct", examples=64)  # for its cut alone: the refit does not change how long a pass takes
    layout = fastest_layout(plain.build(crawls[0].plans[-1]), valid[:1000])
    took: dict[str, list[float]] = {"episode": [], "pass": []}
    for done, crawl in enumerate(crawls):
        first = env.groups[0]
        forward = Floor(plain.build(crawl.plans[-1]), first, valid, None, layout)
        sides: dict[str, Callable[[], Any]] = {"episode": partial(play, env, crawl), "pass": forward.run}
        order = sides if done % 2 else dict(reversed(sides.items()))
        seconds = interleaved(order, repeats=1, warmup=0)
        for name in took:
            took[name] += seconds[name][: int(done > 0)]  # the first warms up
        progress((done + 1) / (number + 1))
    details = ", ".join(f"{name} {Spread.of(seconds)}" for name, seconds in took.items())
    details += f"; {len(env.groups)} groups, {len(task.valid):,} images"
    measured = ratio(took["episode"], took["pass"])
    yield row("round", f"{task.name}: episode measured once / one forward pass", measured, Goal(most=1.2), details=details)


def images_of(task: Task) -> Tensor:
    """The validation images."""
    assert isinstance(task.valid.inputs, Tensor)
    return task.valid.inputs
