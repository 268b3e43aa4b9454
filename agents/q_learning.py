"""Q-learning with a table (Watkins, Learning from Delayed Rewards, 1989)."""

from __future__ import annotations

from agents.base import Recorder
from agents.tabular import Lesson, TabularAgent


class QLearning(TabularAgent):
    """The target of a value is the reward and the highest value of the state that follows, whatever is done there."""

    def learn(self, env: Recorder, lesson: Lesson) -> None:
        """Play episodes, update at every decision."""
        table, discount = lesson.table, self.hyperparameters["discount"]
        values = table.values[0]
        while lesson.goes_on:
            state, ended = lesson.start(), False
            while not ended and lesson.goes_on:
                action = lesson.choose(state)
                observation, reward, ended, _, _ = env.step(action)
                after = table.state(observation)
                target = reward if ended else reward + discount * values[after].max()
                values[(*state, action)] += lesson.step_size * (target - values[(*state, action)])
                state = after
