"""SARSA and SARSA(lambda) with a table (Rummery & Niranjan, 1994; replacing traces: Singh & Sutton, Machine Learning 1996)."""

from __future__ import annotations

from agents.base import Recorder
from agents.tabular import Lesson, TabularAgent


class Sarsa(TabularAgent):
    """The target of a value is the reward and the value of the action that is really taken next.

    With a trace decay above 0, lambda, the decisions before take part of every update, the less the longer they are past.
    """

    def learn(self, env: Recorder, lesson: Lesson) -> None:
        """Play episodes, update at every decision."""
        table, discount, decay = lesson.table, self.hyperparameters["discount"], self.hyperparameters["trace_decay"]
        values = table.values[0]
        while lesson.goes_on:
            state, ended = lesson.start(), False
            action = lesson.choose(state)
            traces: dict[tuple[int, ...], float] = {}
            while not ended and lesson.goes_on:
                observation, reward, ended, _, _ = env.step(action)
                target = reward
                if not ended:
                    after = table.state(observation)
                    following = lesson.choose(after)
                    target += discount * values[(*after, following)]
                error = target - values[(*state, action)]
                traces = {key: discount * decay * trace for key, trace in traces.items()} | {(*state, action): 1.0}
                for key, trace in traces.items():
                    values[key] += lesson.step_size * error * trace
                if not ended:
                    state, action = after, following
