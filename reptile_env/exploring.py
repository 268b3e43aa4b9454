"""What users and planning agents reach for beyond Gymnasium: plans, measurements, snapshots."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from reptile_env.compression.plan import Plan
from reptile_env.episode import Position, Rules, Snapshot
from reptile_env.evaluation.base import Evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import Reference
from reptile_env.scenes import Scenes


class Explorable(gym.Env[NDArray[np.float32], Any]):
    """An environment whose episodes can be looked into, left and returned to.

    Args:
        rules: of its episodes.
        scenes: its tasks.
    """

    def __init__(self, rules: Rules, scenes: Scenes) -> None:
        self._rules, self._scenes = rules, scenes
        self._scene = scenes[0]  # the current one
        self._position: Position | None = None
        self._history: list[tuple[float, float]] = []
        self._best: dict[str, Position] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the current task's groups, in network order (of the first task before the first reset)."""
        return self._scene.evaluator.group_names

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, one of which is drawn at each reset."""
        return self._scenes.names

    @property
    def most_groups(self) -> int:
        """Groups of the task that has the most; networks that were not met yet are made for this."""
        return max(len(scene.evaluator.sizes) for scene in self._scenes)

    @property
    def plan(self) -> Plan:
        """The current plan."""
        return self._at.plan

    @property
    def measurement(self) -> Measurement:
        """The last measurement."""
        return self._at.measurement

    @property
    def evaluator(self) -> Evaluator:
        """The current task's evaluator."""
        return self._scene.evaluator

    def evaluator_of(self, task: str) -> Evaluator:
        """The evaluator of one of the tasks, by its name."""
        return self._scenes[self._scenes.names.index(task)].evaluator

    @property
    def reference(self) -> Reference:
        """What the current task's returns are measured against."""
        return self._scene.reference

    @property
    def best(self) -> tuple[Plan, Measurement]:
        """The measured plan of highest utility so far, within the budget if there is one, of the current task.

        Raises:
            ValueError: none was measured yet.
        """
        name = self.evaluator.name
        if name not in self._best:
            raise ValueError("no plan within the budget was measured yet; finish an episode first")
        best = self._best[name]
        return best.plan, best.measurement

    @property
    def components(self) -> tuple[str, ...]:
        """What a decision is about: some of ``rate``, ``bits`` and ``rank``, in the order of an action's numbers."""
        return self._rules.components

    def measure(self, plan: Plan) -> Measurement:
        """What the network compressed to `plan` measures on the validation split."""
        return self.evaluator.measure(plan)

    def score(self, episode_return: float) -> float:
        """A return on the scale of scores: 0 for the best uniform rate, 1 for the best plan known; NaN where none is known."""
        return self._scene.anchors.score(episode_return)

    def snapshot(self) -> Snapshot:
        """The current point of the episode, generator included; cheap."""
        generator = copy.deepcopy(dict(self.np_random.bit_generator.state))
        return Snapshot(self._at, generator, tuple(self._history), self._terms(self._at.scene))

    def restore(self, state: Snapshot) -> NDArray[np.float32]:
        """Return to a snapshot of this environment or of one made alike; gives the observation there.

        Raises:
            TypeError: not a snapshot.
            ValueError: a snapshot of another task, or taken under another budget, cost, number of rounds or the like.
        """
        if not isinstance(state, Snapshot):
            raise TypeError(f"restore() takes what snapshot() gave, got {type(state).__name__}")
        scene = state.position.scene
        if scene >= len(self._scenes) or state.position.plan.names != self._scenes[scene].evaluator.group_names:
            raise ValueError("the snapshot is of another task; restore it in an environment made with the same arguments")
        if state.rules != self._terms(scene):
            raise ValueError("the snapshot was taken under other rules; restore it in an environment made with the same arguments")
        self._position, self._scene = state.position, self._scenes[scene]
        self._history = list(state.history)
        self.np_random.bit_generator.state = copy.deepcopy(state.generator)
        return self._observe()

    @property
    def _at(self) -> Position:
        if self._position is None:
            raise ResetNeeded("call reset() first")
        return self._position

    def _terms(self, scene: int) -> tuple[Any, ...]:
        """What decides how an episode goes on from a position."""
        there = self._scenes[scene]
        return (self._rules, there.evaluator.name, there.evaluator.settings, there.reference.w, there.reference.scale)

    @abstractmethod
    def _observe(self) -> NDArray[np.float32]:
        """What is observed where the episode stands."""

    def _remember(self, at: Position) -> None:
        """Keep where the plan of the highest utility was measured."""
        scene, budget = self._scene, self._rules.budget
        if budget is not None and at.measurement.cost(self._rules.cost) > budget * scene.reference.dense_cost:
            return
        best = self._best.get(scene.evaluator.name)
        if best is None or at.utility > best.utility:
            self._best[scene.evaluator.name] = at
