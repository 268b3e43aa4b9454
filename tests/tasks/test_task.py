"""A user's own network: what is taken, what is left alone, which way the metric counts."""

from __future__ import annotations

import pickle
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

import reptile_env
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train
from tests.helpers import classes, episode, make, small_network, small_task

X, Y = classes(600)


class Pairs(nn.Module):
    """Two inputs by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_network()

    def forward(self, near: Tensor, far: Tensor) -> Tensor:
        return self.body(near + far)


class Named(Dataset[tuple[dict[str, Tensor], int]]):
    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        return {"near": X[index] / 2, "far": X[index] / 2}, int(Y[index])


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X[:300], Y[:300], strict=True))


def as_mapping(items: list[tuple[dict[str, Tensor], int]]) -> tuple[Any, Tensor]:
    inputs, targets = default_collate(items)
    return UserDict(inputs), targets


def pairs(half: slice) -> tuple[tuple[Tensor, Tensor], Tensor]:
    return (X[half] / 2, X[half] / 2), Y[half]


class Causal(nn.Module):
    """Attention that adds its mask, as `nn.Transformer` makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 24, batch_first=True)
        self.head = nn.Linear(8, 4)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(x, src_mask=self.mask)[:, -1])
        return logits


FIRST, LAST = slice(0, 300), slice(300, 600)


def trained(model: nn.Module, data: Split) -> nn.Module:
    return train(model, data, epochs=15, loss=nn.functional.cross_entropy, lr=1e-2)


PLAIN = trained(small_network(), Split(X[FIRST], Y[FIRST]))
PAIRED = trained(Pairs(), Split(*pairs(FIRST)))


@pytest.mark.parametrize(
    ("model", "data", "valid"),
    [
        (PLAIN, (X[FIRST], Y[FIRST]), (X[LAST], Y[LAST])),
        (PLAIN, (X[FIRST].numpy(), Y[FIRST].numpy()), [X[LAST], Y[LAST]]),
        (PLAIN, TensorDataset(X[FIRST], Y[FIRST]), TensorDataset(X[LAST], Y[LAST])),
        (PLAIN, DataLoader(TensorDataset(X[FIRST], Y[FIRST]), 32, shuffle=True), DataLoader(TensorDataset(X[LAST], Y[LAST]), 7)),
        (PLAIN, Stream(), (X[LAST], Y[LAST])),
        (PAIRED, pairs(FIRST), pairs(LAST)),
        (PAIRED, Named(), ({"near": X[LAST] / 2, "far": X[LAST] / 2}, Y[LAST])),
        (PAIRED, DataLoader(Named(), 32, shuffle=True), pairs(LAST)),
        (PAIRED, (UserDict(near=X[FIRST] / 2, far=X[FIRST] / 2), Y[FIRST]), pairs(LAST)),  # as tokenizers return
        (PAIRED, DataLoader(Named(), collate_fn=as_mapping), pairs(LAST)),
    ],
    ids=["tensors", "arrays", "datasets", "loaders", "stream", "tuple", "dict", "dict loader", "mapping", "mapping loader"],
)
def test_data_comes_in_many_forms(model: nn.Module, data: Any, valid: Any) -> None:
    task = Task(model, data, valid)
    assert len(task.train) == len(task.valid) == 300
    torch.testing.assert_close(task.train.targets, Y[FIRST], atol=0, rtol=0)
    env = make(task)
    assert env.measure(env.evaluator.dense).metric > 0.85
    total, info = episode(env, env.reference.uniform_rate)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert info["macs"] < 8 * 24 + 24 * 12 + 12 * 4


def test_a_network_may_hold_a_mask_of_minus_infinity(tmp_path: Path) -> None:
    x = X.reshape(200, 3, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = Task(Causal(), (x[:100], Y[:100]), (x[100:], Y[100:200]), w=0.3)
    env = make(task)
    assert episode(env, 0.5)[1]["macs"] < env.reference.dense.macs
    small = reptile_env.compress(task, env.plan)
    assert torch.equal(reptile_env.load(small.save(tmp_path / "small")).model(x), small.model(x))


def test_all_forms_give_the_same_floats() -> None:
    tensors = Task(PAIRED, pairs(FIRST), pairs(LAST), w=0.8)
    names = Task(PAIRED, DataLoader(Named(), 32, shuffle=True), ({"near": X[LAST] / 2, "far": X[LAST] / 2}, Y[LAST]), w=0.8)
    lives = [episode(make(task), [0.3, 0.5])[1] for task in (tensors, names)]
    assert lives[0]["loss"] == lives[1]["loss"]
    assert lives[0]["return"] == lives[1]["return"]


@pytest.fixture(scope="module")
def regression() -> Task:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        targets = torch.sin(X @ torch.randn(8, 1) / 3) + 0.05 * torch.randn(len(X), 1)
        model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
    train(model, Split(X[FIRST], targets[FIRST]), epochs=40, loss=nn.functional.mse_loss, lr=1e-2)
    return Task(model, (X[FIRST], targets[FIRST]), (X[LAST], targets[LAST]), metric="mse", loss="mse", name="regression")


class TestLowerIsBetter:
    def test_utility_rises_when_the_error_falls(self, regression: Task) -> None:
        env = make(regression)
        assert not regression.higher_is_better
        reference = env.reference
        plans = [env.evaluator.cut(env.evaluator.dense, 0, count) for count in (0, 20, 40, 60)]
        measured = sorted((env.measure(plan) for plan in plans), key=lambda m: m.metric)
        qualities = [reference.quality(m) for m in measured]
        assert qualities == sorted(qualities, reverse=True)
        assert len(set(qualities)) == 4
        better, worse = measured[0], measured[-1]
        same_cost = [reference.utility(type(m)(m.metric, m.loss, 1, 1, 1, ())) for m in (better, worse)]
        assert same_cost[0] > same_cost[1]

    def test_the_environment_works_as_ever(self, regression: Task) -> None:
        env = make(regression)
        assert episode(env, 0.0)[0] == 0
        assert episode(env, env.reference.uniform_rate)[0] == pytest.approx(1.0, abs=1e-12)
        ruined, info = episode(env, 0.9)
        assert info["metric"] > 2 * env.reference.dense.metric
        assert ruined < 1

    def test_a_callable_says_which_way_it_counts(self) -> None:
        def errors(outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.argmax(1) != targets).double().mean()

        data = {"model": PLAIN, "train": (X[FIRST], Y[FIRST]), "valid": (X[LAST], Y[LAST]), "metric": errors}
        assert Task(**data).higher_is_better
        task = Task(**data, higher_is_better=False)
        assert not task.higher_is_better
        assert task.metric_name == "errors"


def test_a_task_without_w_finds_one_at_which_cutting_pays() -> None:
    task = small_task("no-w")
    assert task.w is None
    env = make(task)
    assert 0 < env.reference.w < 1
    assert env.reference.scale > 0.02


def test_w_is_the_tasks_own() -> None:
    assert make(small_task("own-w", w=0.35)).reference.w == 0.35


def test_w_may_be_any_real_number_and_all_is_worked_out_in_python_floats() -> None:
    w = np.float32(0.5)
    for env in (make(small_task("own-single", w=w)), make(small_task("single"), w=w)):
        info = episode(env, 0.3)[1]
        assert {type(info[key]) for key in ("utility", "return")} == {float}


def test_two_tasks_of_one_name_are_two_tasks() -> None:
    first, second = small_task("same"), small_task("same", model=small_network(seed=5), w=0.5)
    metrics = [make(task).reference.dense.metric for task in (first, second)]
    assert metrics[0] > metrics[1]


def test_a_task_survives_pickle(user_task: Task) -> None:
    twin = pickle.loads(pickle.dumps(user_task))
    assert episode(make(twin), 0.4)[1]["loss"] == episode(make(user_task), 0.4)[1]["loss"]


def test_the_test_split_is_read_by_reports_alone() -> None:
    x, y = classes(100, seed=3)
    env = make(small_task("tested", test=(x, y)))
    without = make(small_task("untested"))
    assert episode(env, 0.4)[1]["loss"] == episode(without, 0.4)[1]["loss"]
    reported = env.evaluator.test(env.plan)
    model = env.evaluator.compressed_model(env.plan)
    with torch.no_grad():
        assert reported.metric == pytest.approx(float((model(x).argmax(1) == y).double().mean()))
    with pytest.raises(ValueError, match="no test split"):
        without.evaluator.test(without.plan)


def test_a_few_shared_examples_are_a_warning_many_an_error() -> None:
    x = torch.cat([X[LAST], X[:1]])
    with pytest.warns(UserWarning, match="task 'one-shared': train and valid share 1 examples"):
        small_task("one-shared", valid=(x, torch.cat([Y[LAST], Y[:1]])))
    with pytest.raises(ValueError, match="share 30 examples"):
        small_task("many-shared", valid=(X[270:], Y[270:]))


def test_repr_tells_what_it_is() -> None:
    assert repr(small_task("a-name")) == "Task('a-name', Sequential, 568 params, 300 validation examples)"


def test_metrics_are_of_the_whole_split_not_a_mean_of_batches() -> None:
    def spread(outputs: Tensor, targets: Tensor) -> float:
        return float(np.ptp(outputs.numpy()))

    task = small_task("spread", metric=spread, w=0.5)
    env = make(task)
    with torch.no_grad():
        assert env.measure(env.evaluator.dense).metric == pytest.approx(float(np.ptp(task.model(X[LAST]).numpy())), rel=1e-5)
