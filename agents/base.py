"""What every agent shares: the interface, and the recorder between it and the environment."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.trace import PolicyResult, Row, Trace, TraceFile
from reptile_env.actions import DEFAULT_MAX_RATE, RATE_ALONE
from reptile_env.env import ReptilePruneEnv

# Told of every evaluated plan: the trace so far, its new row, and whether that is the best yet.
Listener = Callable[[Trace, Row, bool], None]


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Counts and records evaluated plans, and refuses to go past the number allowed.

    Args:
        env: an environment of one task, made by ``gym.make``.
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
        self._by_round = settings.get("measure", "step") == "round"
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
        """Steps of an episode."""
        return len(self.inner.groups) * self._rounds

    @property
    def evaluations_per_episode(self) -> int:
        """Evaluated plans of an episode."""
        return self._rounds if self._by_round else self.decisions

    @property
    def max_rate(self) -> float:
        """The largest rate that an action can ask for."""
        settings = env_settings(self.env)
        return float(settings.get("max_rate") or max(settings.get("rates") or [DEFAULT_MAX_RATE]))

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
        )
        improved = self.trace.add(row)
        if self._file is not None:
            self._file.row(row)
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

    def run(
        self, env: gym.Env[Any, Any], evaluations: int, seed: int, *, out: Path | None = None, listeners: Sequence[Listener] = ()
    ) -> Trace:
        """Search for plans.

        Args:
            env: an environment of one task, made by ``gym.make``.
            evaluations: plans that may be evaluated, at least 1.
            seed: decides everything that is drawn: the same seed gives the same trace, but for its seconds.
            out: an existing folder for ``trace-NAME.jsonl``, which is written as the run goes, and what else the agent keeps.
            listeners: told of each evaluated plan.

        Raises:
            ValueError: no evaluation allowed, a negative seed, or an environment of several tasks.
            FileExistsError: `out` holds a trace of this agent.
        """
        if evaluations < 1:
            raise ValueError(f"evaluations={evaluations}; a run needs at least 1")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed} is outside 0 to 2**32 - 1")
        assert env.spec is not None
        settings = env_settings(env)
        if isinstance(settings.pop("task", None), (list, tuple)):
            raise ValueError("a run has one task; make the environment with one")
        task = env.unwrapped.evaluator.name  # type: ignore[attr-defined]
        shown = {key: getattr(value, "__name__", repr(value)) if callable(value) else value for key, value in settings.items()}
        trace = Trace(self.name, env.spec.id, task, seed, evaluations, shown, self.settings)
        file = TraceFile(out / f"trace-{self.name}.jsonl", trace) if out is not None else None
        try:
            self.search(Recorder(env, trace, file, listeners), seed, out)
        finally:
            if file is not None:
                file.close()
        return trace

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
