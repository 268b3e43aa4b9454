from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env.actions import BITS, COMPONENTS, ContinuousActions, DiscreteActions, make_actions, uniform_rates
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


@pytest.mark.parametrize(
    ("action", "request_"),
    [
        ((-1, -1, -1), Request(0.0, 32, 1.0)),
        ((1, 1, 1), Request(0.9, 2, 0.1)),
        ((0, 0, 0), Request(0.45, 5, 0.55)),
        ((-1, -0.76, -0.999), Request(0.0, 32, 1.0)),
        ((-1, -0.74, -0.99), Request(0.0, 8, 0.996)),
        ((-1, 0.74, 0.5), Request(0.0, 3, 0.325)),
    ],
)
def test_three_numbers_are_rate_bits_and_rank(action: tuple[float, ...], request_: Request) -> None:
    found = ContinuousActions(components=("rate", "bits", "rank")).read(np.array(action, np.float32))
    assert found.rate == pytest.approx(request_.rate, abs=1e-7)
    assert (found.bits, found.rank) == (request_.bits, request_.rank)


def test_the_eight_bits_have_an_equal_share_of_the_action() -> None:
    actions = ContinuousActions(components=("bits",))
    found = [actions.read(np.array([a], np.float32)).bits for a in np.arange(-1 + 1 / 800, 1, 1 / 400)]
    assert found == sorted(found, reverse=True)
    assert {bits: found.count(bits) for bits in found} == dict.fromkeys([32, 8, 7, 6, 5, 4, 3, 2], 100)


@given(
    components=st.permutations(COMPONENTS).flatmap(lambda order: st.integers(1, 3).map(lambda count: order[:count])),
    request_=st.builds(Request, st.floats(0, 0.9), st.sampled_from(BITS), st.integers(100, 1000).map(lambda k: k / 1000)),
)
def test_action_for_is_the_way_back_of_every_component(components: list[str], request_: Request) -> None:
    actions = ContinuousActions(components=components)
    asked = Request(**{name: value for name, value in request_._asdict().items() if name in components})
    action = actions.action_for(asked)
    assert action.shape == (len(components),)
    assert actions.space.contains(action)
    found = actions.read(action)
    assert found.rate == pytest.approx(asked.rate, abs=1e-6)
    assert (found.bits, found.rank) == (asked.bits, asked.rank)


def test_components_come_in_the_order_given() -> None:
    found = ContinuousActions(components=("rank", "rate")).read(np.array([-1, 1], np.float32))
    assert found == Request(rate=0.9, rank=1.0)


def test_to_leave_all_alone_is_minus_one_everywhere() -> None:
    actions = ContinuousActions(components=COMPONENTS)
    assert actions.action_for(Request()).tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("joint", None, None, []), ValueError, "at least one of rate, bits, rank"),
        (("joint", None, None, ["rate", "bit"]), ValueError, "unknown component 'bit'.*did you mean 'bits'"),
        (("joint", None, None, ["bits", "bits"]), ValueError, "list each component once"),
        (("joint", None, None, "rate"), TypeError, r"must be a list such as \['rate', 'bits'\], got str"),
        (("joint", None, None, [["rate"]]), ValueError, "unknown component"),
        (("joint", 0.5, None, ["bits"]), ValueError, "max_rate= belongs to the component 'rate'"),
        (("joint", None, [0.0, 0.5], None), ValueError, "ReptilePruneDiscrete-v0"),
        (("joint", 1.0, None, None), ValueError, r"max_rate=1.0 is outside \(0, 1\)"),
        (("continuous", None, None, ["rate", "bits"]), ValueError, "belong to ReptileCompress-v0"),
        (("discrete", None, None, ["bits"]), ValueError, "belong to ReptileCompress-v0"),
        (("continuos", None, None, None), ValueError, "did you mean 'continuous'"),
    ],
)
def test_components_that_can_not_be_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_actions(*arguments)


def test_rate_alone_may_be_said() -> None:
    for action in ("continuous", "discrete"):
        assert make_actions(action, None, None, ["rate"]).components == ("rate",)


@pytest.mark.parametrize(
    ("components", "request_", "message"),
    [
        (COMPONENTS, Request(bits=16), "bits=16; an action can ask for 32, 8, 7"),
        (COMPONENTS, Request(rank=0.05), r"rank 0.05 is outside \[0.1, 1\]"),
        (COMPONENTS, Request(rank=1.5), "outside"),
        (COMPONENTS, Request(rate=0.95), r"rate 0.95 is outside \[0, 0.9\]"),
        (("rate",), Request(0.1, bits=8), r"bits=8: actions of components=\['rate'\] can't ask for it"),
        (("bits", "rank"), Request(0.1), "rate=0.1: actions of"),
    ],
)
def test_what_no_action_asks_for_is_refused(components: tuple[str, ...], request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuousActions(components=components).action_for(request_)
    with pytest.raises(ValueError, match="ask for rates alone"):
        DiscreteActions([0.0, 0.5]).action_for(Request(bits=4))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0.5], r"an action has shape \(3,\), got shape \(1,\)"),
        ([0.5, 0.5, math.nan], r"action nan is outside \[-1, 1\]"),
        ([0.5, -2.0, 0.0], r"action -2.0 is outside \[-1, 1\]; clip it"),
        (None, r"3 numbers in \[-1, 1\], shape \(3,\), got None"),
        (["a", "b", "c"], "3 numbers"),
    ],
)
def test_a_bad_action_of_three_is_refused(action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuousActions(components=COMPONENTS).read(action if action is None else np.array(action))


@pytest.mark.parametrize("max_rate", [0.9, 0.5, 0.05])
def test_the_sweep_is_small_and_can_be_asked_for(max_rate: float) -> None:
    for count in (1, 2, 3):
        for components in itertools.combinations(COMPONENTS, count):
            actions = ContinuousActions(max_rate if "rate" in components else None, components)
            assert 0 < len(actions.sweep) == len(set(actions.sweep)) <= 31
            assert Request() not in actions.sweep
            for each in actions.sweep:
                assert actions.read(actions.action_for(each))[1:] == each[1:]
    alone = ContinuousActions(max_rate)
    assert alone.sweep == [Request(rate) for rate in uniform_rates(max_rate)]
