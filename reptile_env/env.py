"""The environment: one decision for each prunable group of a trained network."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from reptile_env import observations, rewards
from reptile_env.actions import DEFAULT_MAX_RATE, make_actions
from reptile_env.budget import BudgetWall
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.episode import Position, Scene, Snapshot
from reptile_env.errors import number, unknown
from reptile_env.evaluation.base import Evaluator, make_evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import Reference, make_reference
from reptile_env.evaluation.settings import Settings, check_cost
from reptile_env.rendering import RENDER_MODES, Frame, Renderer
from reptile_env.tasks.registry import best_known

MEASURES = ("step", "round")


class ReptilePruneEnv(gym.Env[NDArray[np.float32], Any]):
    """Compress a trained network, one prune rate for each of its groups.

    ## Description
    A trained network is cut group by group, in network order. After each decision the network is really shrunk, recovers
    (by default in closed form) and is measured on validation data. An episode is one or more rounds over all groups.

    ## Action Space
    ``ReptilePrune-v0``: ``Box(-1, 1, (1,), float32)``, read as the prune rate ``max_rate * (a + 1) / 2`` of the group's
    remaining channels. ``ReptilePruneDiscrete-v0``: ``Discrete(len(rates))``, each action a listed rate.

    ## Observation Space
    ``Box(0, 1, (n,), float32)``. ``"network"``: sparsity of every group, one-hot of the current group, metric and cost
    relative to dense, progress, budget left. ``"group"``: a description of the current group, of the same length for every
    network.

    ## Rewards
    ``"tradeoff"``: change of ``U = w * metric/metric_dense + (1 - w) * (1 - cost/cost_dense)``, divided by what the best
    uniform rate gains. The return is 0 for the dense network and 1 for the best uniform rate. Others: ``"loss"``,
    ``"amc_params"``, ``"amc_macs"``, ``"accuracy"``, or a callable of a `reptile_env.rewards.Transition`.

    ## Starting State
    The dense network. With a list of tasks, one of them is drawn at each reset; ``options={"task": name}`` names it.

    ## Episode End
    Terminated after the last group of the last round. Never truncated.

    ## Arguments
    See below. ``info`` holds group, rate_requested, rate, measured, budget_bit, metric, loss, params, macs, bytes, utility,
    plan and seconds; at the end also return and score (0: best uniform rate, 1: best known plan; NaN where none is known).

    ## Version History
    v0: first.

    Args:
        task: name of a built-in task, a `reptile_env.Task`, or a list of either (drawn at each reset).
        evaluator: ``"live"`` runs the network.
        action: ``"continuous"`` or ``"discrete"``.
        max_rate: largest rate of a continuous action, in (0, 1); default 0.9.
        rates: rates of discrete actions, in [0, 1); default 0, 0.1, ..., 0.9.
        budget: cap on the final cost as a fraction of dense, in (0, 1]; rates are raised as far as it takes.
        cost: ``"macs"``, ``"params"`` or ``"bytes"``: what the utility weighs and the budget caps.
        recovery: ``"reconstruct"``, ``"recalibrate"``, ``"none"``, or names joined by ``+``.
        importance: ``"l1"`` or ``"l2"``: which channels of a group go first.
        granularity: ``"structured"``: whole channels.
        reward: a name or a callable.
        observation: ``"network"`` or ``"group"``.
        rounds: passes over all groups in an episode, at least 1.
        measure: ``"step"`` measures after every decision, ``"round"`` after the last of each round.
        prune_probability: a decision is carried out with this probability, in [0, 1]; a budget is met all the same.
        w: weight of the metric in the utility, in (0, 1); default the task's own.
        render_mode: ``"ansi"``, ``"rgb_array"`` or ``"human"``.

    Raises:
        ValueError: an unknown name or a number outside its range; the message says the mend.
        TypeError: a task or reward of the wrong type.
    """

    metadata = {  # noqa: RUF012 (declared so by gymnasium.Env)
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
    }

    def __init__(
        self,
        task: Any = "digits-cnn",
        *,
        evaluator: str = "live",
        action: str = "continuous",
        max_rate: float | None = None,
        rates: Sequence[float] | None = None,
        budget: float | None = None,
        cost: str = "macs",
        recovery: str = "reconstruct",
        importance: str = "l1",
        granularity: str = "structured",
        reward: str | rewards.Reward = "tradeoff",
        observation: str = "network",
        rounds: int = 1,
        measure: str = "step",
        prune_probability: float = 1.0,
        w: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._reward = rewards.resolve(reward)
        self._observation = observations.resolve(observation)
        self._actions = make_actions(action, max_rate, rates)
        check_cost(cost)
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)):
            raise TypeError(f"rounds must be a whole number, got {type(rounds).__name__} {rounds!r}")
        if rounds < 1:
            raise ValueError(f"rounds={rounds}; an episode has at least 1 round")
        if not 0 <= number("prune_probability", prune_probability) <= 1:
            raise ValueError(f"prune_probability={prune_probability} is outside [0, 1]")
        self.render_mode = render_mode
        self._renderer = Renderer(render_mode)
        self._budget, self._cost, self._rounds, self._measure_at = budget, cost, rounds, measure
        self._probability = float(prune_probability)
        settings = Settings(recovery, importance, granularity, train_loss=rewards.needs_train_loss(reward))
        tasks = list(task) if isinstance(task, (list, tuple)) else [task]
        if not tasks:
            raise ValueError("task=[] is empty; give at least one task")
        comparable = w is None and rounds == 1 and reward == "tradeoff" and budget is None
        self._scenes = [self._scene(make_evaluator(evaluator, t, settings), w, comparable) for t in tasks]
        if rewards.needs_error_rate(reward):
            for scene in self._scenes:
                if not scene.evaluator.higher_is_better or scene.reference.dense.metric > 1:
                    raise ValueError(f"reward {reward!r} reads 1 - metric as an error rate; {scene.evaluator.name!r} has none")
        evaluators = {scene.evaluator.name: scene.evaluator for scene in self._scenes}
        if any(evaluators[scene.evaluator.name] is not scene.evaluator for scene in self._scenes):
            raise ValueError("two different tasks have the same name, by which they are told apart; give Task(..., name=)")
        lengths = {self._observation.length(len(s.evaluator.sizes)) for s in self._scenes}
        if len(lengths) > 1:
            raise ValueError("tasks of different numbers of groups need observation='group', which is the same for all")
        self.observation_space = spaces.Box(0.0, 1.0, (lengths.pop(),), np.float32)
        self.action_space = self._actions.space
        self._position: Position | None = None
        self._history: list[tuple[float, float]] = []
        self._best: dict[str, tuple[Plan, Measurement]] = {}

    def _scene(self, evaluator: Evaluator, w: float | None, comparable: bool) -> Scene:
        reference = make_reference(evaluator, self._cost, self._actions.uniform_rates, w)
        wall = None
        if self._budget is not None:
            limits = (self._actions.max_rate, self._rounds)
            wall = BudgetWall(evaluator.costs, self._cost, self._budget, evaluator.sizes, *limits)
        # A score compares with the calibrated scale; other rates may have another best uniform one.
        comparable = comparable and self._actions.max_rate == DEFAULT_MAX_RATE
        known = best_known(evaluator.name, evaluator.settings, self._cost, reference.uniform_rate) if comparable else math.nan
        return Scene(evaluator, reference, wall, known)

    # -- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode from the dense network.

        Args:
            seed: of the environment's generator.
            options: ``{"task": name}`` chooses among several tasks instead of drawing.
        """
        if isinstance(seed, bool):
            raise TypeError(f"seed must be a whole number, got bool {seed}")
        index = self._chosen({} if options is None else options)
        super().reset(seed=seed)
        if index is None:
            index = int(self.np_random.integers(len(self._scenes))) if len(self._scenes) > 1 else 0
        evaluator = self._scenes[index].evaluator
        self._position = Position(index, evaluator.dense, evaluator.measure(evaluator.dense))
        self._history = [(1.0, 1.0)]
        if self.render_mode == "human":
            self.render()
        return self._observe(), self._info("", 0.0, 0.0, measured=True, bit=False)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Carry out one decision for the current group."""
        at = self._at
        if at.ended:
            raise ResetNeeded("the episode has ended; call reset() before step()")
        requested = self._actions.rate(action)
        generator = self.np_random.bit_generator.state
        try:
            outcome = self._decide(at, requested)
        except BaseException:
            # A metric or reward that fails, or an interrupt, leaves the episode where it was.
            self.np_random.bit_generator.state = generator
            raise
        if self.render_mode == "human":
            self.render()
        return outcome

    def _decide(self, at: Position, requested: float) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        scene = self._scenes[at.scene]
        evaluator, reference = scene.evaluator, scene.reference
        carried_out = self._probability >= 1 or self.np_random.random() < self._probability
        width = at.plan.widths[at.group]
        count = removal_count(width, requested) if carried_out else 0
        needed = scene.wall.smallest_removal(at.plan.widths, at.group, at.round) if scene.wall else 0
        bit, count = needed > count, max(needed, count)
        plan = evaluator.cut(at.plan, at.group, count)

        name = evaluator.group_names[at.group]
        last_group = at.group + 1 == len(evaluator.sizes)
        terminated = last_group and at.round + 1 == self._rounds
        measured = last_group or self._measure_at == "step"
        measurement = evaluator.measure(plan) if measured else at.measurement
        transition = rewards.Transition(
            dense=reference.dense,
            before=at.measurement,
            after=measurement,
            utility_before=reference.utility(at.measurement),
            utility_after=reference.utility(measurement),
            scale=reference.scale,
            terminated=terminated,
        )
        reward = float(self._reward(transition))
        if not math.isfinite(reward):
            raise ValueError(f"the reward of group {name!r} is {reward}; it must be finite")
        self._position = Position(
            scene=at.scene,
            plan=plan,
            measurement=measurement,
            group=at.group if terminated else (at.group + 1) % len(evaluator.sizes),
            round=at.round + (last_group and not terminated),
            previous_rate=count / width,
            total=at.total + reward,
            ended=terminated,
        )
        if measured:
            self._remember(plan, measurement)
            self._history.append((reference.quality(measurement), self._relative_cost(plan)))
        info = self._info(name, requested, count / width, measured=measured, bit=bit)
        if terminated:
            info["return"] = self._position.total
            info["score"] = (self._position.total - 1) / (scene.best_known - 1)
        return self._observe(), reward, terminated, False, info

    def render(self) -> Any:
        """A string (``ansi``), an image ``(height, width, 3)`` uint8 (``rgb_array``), or None after drawing (``human``)."""
        at, scene = self._at, self._scenes[self._at.scene]
        frame = Frame(
            task=scene.evaluator.name,
            metric_name=scene.evaluator.metric_name,
            names=scene.evaluator.group_names,
            sizes=scene.evaluator.sizes,
            widths=at.plan.widths,
            current=None if at.ended else at.group,
            metric=at.measurement.metric,
            dense_metric=scene.reference.dense.metric,
            cost_name=self._cost,
            relative_cost=self._relative_cost(at.plan),
            budget=self._budget,
            total=at.total,
            history=tuple(self._history),
        )
        return self._renderer.render(frame, int(self.metadata["render_fps"]))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._renderer.close()

    # -- Beyond Gymnasium --------------------------------------------------------------------------------------------

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the current task's groups, in network order (of the first task before the first reset)."""
        return self._scenes[self._position.scene if self._position else 0].evaluator.group_names

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
        return self._scenes[self._position.scene if self._position else 0].evaluator

    @property
    def reference(self) -> Reference:
        """What the current task's returns are measured against."""
        return self._scenes[self._position.scene if self._position else 0].reference

    @property
    def best(self) -> tuple[Plan, Measurement]:
        """The measured plan of highest utility so far, within the budget if there is one, of the current task.

        Raises:
            ValueError: none was measured yet.
        """
        name = self.evaluator.name
        if name not in self._best:
            raise ValueError("no plan within the budget was measured yet; finish an episode first")
        return self._best[name]

    @property
    def uniform_rates(self) -> list[float]:
        """The rates among which the best uniform one was found."""
        return list(self._actions.uniform_rates)

    def measure(self, plan: Plan) -> Measurement:
        """What the network compressed to `plan` measures on the validation split."""
        return self.evaluator.measure(plan)

    def action_for(self, rate: float) -> Any:
        """The action that asks for `rate` (for discrete actions: the nearest listed rate)."""
        return self._actions.action_for(rate)

    def snapshot(self) -> Snapshot:
        """The current point of the episode, generator included; cheap."""
        generator = copy.deepcopy(dict(self.np_random.bit_generator.state))
        return Snapshot(self._at, generator, tuple(self._history), self._rules(self._at.scene))

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
        if state.rules != self._rules(scene):
            raise ValueError("the snapshot was taken under other rules; restore it in an environment made with the same arguments")
        self._position = state.position
        self._history = list(state.history)
        self.np_random.bit_generator.state = copy.deepcopy(state.generator)
        return self._observe()

    # -- Inside ------------------------------------------------------------------------------------------------------

    @property
    def _at(self) -> Position:
        if self._position is None:
            raise ResetNeeded("call reset() first")
        return self._position

    def _rules(self, scene: int) -> tuple[Any, ...]:
        """What decides how an episode goes on from a position."""
        there = self._scenes[scene]
        limits = (self._budget, self._cost, self._rounds, self._measure_at, self._actions.max_rate)
        return (*limits, there.evaluator.name, there.evaluator.settings, there.reference.w, there.reference.scale)

    def _chosen(self, options: dict[str, Any]) -> int | None:
        if not isinstance(options, dict):
            raise TypeError(f"options must be a dict such as {{'task': name}}, got {type(options).__name__}")
        if set(options) - {"task"}:
            raise unknown("reset option", min(map(str, set(options) - {"task"})), ["task"])
        if "task" not in options:
            return None
        names = [scene.evaluator.name for scene in self._scenes]
        if options["task"] not in names:
            raise unknown("task of this environment", options["task"], names)
        return names.index(options["task"])

    def _relative_cost(self, plan: Plan) -> float:
        scene = self._scenes[self._at.scene]
        return float(scene.evaluator.costs.cost(self._cost, plan.widths)) / scene.reference.dense.cost(self._cost)

    def _observe(self) -> NDArray[np.float32]:
        at, scene = self._at, self._scenes[self._at.scene]
        groups = len(scene.evaluator.sizes)
        cost = self._relative_cost(at.plan)
        return self._observation.observe(
            observations.View(
                evaluator=scene.evaluator,
                widths=at.plan.widths,
                group=at.group,
                quality=scene.reference.quality(at.measurement),
                relative_cost=cost,
                progress=1.0 if at.ended else (at.round * groups + at.group) / (self._rounds * groups),
                budget_left=max(cost - self._budget, 0.0) if self._budget is not None else 0.0,
                previous_rate=at.previous_rate,
            )
        )

    def _info(self, group: str, requested: float, rate: float, *, measured: bool, bit: bool) -> dict[str, Any]:
        at, scene = self._at, self._scenes[self._at.scene]
        return {
            "task": scene.evaluator.name,
            "group": group,
            "rate_requested": requested,
            "rate": rate,
            "measured": measured,
            "budget_bit": bit,
            "metric": at.measurement.metric,
            "loss": at.measurement.loss,
            **scene.evaluator.costs.all(at.plan.widths),
            "utility": scene.reference.utility(at.measurement),
            "plan": at.plan.to_dict(),
            "seconds": at.measurement.seconds if measured else 0.0,
        }

    def _remember(self, plan: Plan, measurement: Measurement) -> None:
        reference = self.reference
        if self._budget is not None and measurement.cost(self._cost) > self._budget * reference.dense.cost(self._cost):
            return
        name = self.evaluator.name
        if name not in self._best or reference.utility(measurement) > reference.utility(self._best[name][1]):
            self._best[name] = (plan, measurement)
