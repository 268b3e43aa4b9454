"""ReptileCompress-v0: rate, bits and rank in one action."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reptile_env
from reptile_env.actions import COMPONENTS
from reptile_env.compression.plan import Request
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.observations import GROUP_FEATURES, KINDS
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train
from tests.helpers import classes, make, play, random_actions

ID = "ReptileCompress-v0"
SUBSETS = [list(subset) for count in (1, 2, 3) for subset in itertools.combinations(COMPONENTS, count)]
every_subset = pytest.mark.parametrize("components", SUBSETS, ids="+".join)


def through(env: ReptilePruneEnv, request: Request) -> tuple[float, dict[str, Any]]:
    """Return and last info of an episode that asks the same of every group."""
    env.reset(seed=0)
    total, terminated, info = 0.0, False, dict[str, Any]()
    while not terminated:
        _, reward, terminated, _, info = env.step(env.action_for(*request))
        total += reward
    return total, info


@every_subset
def test_spaces_grow_with_what_is_decided(components: list[str]) -> None:
    env = make(id=ID, components=components)
    groups, more = len(env.groups), len(set(components) - {"rate"})
    assert env.action_space.shape == (len(components),)
    assert env.observation_space.shape == (2 * groups + 4 + groups * more,)
    described = make(id=ID, components=components, observation="group")
    extra = ("bits" in components) + 2 * ("rank" in components)
    assert described.observation_space.shape == (len(KINDS) + len(GROUP_FEATURES) + extra,)
    for each in (env, described):
        for seed in range(2):
            each.reset(seed=seed)
            for values, *_ in play(each, random_actions(each, groups, seed)):
                assert each.observation_space.contains(np.array(values, dtype=np.float32))


@every_subset
def test_doing_nothing_returns_zero_and_the_best_uniform_setting_one(components: list[str]) -> None:
    env = make(id=ID, components=components)
    total, info = through(env, Request())
    assert total == info["return"] == 0.0
    assert env.plan == env.evaluator.dense
    total, info = through(env, env.reference.uniform)
    assert env.plan == env.reference.uniform_plan
    assert total == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(float(info["score"])) or components == ["rate"]


def test_no_uniform_setting_returns_more_than_one() -> None:
    env = make(id=ID, measure="round")
    assert {each.bits for each in env.uniform_sweep} == {32, 8, 6, 4}
    assert {each.rank for each in env.uniform_sweep} == {1.0, 0.5}
    returns = {each: through(env, each)[0] for each in env.uniform_sweep}
    assert max(returns, key=returns.__getitem__) == env.reference.uniform
    assert max(returns.values()) <= 1 + 1e-12


def test_a_step_carries_out_what_it_reports(builtin: str) -> None:
    env = make(builtin, ID, rounding="nearest")
    env.reset(seed=0)
    for index, name in enumerate(env.groups):
        *_, info = env.step(env.action_for(0.3, 5, 0.4))
        assert (info["bits_requested"], info["rank_requested"]) == (5, 0.4)
        assert (info["bits"], info["rank"]) == (env.plan.bits[index], env.plan.ranks[index])
        assert info["bits"] == 5
        assert info["rank"] == (0.4 if env.evaluator.rankable[index] else 1.0)
        assert info["plan"][name]["bits"] == 5
        assert info["plan"] == env.plan.to_dict()
        assert reptile_env.Plan.from_dict(json.loads(json.dumps(info["plan"]))) == env.plan
        assert info["bytes"] == env.measurement.bytes == env.evaluator.costs.all(*env.plan.levels)["bytes"]
        assert env.evaluator.measure(env.plan) == env.measurement


def test_the_same_for_every_group_is_the_uniform_plan(builtin: str) -> None:
    env = make(builtin, ID, measure="round", rounding="nearest")
    for asked in (Request(0.2, 8, 0.5), Request(0.6, 32, 0.3)):
        through(env, asked)
        assert env.plan == uniform_plan(env.evaluator, *asked)


def test_no_best_plan_is_known_where_bits_are_decided_on() -> None:
    # MACs do not see bits, so the best uniform rate is the calibrated one, and yet the scale may be another.
    env = make(id=ID, components=["rate", "bits"], cost="macs")
    assert env.reference.uniform_rate == make().reference.uniform_rate
    assert np.isnan(through(env, Request(0.1))[1]["score"])


class Recurrent(nn.Module):
    """A recurrent layer, which can't be factored, before one that can, and few outputs, which stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 12, batch_first=True)
        self.hidden = nn.Linear(12, 16)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.gru(x.unflatten(1, (2, 4)))
        found: Tensor = self.out(torch.relu(self.hidden(outputs[:, -1])))
        return found


@pytest.fixture(scope="module")
def recurrent_task() -> Task:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recurrent()
    x, y = classes(400)
    trained = train(model, Split(x[:200], y[:200]), epochs=20, loss=nn.functional.cross_entropy, lr=1e-2)
    return Task(trained, (x[:200], y[:200]), (x[200:], y[200:]), name="recurrent", w=0.5)


def test_what_can_not_be_factored_stays_whole(recurrent_task: Task) -> None:
    env = make(recurrent_task, ID)
    assert env.evaluator.rankable == (False, True)
    env.reset(seed=0)
    steps = play(env, [env.action_for(0.0, rank=0.1)] * 2)
    assert [(info["rank_requested"], info["rank"]) for *_, info in steps] == [(0.1, 1.0), (0.1, 0.1)]
    assert env.plan == uniform_plan(env.evaluator, 0.0, rank=0.1)
    assert env.plan.ranks == (1.0, 0.1)
    described = make(recurrent_task, ID, observation="group")
    first, _ = described.reset(seed=0)
    second, *_ = described.step(described.action_for(0.0))
    assert [first[-1], second[-1]] == [0, 1]
    # The wall does not count on what can't be done.
    timid = make(recurrent_task, ID, components=["rank"], budget=0.85, cost="params")
    timid.reset(seed=0)
    assert [info["rank"] < 1 for *_, info in play(timid, [timid.action_for(0)] * 2)] == [False, True]
    with pytest.raises(ValueError, match="can't be reached"):
        make(recurrent_task, ID, components=["rank"], budget=0.8, cost="params")


@given(rounds=st.integers(2, 3), seed=st.integers(0, 1000))
@settings(max_examples=8)
def test_later_rounds_undo_nothing(rounds: int, seed: int) -> None:
    env = make(id=ID, rounds=rounds, measure="round", recovery="none")
    env.reset(seed=0)
    before = env.plan
    for action in random_actions(env, rounds * len(env.groups), seed):
        *_, info = env.step(action)
        index = env.groups.index(info["group"])
        after = env.plan
        assert after.bits[index] == min(before.bits[index], info["bits_requested"])
        assert after.ranks[index] == min(before.ranks[index], info["rank_requested"])
        assert set(after.keep[index]) <= set(before.keep[index])  # type: ignore[arg-type]
        assert (after.bits[index], after.ranks[index]) == (info["bits"], info["rank"])
        before = after


@pytest.mark.parametrize("cost", ["bytes", "params"])
@given(budget=st.sampled_from([0.03, 0.1, 0.3, 0.7, 1.0]), seed=st.integers(0, 10**6), timid=st.booleans())
@settings(max_examples=8)
def test_a_budget_is_kept(cost: str, budget: float, seed: int, timid: bool) -> None:
    env = make(id=ID, cost=cost, budget=budget, measure="round", recovery="none", rounding="nearest")
    env.reset(seed=0)
    actions = [env.action_for(0)] * len(env.groups) if timid else random_actions(env, len(env.groups), seed)
    steps = play(env, actions)
    dense = env.measure(env.evaluator.dense)
    assert steps[-1][-1][cost] == env.measurement.cost(cost) <= budget * dense.cost(cost)
    for *_, info in steps:
        rankable = env.evaluator.rankable[env.groups.index(info["group"])]
        as_asked = info["bits"] == info["bits_requested"] and info["rank"] == (info["rank_requested"] if rankable else 1)
        assert as_asked or info["budget_bit"]
    if budget == 1.0:
        assert not any(info["budget_bit"] for *_, info in steps)


def test_bits_reach_where_rates_do_not() -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        make(cost="bytes", budget=0.05, max_rate=0.5)
    env = make(id=ID, budget=0.05, max_rate=0.5, measure="round")
    _, info = through(env, Request())
    assert info["bytes"] <= 0.05 * env.measure(env.evaluator.dense).bytes
    assert info["budget_bit"]


def test_chance_lets_bits_and_ranks_alone_too() -> None:
    env = make(id=ID, prune_probability=0.0)
    total, info = through(env, Request(0.5, 4, 0.5))
    assert total == 0.0
    assert (info["rate"], info["bits"], info["rank"]) == (0.0, 32, 1.0)
    assert env.plan == env.evaluator.dense


def test_observations_tell_bits_and_ranks() -> None:
    wide, narrow = make(id=ID), make(id=ID, observation="group")
    groups = len(wide.groups)
    for env in (wide, narrow):
        env.reset(seed=0)
    for asked in (Request(0.1, 4, 0.5), Request(0.2, 32, 1.0), Request(0.0, 2, 0.123)):
        observed, *_ = wide.step(wide.action_for(*asked))
        described, *_ = narrow.step(narrow.action_for(*asked))
    np.testing.assert_allclose(observed[-2 * groups : -groups], np.array(wide.plan.bits) / 32)
    np.testing.assert_allclose(observed[-groups:], wide.plan.ranks)
    assert wide.plan.bits[:3] == (4, 32, 2)
    assert wide.plan.ranks[:3] == (0.5, 1.0, 0.123)
    assert described[-3:].tolist() == [1.0, 1.0, 1.0]  # the fourth group is still whole and can be factored
    plain = make()
    plain.reset(seed=0)
    for rate in (0.1, 0.2, 0.0):
        expected, *_ = plain.step(plain.action_for(rate))
    np.testing.assert_allclose(observed[: 2 * groups], expected[: 2 * groups])


def test_rate_alone_is_reptile_prune() -> None:
    prune, compress = make(), make(id=ID, components=["rate"], cost="macs")
    prune.reset(seed=0)
    compress.reset(seed=0)
    actions = random_actions(prune, len(prune.groups))
    assert play(prune, actions) == play(compress, actions)
    assert not {"bits", "rank", "bits_requested", "rank_requested"} & prune.reset(seed=0)[1].keys()


def test_masked_weights_have_bits_but_no_ranks(user_task: Task) -> None:
    for components, mend in ((None, r"components=\['rate', 'bits'\]"), (["rank"], "granularity='structured'")):
        with pytest.raises(ValueError, match=f"can't be factored.*{mend}"):
            make(user_task, ID, granularity="unstructured", components=components)
    with pytest.raises(ValueError, match=r"knows widths alone, no ranks: give components=\['rate', 'bits'\]"):
        make(user_task, ID, cost="latency")
    env = make(user_task, ID, granularity="unstructured", components=["rate", "bits"], recovery="none", w=0.5)
    total, info = through(env, Request(0.5, 4))
    assert set(env.plan.bits) == {4}
    assert info["bytes"] < 0.3 * env.measure(env.evaluator.dense).bytes
    assert total != 0


def test_a_snapshot_under_other_components_is_refused() -> None:
    whole, part = make(id=ID), make(id=ID, components=["rate", "bits"])
    whole.reset(seed=0)
    part.reset(seed=0)
    whole.step(whole.action_for(0.3, 4, 0.5))
    snapshot = whole.snapshot()
    with pytest.raises(ValueError, match="under other rules"):
        part.restore(snapshot)
    rest = random_actions(whole, len(whole.groups) - 1)
    first = play(whole, rest)
    whole.restore(snapshot)
    assert play(whole, rest) == first


def test_arguments_reach_the_evaluator(user_task: Task) -> None:
    env = make(
        user_task, ID, rounding="nearest", recovery="reconstruct+finetune", finetune={"steps": 3, "distillation": 0.5}, w=0.5
    )
    found = env.evaluator.settings
    assert (found.rounding, found.finetune.steps, found.finetune.distillation, found.latency) == ("nearest", 3, 0.5, False)
    for arguments, message in (
        ({"rounding": "up"}, "unknown rounding 'up'"),
        ({"finetune": {"step": 3}}, "unknown finetune argument 'step'.*did you mean 'steps'"),
        ({"finetune": {"steps": 0}}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make(user_task, ID, **arguments)
    with pytest.raises(TypeError, match="finetune must be a dict"):
        make(user_task, ID, finetune=3)


def test_the_next_round_starts_from_the_trained_network(user_task: Task) -> None:
    arguments = {"recovery": "finetune", "finetune": {"steps": 4}, "w": 0.5}
    env = make(user_task, rounds=2, **arguments)
    env.reset(seed=0)
    steps = play(env, [env.action_for(0.3)] * 4)
    plans = [reptile_env.Plan.from_dict(info["plan"]) for *_, info in steps]
    assert [plan.parent for plan in plans] == [None, None, plans[1], plans[1]]
    assert env.measure(plans[1]).metric == steps[1][-1]["metric"]
    assert env.measure(plans[3]) == env.measurement
    plain = make(user_task, rounds=2, w=0.5)
    plain.reset(seed=0)
    assert play(plain, [plain.action_for(0.3)] * 4)[-1][-1]["plan"].keys() == set(plain.groups)
