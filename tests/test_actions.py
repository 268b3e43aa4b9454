from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env.actions import ContinuousActions, DiscreteActions
from reptile_env.compression.plan import Request, removal_count


@pytest.mark.parametrize(("action", "rate"), [(-1.0, 0.0), (0.0, 0.4), (1.0, 0.8), (-0.5, 0.2)])
def test_a_continuous_action_spans_the_rates(action: float, rate: float) -> None:
    assert ContinuousActions(0.8).read(np.array([action], np.float32)).rate == pytest.approx(rate, abs=1e-12)


@given(max_rate=st.floats(0.01, 0.99), part=st.floats(0, 1))
def test_action_for_is_the_way_back(max_rate: float, part: float) -> None:
    actions = ContinuousActions(max_rate)
    action = actions.action_for(Request(part * max_rate))
    assert actions.space.contains(action)
    assert actions.read(action).rate == pytest.approx(part * max_rate, abs=1e-6)


@given(width=st.integers(2, 512), percent=st.integers(0, 90))
def test_a_float32_action_removes_as_many_channels_as_its_rate(width: int, percent: int) -> None:
    actions, rate = ContinuousActions(0.9), percent / 100
    back = actions.read(actions.action_for(Request(rate))).rate
    exact = min((width * percent + 50) // 100, width - 1)  # whole numbers, ties up
    assert removal_count(width, rate) == removal_count(width, back) == exact


def test_one_channel_always_stays() -> None:
    assert [removal_count(width, 0.99) for width in (1, 2, 3, 100)] == [0, 1, 2, 99]


def test_a_discrete_action_is_a_listed_rate() -> None:
    actions = DiscreteActions([0.5, 0.0, 0.25])
    assert [actions.read(k).rate for k in range(3)] == [0.5, 0.0, 0.25]
    assert actions.max_rate == 0.5
    assert [actions.action_for(Request(rate)) for rate in (0.0, 0.24, 0.4, 0.5)] == [1, 2, 0, 0]


def test_numpy_integers_are_actions() -> None:
    # DQN of Stable-Baselines3 hands over a 0-d array.
    assert DiscreteActions([0.0, 0.5]).read(np.array(1)) == DiscreteActions([0.0, 0.5]).read(np.int64(1)) == Request(0.5)
