"""What the tabular agents share: states, schedules, the table of values with its file, and the run around the learning."""

from __future__ import annotations

import os
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.base import Recorder
from agents.checkpoints import Checkpoints
from agents.policy import Policy, play_policy, reserved
from agents.tuned import TunedAgent
from reptile_env.observations import GROUP_FEATURES, KINDS

Floats = NDArray[np.float64]
State = tuple[int, int, int]
ARRAYS = ("values", "cost_edges", "metric_edges", "observed", "evaluations")


@dataclass(frozen=True)
class Schedule:
    """A number that changes evenly from `first` to `last` over the part `until` of a run, and then stays."""

    first: float
    last: float
    until: float = 1.0

    def __call__(self, done: float) -> float:
        """The number when the part `done` of the run is over."""
        return self.first + (self.last - self.first) * min(done / self.until, 1.0)


class QTable(Policy):
    """Values of actions by state; as a policy, the action of the highest value.

    A state is three whole numbers, read from an observation, ``network`` or ``group``:

    | part | from | values |
    |---|---|---|
    | decision | progress | its number in the episode: group by group, round by round |
    | cost | cost of the plan so far, relative to dense | how many of `cost_edges` it reaches |
    | metric | last measured metric, relative to dense | how many of `metric_edges` it reaches |

    Args:
        values: float64 ``(tables, decisions, costs, metrics, actions)``; the value of an action is the mean over tables.
        cost_edges: ascending, one fewer than there are costs.
        metric_edges: ascending, one fewer than there are metrics.
        observed: numbers of an observation.
        evaluations: plans that were evaluated to learn it.
    """

    def __init__(self, values: Floats, cost_edges: Floats, metric_edges: Floats, observed: int, evaluations: int) -> None:
        self.values, self.cost_edges, self.metric_edges = values, cost_edges, metric_edges
        self.observed, self.evaluations = observed, evaluations
        # Both observations hold metric, cost and progress in this order; "network" has an even length, "group" an odd one.
        group = len(KINDS) + len(GROUP_FEATURES)
        self._metric = len(KINDS) + GROUP_FEATURES.index("metric") if observed == group else observed - 4

    @classmethod
    def new(cls, env: Recorder, tables: int, costs: int, metric_edges: Sequence[float], hope: float) -> QTable:
        """A table that knows nothing yet: each decision that is left is worth `hope`.

        Args:
            env: what it is for.
            tables: how many.
            costs: equal intervals of the relative cost.
            metric_edges: between intervals of the relative metric.
            hope: above what decisions earn on average, every action of a state is tried before one is tried often.

        Raises:
            ValueError: edges that don't ascend.
        """
        if sorted(set(metric_edges)) != list(metric_edges):
            raise ValueError(f"metric_edges={list(metric_edges)} must ascend")
        left = np.arange(env.decisions, 0, -1)[:, None, None, None]
        values = np.tile(hope * left, (tables, 1, costs, len(metric_edges) + 1, int(_listed(env).n)))
        assert env.observation_space.shape is not None
        edges = np.linspace(0, 1, costs + 1)[1:-1], np.array(metric_edges, np.float64)
        return cls(values, *edges, env.observation_space.shape[0], 0)

    def state(self, observation: NDArray[np.float32]) -> State:
        """The state that an observation is of; at the end of an episode one that has no values."""
        metric, cost, progress = observation[self._metric : self._metric + 3].tolist()
        reached = self.cost_edges.searchsorted(cost, "right"), self.metric_edges.searchsorted(metric, "right")
        return (round(progress * self.values.shape[1]), *map(int, reached))

    def of(self, state: State) -> Floats:
        """The value of each action."""
        mean: Floats = self.values[(slice(None), *state)].mean(axis=0)
        return mean

    def act(self, observation: NDArray[np.float32], env: gym.Env) -> int:
        """The action of the highest value, of equals the first.

        Raises:
            ValueError: an environment that the table is not for.
        """
        self.check(env)
        return int(self.of(self.state(observation)).argmax())

    def check(self, env: gym.Env) -> None:
        """Refuse an environment of other observations or actions.

        Raises:
            ValueError: says both.
        """
        assert env.observation_space.shape is not None
        found, known = (env.observation_space.shape[0], int(_listed(env).n)), (self.observed, self.values.shape[-1])
        if found != known:
            raise ValueError(
                f"the table is for observations of {known[0]} numbers and {known[1]} actions, the environment has {found[0]} and "
                f"{found[1]}; make it as it was when the table was learnt"
            )

    def save(self, path: Path) -> None:
        """Write the table as plain arrays (npz), whole or not at all."""
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(getattr(self, name)) for name in ARRAYS})
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> QTable:
        """The table that `save` wrote.

        Raises:
            ValueError: there is none.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                values, cost_edges, metric_edges, observed, evaluations = (data[name] for name in ARRAYS)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no table that a tabular agent saved: {error}") from error
        return cls(values, cost_edges, metric_edges, int(observed), int(evaluations))


def _listed(env: gym.Env) -> spaces.Discrete:
    if not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(
            f"tables need listed actions, and those of this environment are {env.action_space}; use ReptilePruneDiscrete-v0"
        )
    return env.action_space


class Lesson:
    """How far a run's learning is, and with it how boldly actions are chosen and how far values move.

    Args:
        env: the recorder.
        table: what is learnt.
        left: evaluations that are not for learning.
        epsilon: probability of an action drawn from all.
        step_size: how far a value moves towards its target, from 0 to 1.
        rng: gives what is drawn.
        checkpoints: say when the table is to be saved.
    """

    def __init__(
        self,
        env: Recorder,
        table: QTable,
        left: int,
        epsilon: Schedule,
        step_size: Schedule,
        rng: np.random.Generator,
        checkpoints: Checkpoints,
    ) -> None:
        self._env, self._left, self._epsilon, self._step_size, self.rng = env, left, epsilon, step_size, rng
        self.table, self._checkpoints = table, checkpoints
        self._before, self._end = table.evaluations, table.evaluations + env.remaining

    @property
    def goes_on(self) -> bool:
        """Whether evaluations are left to learn from."""
        return self._env.remaining > self._left

    @property
    def step_size(self) -> float:
        """How far a value moves now."""
        return self._step_size(self._done)

    def start(self) -> State:
        """Start an episode; gives its first state."""
        self.note()
        path = self._checkpoints.due()
        if path is not None:
            self.table.save(path)
        return self.table.state(self._env.reset()[0])

    def choose(self, state: State) -> int:
        """An action: with probability epsilon any, else the best, of equals any."""
        values = self.table.of(state)
        if self.rng.random() < self._epsilon(self._done):
            return int(self.rng.integers(len(values)))
        return int(self.rng.choice(np.flatnonzero(values == values.max())))

    def note(self) -> None:
        """Let the table know how much it was learnt from."""
        self.table.evaluations = self._end - self._env.remaining

    @property
    def _done(self) -> float:
        """What part of the learning is over; a run that goes on with a table goes on with its schedules too."""
        return (self._end - self._env.remaining) / (self._end - self._left)


class TabularAgent(TunedAgent):
    """Learns a table, then plays its best actions once; the table stays in the run's folder.

    The hyperparameter ``table`` names the file of a table to go on with: with its values, its states, and its schedules from where
    they stood.
    """

    tables = 1

    @property
    def policy_file(self) -> str:
        """The table."""
        return f"{self.name}.npz"

    def load_policy(self, path: Path) -> Policy:
        """The table of a file."""
        return QTable.load(path)

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Learn, then play the best actions once.

        Raises:
            ValueError: actions that are not listed, or a table of another environment.
        """
        env.reset(seed=seed)
        table, left = self._table(env), reserved(env)
        epsilon, step_size = (Schedule(**self.hyperparameters[name]) for name in ("epsilon", "step_size"))
        checkpoints = Checkpoints(env, out, self.policy_file)
        lesson = Lesson(env, table, left, epsilon, step_size, np.random.default_rng(seed), checkpoints)
        try:
            self.learn(env, lesson)
        finally:
            # Also after Ctrl-C: what was learnt is worth as much as what was found.
            lesson.note()
            if out is not None:
                table.save(out / self.policy_file)
        if left:
            env.report_policy(play_policy(env, table)[0])

    @abstractmethod
    def learn(self, env: Recorder, lesson: Lesson) -> None:
        """Learn the table of a lesson as long as that goes on."""

    def _table(self, env: Recorder) -> QTable:
        settings = self.hyperparameters
        if settings["table"] is None:
            return QTable.new(env, self.tables, settings["costs"], settings["metric_edges"], settings["hope"])
        table = QTable.load(Path(settings["table"]))
        table.check(env)
        if len(table.values) != self.tables:
            raise ValueError(f"{settings['table']} holds {len(table.values)} tables and {self.name} needs {self.tables}")
        if table.values.shape[1] != env.decisions:  # its states would be shared out over the episode, several for one
            raise ValueError(
                f"{settings['table']} was learnt with {table.values.shape[1]} decisions an episode, here are {env.decisions}; "
                "go on with the rounds and the network that it was learnt on"
            )
        return table
