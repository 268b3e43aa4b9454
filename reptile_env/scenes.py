"""From tasks and rules to what episodes are played on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from reptile_env import rewards
from reptile_env.actions import DEFAULT_MAX_RATE, RATE_ALONE
from reptile_env.budget import BudgetWall
from reptile_env.compression.plan import Request
from reptile_env.episode import Rules, Scene
from reptile_env.errors import unknown
from reptile_env.evaluation.base import Evaluator, make_evaluator
from reptile_env.evaluation.reference import make_reference
from reptile_env.evaluation.resources import DEFAULT_CACHE_BYTES, Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import UNKNOWN, anchors_on, task_spec


@dataclass(frozen=True)
class SceneMaker:
    """What the scenes of an environment have in common.

    Attributes:
        evaluator: name of the evaluator.
        settings: of the evaluator.
        rules: of the environment.
        sweep: what the uniform sweep asks of every group.
        w: weight of the metric in the utility; None takes each task's own.
        reward: of the environment.
        resources: that each evaluator may use.
    """

    evaluator: str
    settings: Settings
    rules: Rules
    sweep: Sequence[Request]
    w: float | None
    reward: str | rewards.Reward
    resources: Resources

    def scene(self, task: Any) -> Scene:
        """The scene of a task given by name or as a `Task`."""
        rules = self.rules
        # A score compares with the calibrated scale; other rules may have another best uniform setting.
        calibrated = (rules.max_rate, rules.components, rules.rounds) == (DEFAULT_MAX_RATE, RATE_ALONE, 1)
        # What bears the name of a built-in task and did not come from the registry is another one.
        built_in = getattr(task, "registered", True)
        comparable = calibrated and built_in and self.w is None and self.reward == "tradeoff"
        made = _scene(make_evaluator(self.evaluator, task, self.settings, self.resources), rules, self.sweep, self.w, comparable)
        if rewards.needs_error_rate(self.reward) and (not made.evaluator.higher_is_better or made.reference.dense.metric > 1):
            raise ValueError(f"reward {self.reward!r} reads 1 - metric as an error rate; {made.evaluator.name!r} has none")
        return made


class Scenes(Sequence[Scene]):
    """The scenes of an environment. Of several running networks, those given by name are made when they are first asked for.

    Args:
        tasks: names and `Task` objects.
        maker: makes their scenes.

    Attributes:
        names: of the tasks.

    Raises:
        ValueError: two different tasks of one name, or what the maker refuses.
    """

    def __init__(self, tasks: Sequence[Any], maker: SceneMaker) -> None:
        self._tasks, self._maker = tasks, maker
        self._made: dict[int, Scene] = {}
        names = []
        for index, task in enumerate(tasks):
            # The first is made in any case, so that what fits no network is refused at once.
            later = index > 0 and isinstance(task, str) and maker.evaluator == "live"
            names.append(task_spec(task).name if later else self[index].evaluator.name)
        self.names = tuple(names)
        alike: dict[str, Evaluator] = {}
        for index, name in enumerate(names):
            if names.count(name) > 1 and alike.setdefault(name, self[index].evaluator) is not self[index].evaluator:
                raise ValueError("two different tasks have the same name, by which they are told apart; give Task(..., name=)")

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        made = self._made.get(index)
        if made is None:
            made = self._made[index] = self._maker.scene(self._tasks[index])
        return made


def make_scenes(
    task: Any,
    evaluator: str,
    settings: Settings,
    rules: Rules,
    sweep: Sequence[Request],
    w: float | None,
    reward: str | rewards.Reward,
    resources: Resources,
) -> Scenes:
    """A scene for each task.

    Args:
        task: a name, a `Task`, or a list of either.
        evaluator: name of the evaluator.
        settings: of the evaluator.
        rules: of the environment.
        sweep: what the uniform sweep asks of every group.
        w: weight of the metric in the utility; None takes each task's own.
        reward: of the environment.
        resources: that all evaluators together may use.

    Raises:
        TypeError: a task of the wrong type.
        ValueError: no task, two of one name, a budget out of reach, a reward that does not fit the metric, or what
            `make_reference` refuses.
    """
    _check_ranks(rules, settings)
    tasks = list(task) if isinstance(task, (list, tuple)) else [task]
    if not tasks:
        raise ValueError("task=[] is empty; give at least one task")
    if len(tasks) > 1:
        whole = DEFAULT_CACHE_BYTES if resources.cache_bytes is None else resources.cache_bytes
        resources = replace(resources, cache_bytes=whole // len(tasks))
    return Scenes(tasks, SceneMaker(evaluator, settings, rules, sweep, w, reward, resources))


def _check_ranks(rules: Rules, settings: Settings) -> None:
    if "rank" not in rules.components:
        return
    rest = [name for name in rules.components if name != "rank"]
    mend = f"give components={rest}, or use " if rest else "use "
    if settings.granularity != "structured":
        what = f"masked weights can't be factored, so granularity={settings.granularity!r} has no ranks"
        raise ValueError(f"{what}: {mend}granularity='structured'")
    if rules.cost == "latency":
        raise ValueError(f"the table of cost='latency' knows widths alone, no ranks: {mend}another cost")


def _scene(evaluator: Evaluator, rules: Rules, sweep: Sequence[Request], w: float | None, comparable: bool) -> Scene:
    if evaluator.grid is not None and rules.components != RATE_ALONE:
        raise ValueError(
            f"a table knows no bits and ranks, which components={list(rules.components)} decide on; give components=['rate'], or "
            "use evaluator='live'"
        )
    reference = make_reference(evaluator, rules.cost, sweep, w)
    wall = None
    if rules.budget is not None:
        wall = BudgetWall(
            evaluator.costs,
            rules.cost,
            rules.budget,
            evaluator.sizes,
            rules.max_rate,
            rules.rounds,
            bits="bits" in rules.components,
            ranks=[rankable and "rank" in rules.components for rankable in evaluator.rankable],
            grid=evaluator.grid,
        )
    anchors = UNKNOWN
    if comparable:
        here = reference.scale, reference.w, evaluator.name, evaluator.settings, rules.cost, reference.uniform_rate
        anchors = anchors_on(*here, rules.budget)
    return Scene(evaluator, reference, wall, anchors)


def chosen_scene(names: Sequence[str], options: Any) -> int | None:
    """Which of the tasks `names` the options of a reset name, by its place; None where they leave it to be drawn.

    Raises:
        TypeError: `options` is not a dict.
        ValueError: an unknown option or task.
    """
    if not isinstance(options, dict):
        raise TypeError(f"options must be a dict such as {{'task': name}}, got {type(options).__name__}")
    if set(options) - {"task"}:
        raise unknown("reset option", min(map(str, set(options) - {"task"})), ["task"])
    if "task" not in options:
        return None
    if options["task"] not in names:
        raise unknown("task of this environment", options["task"], names)
    return names.index(options["task"])
