from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reptile_env.compression.plan import removal_count
from reptile_env.observations import GROUP_FEATURES, KINDS
from reptile_env.tasks.task import Task
from tests.helpers import make, play, random_actions, small_task


@pytest.mark.parametrize("observation", ["network", "group"])
@pytest.mark.parametrize("settings", [{}, {"budget": 0.4, "rounds": 2}])
def test_they_stay_in_their_space(builtin: str, observation: str, settings: dict[str, Any]) -> None:
    env = make(builtin, observation=observation, **settings)
    for seed in range(3):
        observed, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observed)
        for values, *_ in play(env, random_actions(env, settings.get("rounds", 1) * len(env.groups), seed)):
            assert env.observation_space.contains(np.array(values, dtype=np.float32))


def test_group_has_one_length_and_network_grows() -> None:
    lengths = {
        o: [make(t, observation=o).observation_space.shape for t in ("digits-cnn", "digits-mlp")] for o in ("network", "group")
    }
    assert lengths["group"] == [(len(KINDS) + len(GROUP_FEATURES),)] * 2
    assert lengths["network"] == [(2 * len(make(t).groups) + 4,) for t in ("digits-cnn", "digits-mlp")]


@given(rates=st.lists(st.floats(0, 0.9), min_size=1, max_size=5), budget=st.sampled_from([None, 0.5]))
def test_network_tells_where_the_episode_stands(rates: list[float], budget: float | None) -> None:
    env = make(budget=budget)
    observed, _ = env.reset(seed=0)
    info: dict[str, Any] = {}
    dense = env.measurement
    for rate in rates[: len(env.groups)]:
        observed, _, _, _, info = env.step(env.action_for(rate))
    count, done = len(env.groups), len(rates[: len(env.groups)])
    sparsity = 1 - np.array(env.plan.widths) / np.array(env.evaluator.sizes)
    cost = info["macs"] / dense.macs
    left = max(cost - budget, 0) if budget else 0
    where = np.eye(count)[min(done, count - 1)]
    expected = [*sparsity, *where, info["metric"] / dense.metric, cost, done / count, left]
    np.testing.assert_allclose(observed, np.clip(expected, 0, 1), atol=1e-6)


def test_group_describes_the_current_group() -> None:
    env = make("digits-cnn", observation="group")
    observed, _ = env.reset(seed=0)
    conv = dict(zip((*KINDS, *GROUP_FEATURES), observed.tolist(), strict=True))
    assert [k for k in KINDS if conv[k]] == ["conv"]
    assert conv["kernel"] == pytest.approx(1 - 1 / 5)
    assert conv["inputs"] == pytest.approx(np.log2(1 + 1) / 12)
    assert conv["outputs"] == pytest.approx(np.log2(16 + 1) / 12)
    assert conv["metric"] == conv["cost"] == 1
    seen = [conv]
    for rate in (0.5, 0.1, 0.2, 0.3, 0.4, 0.6):
        observed, *_, info = env.step(env.action_for(rate))
        seen.append(dict(zip((*KINDS, *GROUP_FEATURES), observed.tolist(), strict=True)))
        assert seen[-1]["previous rate"] == pytest.approx(info["rate"])
        assert seen[-1]["sparsity"] == 0
    assert [s["depth"] for s in seen] == pytest.approx(np.linspace(0, 1, 7).tolist())
    assert [next(k for k in KINDS if s[k]) for s in seen] == ["conv"] * 4 + ["depthwise"] + ["conv"] + ["linear"]
    ahead = [s["share ahead"] for s in seen]
    assert ahead == sorted(ahead, reverse=True)
    assert ahead[-1] == 0


def test_group_shows_sparsity_in_a_second_round() -> None:
    env = make(observation="group", rounds=2)
    env.reset(seed=0)
    observed = play(env, [env.action_for(0.5)] * len(env.groups))[-1][0]
    values = dict(zip((*KINDS, *GROUP_FEATURES), observed, strict=True))
    assert values["sparsity"] == pytest.approx(1 - env.plan.widths[0] / env.evaluator.sizes[0])
    assert values["progress"] == pytest.approx(0.5)


def test_sensitivity_is_the_rise_of_the_calibration_loss(user_task: Task) -> None:
    env = make(user_task, observation="group", recovery="none")
    task, evaluator = user_task, env.evaluator
    index = (*KINDS, *GROUP_FEATURES).index("sensitivity")
    observed, _ = env.reset(seed=0)
    halved = evaluator.cut(evaluator.dense, 0, removal_count(24, 0.5))
    losses = [task.score(evaluator.compressed_model(p)(task.train.inputs), task.train)[1] for p in (evaluator.dense, halved)]
    rise = losses[1] - losses[0]
    assert rise > 0
    assert observed[index] == pytest.approx(rise / (1 + rise), rel=1e-4)


def test_validation_data_never_reaches_the_sensitivity() -> None:
    # The same network and training data, other validation data: the same description of each group.
    first = make(small_task("one"), observation="group")
    x, y = first.evaluator.task.valid.inputs, first.evaluator.task.valid.targets
    other = make(small_task("two", valid=(x[:50] + 0.5, y[:50])), observation="group")
    assert first.evaluator.sensitivity() == other.evaluator.sensitivity()
