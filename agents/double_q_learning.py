"""Double Q-learning with two tables (van Hasselt, Double Q-learning, NIPS 2010)."""

from __future__ import annotations

from agents.base import Recorder
from agents.tabular import Lesson, TabularAgent


class DoubleQLearning(TabularAgent):
    """One table says which action is best in the state that follows, the other what it is worth; a coin says which learns.

    So a value that chance made too high is not what the other table learns from. Actions are chosen by the mean of both.
    """

    tables = 2

    def learn(self, env: Recorder, lesson: Lesson) -> None:
        """Play episodes, update one of the tables at every decision."""
        table, discount = lesson.table, self.hyperparameters["discount"]
        while lesson.goes_on:
            state, ended = lesson.start(), False
            while not ended and lesson.goes_on:
                action = lesson.choose(state)
                observation, reward, ended, _, _ = env.step(action)
                after = table.state(observation)
                coin = int(lesson.rng.integers(2))
                learning, other = table.values[coin], table.values[1 - coin]
                target = reward if ended else reward + discount * other[after][learning[after].argmax()]
                learning[(*state, action)] += lesson.step_size * (target - learning[(*state, action)])
                state = after
