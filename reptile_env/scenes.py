"""From tasks and rules to what episodes are played on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reptile_env import rewards
from reptile_env.actions import DEFAULT_MAX_RATE, RATE_ALONE
from reptile_env.budget import BudgetWall
from reptile_env.compression.plan import Request
from reptile_env.episode import Rules, Scene
from reptile_env.errors import unknown
from reptile_env.evaluation.base import Evaluator, make_evaluator
from reptile_env.evaluation.reference import make_reference
from reptile_env.evaluation.resources import Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import UNKNOWN, known_anchors


def make_scenes(
    task: Any,
    evaluator: str,
    settings: Settings,
    rules: Rules,
    sweep: Sequence[Request],
    w: float | None,
    reward: str | rewards.Reward,
    resources: Resources,
) -> list[Scene]:
    """A scene for each task.

    Args:
        task: a name, a `Task`, or a list of either.
        evaluator: name of the evaluator.
        settings: of the evaluator.
        rules: of the environment.
        sweep: what the uniform sweep asks of every group.
        w: weight of the metric in the utility; None takes each task's own.
        reward: of the environment.
        resources: that evaluators may use.

    Raises:
        TypeError: a task of the wrong type.
        ValueError: no task, two of one name, a budget out of reach, a reward that does not fit the metric, or what
            `make_reference` refuses.
    """
    _check_ranks(rules, settings)
    tasks = list(task) if isinstance(task, (list, tuple)) else [task]
    if not tasks:
        raise ValueError("task=[] is empty; give at least one task")
    # A score compares with the calibrated scale; other rules may have another best uniform setting.
    calibrated = (rules.max_rate, rules.components, rules.rounds) == (DEFAULT_MAX_RATE, RATE_ALONE, 1)
    comparable = calibrated and w is None and reward == "tradeoff"
    scenes = [_scene(make_evaluator(evaluator, each, settings, resources), rules, sweep, w, comparable) for each in tasks]
    if rewards.needs_error_rate(reward):
        for scene in scenes:
            if not scene.evaluator.higher_is_better or scene.reference.dense.metric > 1:
                raise ValueError(f"reward {reward!r} reads 1 - metric as an error rate; {scene.evaluator.name!r} has none")
    evaluators = {scene.evaluator.name: scene.evaluator for scene in scenes}
    if any(evaluators[scene.evaluator.name] is not scene.evaluator for scene in scenes):
        raise ValueError("two different tasks have the same name, by which they are told apart; give Task(..., name=)")
    return scenes


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
        anchors = known_anchors(evaluator.name, evaluator.settings, rules.cost, reference.uniform_rate, rules.budget)
    return Scene(evaluator, reference, wall, anchors)


def chosen_scene(scenes: Sequence[Scene], options: Any) -> int | None:
    """Number of the scene that the options of a reset name; None where they leave it to be drawn.

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
    names = [scene.evaluator.name for scene in scenes]
    if options["task"] not in names:
        raise unknown("task of this environment", options["task"], names)
    return names.index(options["task"])
