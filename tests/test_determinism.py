"""A measurement is a pure function of task, settings and plan; nothing global is touched."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

import reptile_env
from reptile_env.compression import prune
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from tests.helpers import classes, generator_states, make, play, random_actions, random_plan, run_python, small_network, small_task

# What fits each network: digits-mlp has no batch norm.
RECOVERIES = {
    "digits-cnn": ["none", "recalibrate", "reconstruct", "reconstruct+recalibrate"],
    "digits-mlp": ["none", "reconstruct"],
}
CASES = [(task, recovery) for task, recoveries in RECOVERIES.items() for recovery in recoveries]


def fresh(task: str, recovery: str) -> LiveEvaluator:
    """An evaluator of its own, with nothing remembered."""
    return LiveEvaluator(make_task(task), Settings(recovery))


def plans_of(evaluator: LiveEvaluator, count: int, seed: int) -> list[Plan]:
    generator = np.random.default_rng(seed)
    plans = [random_plan(evaluator.group_names, evaluator.sizes, generator) for _ in range(count)]
    one_left = Plan(evaluator.group_names, [[size - 1] for size in evaluator.sizes])
    return [evaluator.dense, one_left, *plans]


@pytest.mark.parametrize(("task", "recovery"), CASES)
def test_any_order_gives_the_same_floats(task: str, recovery: str) -> None:
    first, second = fresh(task, recovery), fresh(task, recovery)
    plans = plans_of(first, 10, seed=0)
    expected = {plan: first.measure(plan) for plan in plans}
    shuffled = [plans[k] for k in np.random.default_rng(1).permutation(len(plans))]
    assert {plan: second.measure(plan) for plan in shuffled} == expected
    # Remembered, and measured with something else in between.
    assert [first.measure(plan) for plan in plans] == list(expected.values())
    for plan in plans[:4]:
        alone = fresh(task, recovery)
        alone.measure(plans[-1])
        assert alone.measure(plan) == expected[plan]


@pytest.mark.parametrize(("task", "recovery"), CASES)
def test_the_compressed_network_is_the_measured_one(task: str, recovery: str) -> None:
    evaluator = fresh(task, recovery)
    for plan in plans_of(evaluator, 4, seed=3):
        model = evaluator.compressed_model(plan)
        evaluator.measure(evaluator.dense)  # what is measured later changes nothing in the copy
        measured = evaluator.measure(plan)
        plain = evaluator.task.score(evaluator.task.outputs(model, evaluator.task.valid), evaluator.task.valid)
        assert plain == pytest.approx((measured.metric, measured.loss), rel=1e-6)
        # In the memory format and batches in which the evaluator runs networks: to the last bit.
        running = evaluator._engine.running
        for parameter in model.parameters():
            parameter.data = running.arranged(parameter.data)
        with torch.inference_mode():
            outputs = torch.cat([model(inputs) for inputs in running.batches(evaluator.task.valid)])
        assert evaluator.task.score(outputs, evaluator.task.valid) == (measured.metric, measured.loss)


Op = tuple[str, int, float]
ops = st.lists(
    st.tuples(
        st.sampled_from(["step", "snapshot", "restore", "deepcopy", "pickle", "measure", "reset"]),
        st.integers(0, 1),
        st.floats(0, 0.9),
    ),
    min_size=1,
    max_size=25,
)


class _Life:
    """An environment beside the list of everything that led to where it stands."""

    def __init__(self, seed: int) -> None:
        self.env = make("digits-mlp", prune_probability=0.8)
        self.env.reset(seed=seed)
        self.seed, self.rates, self.steps = seed, list[float](), list[Any]()
        self.saved = (self.env.snapshot(), list(self.rates), list(self.steps))

    def do(self, op: str, number: float) -> None:
        if op == "step" and len(self.rates) < len(self.env.groups):
            self.steps += play(self.env, [self.env.action_for(number)])
            self.rates.append(number)
        elif op == "snapshot":
            self.saved = (self.env.snapshot(), list(self.rates), list(self.steps))
        elif op == "restore":
            self.env.restore(self.saved[0])
            self.rates, self.steps = list(self.saved[1]), list(self.saved[2])
        elif op == "deepcopy":
            old, self.env = self.env, copy.deepcopy(self.env)
            old.reset(seed=7)
            old.step(old.action_for(number))
        elif op == "pickle":
            self.env = pickle.loads(pickle.dumps(self.env))
        elif op == "measure":
            evaluator = self.env.evaluator
            self.env.measure(random_plan(evaluator.group_names, evaluator.sizes, np.random.default_rng(int(number * 1e6))))
        elif op == "reset":
            self.env.reset(seed=self.seed)
            self.rates, self.steps = [], []


@settings(max_examples=25)
@given(ops=ops)
def test_interleaved_environments_live_as_if_alone(ops: list[Op]) -> None:
    lives, lonely = [_Life(seed=11), _Life(seed=12)], fresh("digits-mlp", "reconstruct")
    for op, which, number in ops:
        lives[which].do(op, number)
    for life in lives:
        alone = make("digits-mlp", prune_probability=0.8)
        alone.reset(seed=life.seed)
        assert play(alone, [alone.action_for(rate) for rate in life.rates]) == life.steps
        assert alone.plan == life.env.plan
        assert alone.np_random.bit_generator.state == life.env.np_random.bit_generator.state
        assert lonely.measure(life.env.plan) == life.env.measurement


LIFE = """
import gymnasium as gym
import numpy as np

import reptile_env

def life(task, action):
    env = gym.make("ReptilePrune-v0", task=task, prune_probability=0.7)
    env.reset(seed=3)
    steps = [env.step(np.float32([action])) for _ in env.unwrapped.groups]
    return repr([(o.tolist(), r, i["metric"], i["loss"], i["plan"]) for o, r, _, _, i in steps])
"""


def test_another_process_gives_the_same_floats() -> None:
    here: dict[str, Any] = {}
    exec(LIFE, here)
    orders = ["digits-cnn", "digits-mlp"], ["digits-mlp", "digits-cnn"]
    expected = {task: here["life"](task, 0.1) for task in orders[0]}
    found = run_python(LIFE + f"for task in {orders[1]!r}: print(life(task, 0.1))")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [expected[task] for task in orders[1]]


def test_worker_processes_give_the_same_floats() -> None:
    envs = [gym.make_vec("ReptilePrune-v0", 2, mode, task="digits-mlp", prune_probability=0.7) for mode in ("sync", "async")]
    starts = [env.reset(seed=4)[0] for env in envs]
    np.testing.assert_array_equal(*starts)
    actions = random_actions(make("digits-mlp"), 24)
    for pair in zip(actions[::2], actions[1::2], strict=True):
        (observed, rewards, ends, *_), (other, paid, over, *_) = (env.step(np.stack(pair)) for env in envs)
        np.testing.assert_array_equal(observed, other)
        np.testing.assert_array_equal(rewards, paid)
        np.testing.assert_array_equal(ends, over)
    for env in envs:
        env.close()


def test_the_global_generators_stay_as_they_were(builtin: str) -> None:
    before = generator_states()
    env = make(builtin, prune_probability=0.5, observation="group", render_mode="rgb_array")
    env.reset(seed=0)
    play(env, random_actions(env, 2))
    env.render()
    copy.deepcopy(env).reset()
    reptile_env.compress(builtin, env.plan)
    reptile_env.make_task(builtin)
    for recovery in RECOVERIES[builtin]:
        evaluator = fresh(builtin, recovery)
        evaluator.measure(plans_of(evaluator, 1, seed=8)[-1])
        evaluator.sensitivity()
    assert generator_states() == before


def test_a_shuffling_loader_is_read_in_its_own_order() -> None:
    x, y = classes(300)
    loader = DataLoader(TensorDataset(x[:200], y[:200]), batch_size=16, shuffle=True)
    before = generator_states()
    task = reptile_env.Task(small_network(), loader, DataLoader(TensorDataset(x[200:], y[200:]), shuffle=True), name="loader")
    assert generator_states() == before
    torch.testing.assert_close(task.train.inputs, x[:200], rtol=0, atol=0)
    torch.testing.assert_close(task.valid.targets, y[200:], rtol=0, atol=0)


class _Noisy(Dataset[tuple[torch.Tensor, int]]):
    """A dataset that augments at random, as training sets do."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(8), index % 4


def test_a_dataset_that_draws_is_the_same_every_time() -> None:
    x, y = classes(30)
    seen = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = generator_states()
            seen.append(reptile_env.Task(small_network(), _Noisy(), (x, y)).train.inputs)
            assert generator_states() == before
    assert torch.equal(*seen)


def test_importing_and_making_touch_no_generator_of_a_fresh_process() -> None:
    found = run_python(
        """
        import random
        import numpy as np
        import torch
        state = lambda: (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        before = state()
        import gymnasium as gym
        import reptile_env
        gym.make("ReptilePrune-v0", task="digits-mlp").reset(seed=0)
        assert state() == before
        """
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("recovery", RECOVERIES["digits-cnn"])
@pytest.mark.parametrize("where", [(prune, "_follow"), (torch.nn.BatchNorm2d, "forward"), (torch.nn.Linear, "forward")])
def test_an_interrupt_leaves_nothing_behind(recovery: str, where: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = fresh("digits-cnn", recovery)
    cut = evaluator.cut(evaluator.dense, 1, 20)
    evaluator.measure(evaluator.dense)  # so that every tensor is whole before

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            evaluator.measure(cut)
    whole = evaluator.compressed_model(evaluator.dense).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in evaluator.task.model.state_dict().items())
    assert evaluator.measure(cut) == fresh("digits-cnn", recovery).measure(cut)


def test_measuring_leaves_the_users_network_alone() -> None:
    model = small_network()
    model.train()
    before = copy.deepcopy(model.state_dict())
    task = small_task("unaltered", model=model)
    env: ReptilePruneEnv = make(task)
    env.reset(seed=0)
    play(env, random_actions(env, 2))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    dense = env.measure(env.evaluator.dense)
    with torch.no_grad():
        model[0].weight.zero_()  # and what the user does later leaves the task alone
    assert LiveEvaluator(task, Settings()).measure(env.evaluator.dense) == dense
