from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env import Plan

keeps = st.lists(st.sets(st.integers(0, 40), min_size=1).map(sorted), min_size=1, max_size=4)


@given(keep=keeps)
def test_a_plan_survives_json_pickle_and_copy(keep: list[list[int]]) -> None:
    plan = Plan([f"g{k}" for k in range(len(keep))], keep)
    twins = [Plan.from_dict(json.loads(json.dumps(plan.to_dict()))), pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)]
    assert all(twin == plan and hash(twin) == hash(plan) for twin in twins)
    assert plan.widths == tuple(map(len, keep))


def test_plans_differ_by_channels_and_by_names() -> None:
    assert len({Plan(["a"], [[0]]), Plan(["a"], [[1]]), Plan(["b"], [[0]]), Plan(["a"], [[0, 1]]), Plan(["a"], [(0,)])}) == 4


def test_replace_leaves_the_original() -> None:
    plan = Plan.dense(["a", "b"], [3, 2])
    assert plan.replace(0, [1]).keep == ((1,), (0, 1))
    assert plan.keep == ((0, 1, 2), (0, 1))


def test_a_plan_can_not_be_changed() -> None:
    with pytest.raises(AttributeError, match="replace"):
        Plan(["a"], [[0]]).keep = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("names", "keep", "message"),
    [
        (["a"], [[]], "keeps at least one"),
        (["a"], [[1, 0]], "ascending"),
        (["a"], [[0, 0]], "ascending"),
        (["a"], [[-1]], "ascending"),
        (["a"], [[0.0]], "ascending"),
        (["a"], [[True]], "ascending"),
        (["a"], [[0, None]], "ascending indices from 0, got \\[0, None\\]"),
        (["a"], [[0, "1"]], "ascending"),
        (["a"], [["0", 1]], "ascending"),
        (["a"], [[0, [1]]], "ascending"),
        (["a"], [[np.False_, 1]], "ascending"),
        (["a", "b"], [[0]], "2 names, 1 lists"),
    ],
)
def test_a_bad_plan_is_refused(names: list[str], keep: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(names, keep)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    keep: list[Any] = [list(np.array([0, 2])), np.int64(5)]
    plan = Plan(["a", "b"], keep, [np.int8(4), 32], [np.float64(0.5), 1])
    assert plan == Plan(["a", "b"], [[0, 2], 5], [4, 32], [0.5, 1.0])
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert Plan.from_dict({"a": {"keep": [np.int64(0), np.uint8(2)], "bits": np.int64(4)}}).bits == (4,)


@pytest.mark.parametrize(
    "data",
    [None, [1], {"a": [0]}, {"a": {"keep": "3"}}, {"a": {"keep": [0], "colour": 8}}, {"a": {}}],
)
def test_bad_json_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan.from_dict(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 2])
def test_a_group_that_is_not_there_can_not_be_replaced(index: int) -> None:
    with pytest.raises(ValueError, match=f"no group number {index}"):
        Plan(["a", "b"], [[0, 1], [0, 1]]).replace(index, [0])
