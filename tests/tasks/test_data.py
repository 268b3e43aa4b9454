"""Data that users bring: what is read of it, and that it stays theirs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

import reptile_env
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.reference import make_reference
from reptile_env.evaluation.settings import Settings
from tests.helpers import classes, generator_states, small_network, small_task

X, Y = classes(100)
VALID = (X[60:], Y[60:])


def test_a_subset_sampler_is_read_and_others_are_refused() -> None:
    data = TensorDataset(X, Y)
    task = reptile_env.Task(small_network(), DataLoader(data, sampler=SubsetRandomSampler([5, 2, 9])), VALID)
    assert torch.equal(task.train.inputs, X[[2, 5, 9]])  # type: ignore[arg-type]
    both = [DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(rows)) for rows in (range(60), range(60, 100))]
    assert len(reptile_env.Task(small_network(), *both).valid) == 40
    refused = (WeightedRandomSampler([1.0] * 100, 10), RandomSampler(data, replacement=True), RandomSampler(data, num_samples=7))
    for sampler in refused:
        with pytest.raises(ValueError, match=r"gives no fixed set of examples; pass Subset"):
            reptile_env.Task(small_network(), DataLoader(data, sampler=sampler), VALID)


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        noise = np.random.rand(8) + random.random()  # noqa: NPY002 - what careless datasets do
        return torch.from_numpy(noise).float() + torch.rand(8), index % 4


class Ragged(Dataset[Any]):
    """Examples of different lengths, as sentences are."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        return X[index, : 5 + index % 3], index % 4


def test_examples_of_different_shapes_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match=r"train: the examples can't be put into one batch: .*pad those that are shorter"):
        reptile_env.Task(small_network(), Ragged(), VALID)

    def padded(items: list[Any]) -> Any:
        rows, targets = zip(*items, strict=True)
        return torch.stack([nn.functional.pad(row, (0, 8 - len(row))) for row in rows]), torch.tensor(targets)

    task = reptile_env.Task(small_network(), DataLoader(Ragged(), collate_fn=padded), VALID)
    assert torch.equal(task.train.inputs[:, :5], X[:30, :5])  # type: ignore[index]


def test_a_dataset_may_draw_from_any_generator() -> None:
    before = generator_states()
    first = reptile_env.Task(small_network(), Noisy(), VALID)
    assert generator_states() == before
    np.random.rand()  # noqa: NPY002
    random.random()
    assert torch.equal(first.train.inputs, reptile_env.Task(small_network(), Noisy(), VALID).train.inputs)  # type: ignore[arg-type]


def test_changing_the_users_arrays_changes_nothing() -> None:
    x, y = X.numpy().copy(), Y.numpy().copy()
    tensors = X.clone()
    task = reptile_env.Task(small_network(), (tensors[:60], Y[:60]), (x[60:], y[60:]))
    x[:], y[:], tensors[:] = 0, 0, 0
    assert torch.equal(task.valid.inputs, X[60:])  # type: ignore[arg-type]
    assert torch.equal(task.valid.targets, Y[60:])
    assert torch.equal(task.train.inputs, X[:60])  # type: ignore[arg-type]


def test_a_metric_that_needs_the_whole_split_gets_it() -> None:
    def needs_every_class(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return 0.5 if len(targets.unique()) == 4 else float("nan")

    order = Y.argsort()  # by class: the first examples are all of one
    task = reptile_env.Task(small_network(), (X[:60], Y[:60]), (X[order] + 1, Y[order]), metric=needs_every_class)
    assert task.metric_name == "needs_every_class"


@pytest.mark.parametrize("which", ["train", "test"])
def test_every_split_is_tried_when_the_task_is_made(which: str) -> None:
    splits = {"train": (X[:40], Y[:40]), "valid": VALID, "test": (X[40:60], Y[40:60])}
    x, y = splits[which]
    with pytest.raises(ValueError, match=f"does not run on the first examples of {which}"):
        reptile_env.Task(small_network(), **(splits | {which: (x[:, :5], y)}))
    with pytest.raises(ValueError, match=f"targets of {which} are torch.float32"):
        reptile_env.Task(small_network(), **(splits | {which: (x, y.float())}))


def test_targets_of_nan_are_refused() -> None:
    x = X[:, :1].clone()
    x[3] = float("nan")
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
    with pytest.raises(ValueError, match="train: targets hold NaN"):
        reptile_env.Task(model, (X[:60], x[:60]), (X[60:], x[60:]), metric="mse", loss="mse")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_types(dtype: torch.dtype) -> None:
    model = small_network().to(dtype)
    task = reptile_env.Task(model, (X[:60].to(dtype), Y[:60]), (X[60:].to(dtype), Y[60:]))
    evaluator = LiveEvaluator(task, Settings())
    halved = Plan(evaluator.group_names, [range(size // 2) for size in evaluator.sizes])
    assert 0 <= evaluator.measure(halved).metric <= 1
    assert {p.dtype for p in evaluator.compressed_model(halved).parameters()} == {dtype}


def test_a_perfect_plan_of_a_lower_is_better_metric_divides_by_nothing() -> None:
    def error_rate(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return 0.0 if outputs.std() < 1 else 0.5  # what a pruned network may reach

    task = small_task("error-rate", metric=error_rate, higher_is_better=False, w=0.5)
    evaluator = LiveEvaluator(task, Settings("none"))
    reference = make_reference(evaluator, "macs", [0.3, 0.6, 0.9], 0.5)
    assert 0 < reference.scale < 1


@pytest.mark.parametrize("arguments", [{"name": 5}, {"higher_is_better": "yes"}, {"family": 1}])
def test_wrong_types_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(arguments))} must be a"):
        reptile_env.Task(small_network(), (X[:60], Y[:60]), VALID, **arguments)
