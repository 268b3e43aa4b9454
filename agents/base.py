"""What every agent shares: the interface, and the recorder between it and the environment."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.plain import plain, whole
from agents.registry import AGENTS
from agents.replay import put_back, remember
from agents.trace import PolicyResult, Row, Trace
from agents.trace_file import TraceFile, open_trace
from reptile_env.actions import DEFAULT_MAX_RATE, RATE_ALONE
from reptile_env.env import ReptilePruneEnv
from reptile_env.episode import Snapshot
from reptile_env.transfer import SUITE, ReptilePruneTransferEnv

if TYPE_CHECKING:
    from agents.policy import Policy

# Told of every evaluated plan: the trace so far, its new row, and whether that is the best yet.
Listener = Callable[[Trace, Row, bool], None]


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Counts and records evaluated plans, and refuses to go past the number allowed.

    Args:
        env: an environment made by ``gym.make``.
        trace: where the rows go.
        file: where they are written too, as the run goes.
        listeners: told of each row.
    """

    def __init__(
        self, env: gym.Env[Any, Any], trace: Trace, file: TraceFile | None = None, listeners: Sequence[Listener] = ()
    ) -> None:
        super().__init__(env)
        settings = env_settings(env)
        self.trace, self._file, self._listeners = trace, file, tuple(listeners)
        self._budget: float | None = settings.get("budget")
        self._rounds = int(settings.get("rounds", 1))
        self._episode, self._return = 0, 0.0
        self._start = time.perf_counter()

    @property
    def inner(self) -> ReptilePruneEnv:
        """The environment itself."""
        env = self.unwrapped
        assert isinstance(env, ReptilePruneEnv)
        return env

    @property
    def remaining(self) -> int:
        """Evaluated plans that are left."""
        return self.trace.evaluations - len(self.trace.rows)

    @property
    def decisions(self) -> int:
        """Steps of an episode; of the longest, where networks are drawn."""
        return self.inner.most_groups * self._rounds

    @property
    def evaluations_per_episode(self) -> int:
        """Evaluated plans of an episode."""
        return evaluations_of_episode(self.env)

    @property
    def max_rate(self) -> float:
        """The largest rate that an action can ask for."""
        settings = env_settings(self.env)
        rates = settings.get("rates")  # maybe an array, which is neither true nor false
        return float(settings.get("max_rate") or max([DEFAULT_MAX_RATE] if rates is None else rates))

    @property
    def tops(self) -> NDArray[np.float64]:
        """The largest amount of each component of each decision, in the order of `play`: the top rate, 1 for bits and ranks."""
        tops = [self.max_rate if name == "rate" else 1.0 for name in self.inner.components]
        return np.tile(np.array(tops), self.decisions)

    @property
    def uniform(self) -> NDArray[np.float64]:
        """The best uniform setting, as amounts."""
        rate, bits, rank = self.inner.reference.uniform
        if self.inner.components == RATE_ALONE:
            return np.full(self.decisions, rate)
        action = np.asarray(self.inner.action_for(rate, bits, rank), np.float64)
        return self.tops * (np.tile(action, self.decisions) + 1) / 2

    def action_of(self, amounts: Sequence[float]) -> Any:
        """The action that asks for these amounts, one a component: nothing is 0, all there is `tops`."""
        if self.inner.components == RATE_ALONE:
            return self.inner.action_for(amounts[0])
        tops = self.tops[: len(amounts)]
        return np.clip(2 * np.asarray(amounts) / tops - 1, -1, 1).astype(np.float32)

    def snapshot(self) -> tuple[Snapshot, float]:
        """A point of the episode to return to, and the rewards up to there."""
        return self.inner.snapshot(), self._return

    def restore(self, point: tuple[Snapshot, float]) -> Any:
        """Go on from a point that `snapshot` gave, as another episode of the trace; gives the observation there."""
        self._episode, (state, self._return) = self._episode + 1, point
        return self.inner.restore(state)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._episode, self._return = self._episode + 1, 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Carry out one decision.

        Raises:
            RuntimeError: all allowed plans were evaluated.
        """
        if self.remaining <= 0:
            raise RuntimeError(f"all {self.trace.evaluations} plans that this run was allowed are evaluated; the agent must stop")
        observation, reward, terminated, truncated, info = super().step(action)
        self._return += float(reward)
        if info["measured"]:
            self._record(info)
        return observation, reward, terminated, truncated, info

    def report_policy(self, episode_return: float) -> None:
        """Note that the episode just ended was the trained policy's own, without exploration."""
        self.trace.policy = PolicyResult(episode_return, len(self.trace.rows))
        if self._file is not None:
            self._file.policy(self.trace.policy)

    def _record(self, info: dict[str, Any]) -> None:
        reference, plan, measurement = self.inner.reference, self.inner.plan, self.inner.measurement
        limit = self._budget * reference.dense.cost(reference.cost) if self._budget is not None else None
        row = Row(
            evaluation=len(self.trace.rows) + 1,
            episode=self._episode,
            group=info["group"],
            rate=info["rate"],
            metric=measurement.metric,
            loss=measurement.loss,
            params=measurement.params,
            macs=measurement.macs,
            bytes=measurement.bytes,
            utility=info["utility"],
            plan_return=reference.return_of(measurement),
            episode_return=self._return,
            within_budget=limit is None or measurement.cost(reference.cost) <= limit,
            seconds=round(time.perf_counter() - self._start, 4),
            plan=plan,
            latency=measurement.latency,
            train_loss=measurement.train_loss,
            network=info["task"] if len(self.inner.task_names) > 1 else None,
        )
        if self._file is not None:
            written = self._file.row(row)
            if written is not row:  # it was there already: an interrupted run goes on, and playing again takes no time
                row, self._start = written, time.perf_counter() - written.seconds
        improved = self.trace.add(row)
        for listener in self._listeners:
            listener(self.trace, row, improved)


class Agent(ABC):
    """An agent: it is given an environment and a number of plans to evaluate, and leaves a trace.

    Args:
        name: its name in the registry.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def settings(self) -> dict[str, Any]:
        """Hyperparameters, JSON-able."""
        return {}

    @property
    def networks(self) -> tuple[str, ...]:
        """Tasks that the agent has learnt on before it is run."""
        return ()

    @property
    def policy_file(self) -> str | None:
        """Name of the file in which a run's folder keeps the trained policy; None where the agent has none."""
        return None

    def load_policy(self, path: Path) -> Policy:
        """The policy that a run saved.

        Raises:
            ValueError: the agent has none.
        """
        raise ValueError(f"agent {self.name!r} trains no policy; its result is its best plan")

    def prepare(self, task: str) -> None:  # noqa: B027 (most agents are the same for every task)
        """Take the settings that are meant for a task, before a run on it."""

    def run(
        self,
        env: gym.Env[Any, Any],
        evaluations: int,
        seed: int,
        *,
        out: Path | None = None,
        listeners: Sequence[Listener] = (),
        resume: bool = False,
    ) -> Trace:
        """Search for plans.

        Args:
            env: an environment made by ``gym.make``: of one task, or, for an agent that learns a policy, of several networks
                (``ReptilePruneTransfer-v0``).
            evaluations: plans that may be evaluated, at least 1.
            seed: decides everything that is drawn: the same seed gives the same trace, but for its seconds.
            out: an existing folder for ``trace-NAME.jsonl``, which is written as the run goes, and what else the agent keeps.
            listeners: told of each evaluated plan.
            resume: go on with the run whose trace `out` holds, where it is one of the same environment, evaluations and seed. It is
                played again without measuring anything twice, and then the trace grows to what it would be without the
                interruption, to the last bit (but for its seconds).

        Raises:
            TypeError: evaluations or a seed that are no whole numbers, or an environment that is none of this package's.
            ValueError: no evaluation allowed, a negative seed, an environment without ``gym.make``, one of actions that the agent
                can't choose among, or one of several tasks where there can be one alone.
            FileExistsError: `out` holds a trace of this agent, and it is not to be resumed.
            agents.replay.ReplayError: the resumed run differs from its trace.
        """
        evaluations, seed = whole("evaluations", evaluations), whole("seed", seed)
        if evaluations < 1:
            raise ValueError(f"evaluations={evaluations}; a run needs at least 1")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed} is outside 0 to 2**32 - 1")
        settings, inner = env_settings(env), env.unwrapped
        if not isinstance(inner, ReptilePruneEnv):
            raise TypeError(f"agents act in the environments of reptile_env, such as ReptilePrune-v0, got {type(inner).__name__}")
        assert env.spec is not None
        task = self._task_of(inner, settings)
        if self.name in AGENTS:
            AGENTS[self.name].check_actions(env.action_space)
        self.prepare(task)
        trace = Trace(self.name, env.spec.id, task, seed, evaluations, plain(settings), self.settings)
        with contextlib.ExitStack() as stack:
            file = None
            if out is not None:
                file = stack.enter_context(open_trace(out / f"trace-{self.name}.jsonl", trace, resume))
                for name in inner.task_names if file.recorded_rows else ():
                    rows = [row for row in file.recorded_rows if (row.network or task) == name]
                    remember(inner.evaluator_of(name), rows)
                if resume and self.policy_file is not None:
                    stack.enter_context(put_back(out / self.policy_file, file.came_as_far))
            inner.reset(seed=seed)  # whatever an agent draws by itself, the environment draws too
            self.search(Recorder(env, trace, file, listeners), seed, out)
            if file is not None:
                file.end()
        return trace

    def _task_of(self, env: ReptilePruneEnv, settings: dict[str, Any]) -> str:
        """What a run is on: a task, or a split of the family. The settings keep the names of drawn networks that were asked for."""
        asked = settings.pop("task", None)
        if len(env.task_names) == 1:
            return env.task_names[0]
        if not isinstance(env, ReptilePruneTransferEnv):
            raise ValueError("a run has one task; make the environment with one, or draw networks with ReptilePruneTransfer-v0")
        if self.policy_file is None:
            raise ValueError(
                f"agent {self.name!r} searches the plans of one network and learns no policy; name one with task=, or --task"
            )
        if asked is not None:
            settings["task"] = list(env.task_names)
        return f"{SUITE}-{env.split}"

    @abstractmethod
    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Evaluate at most ``env.remaining`` plans; the recorder keeps what they yield."""


def env_settings(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """The arguments that an environment was made with.

    Raises:
        ValueError: it was not made by ``gym.make``, so that a trace couldn't say what it is of.
    """
    if env.spec is None:
        raise ValueError("the environment has no spec; make it with gym.make")
    return dict(env.spec.kwargs)


def evaluations_of_episode(env: gym.Env[Any, Any]) -> int:
    """Plans that an episode evaluates; the longest, where networks are drawn."""
    settings, inner = env_settings(env), env.unwrapped
    assert isinstance(inner, ReptilePruneEnv)
    return int(settings.get("rounds", 1)) * (1 if settings.get("measure", "step") == "round" else inner.most_groups)


def play(env: Recorder, amounts: Sequence[float]) -> float | None:
    """Play one episode that asks for `amounts`; None when the evaluations ran out on the way.

    Args:
        env: the environment.
        amounts: rates, one a decision; where there are more components, one a component and decision, from 0, which leaves it
            alone, to the top of `Recorder.tops`.

    Returns:
        The sum of its rewards.
    """
    env.reset()
    total, each = 0.0, len(env.inner.components)
    for start in range(0, len(amounts), each):
        if env.remaining <= 0:
            return None
        _, reward, _, _, _ = env.step(env.action_of(amounts[start : start + each]))
        total += float(reward)
    return total
