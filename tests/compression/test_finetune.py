"""Fine-tuning of compressed networks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.compression.finetune import distance
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.evaluation.settings import Finetune, Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.helpers import classes, generator_states, random_plan, small_task

QUICK = Finetune(steps=40, learning_rate=0.03)
DIVERGES = Finetune(steps=3, learning_rate=1e38)


def evaluator_of(task: Task, recovery: str = "finetune", finetune: Finetune = QUICK, **settings: Any) -> LiveEvaluator:
    return LiveEvaluator(task, Settings(recovery, finetune=finetune, **settings))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def on_train(task: Task, model: nn.Module) -> Tensor:
    outputs: Tensor = task.outputs(model, task.train)
    return outputs


class Dropping(nn.Module):
    """Batch norm, dropout, a tied layer, an integer buffer and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(8, 20, bias=False), nn.BatchNorm1d(20), nn.Dropout(0.3)
        self.second, self.again, self.head = nn.Linear(20, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.third = nn.Linear(8, 8)
        self.third.weight = self.again.weight
        self.register_buffer("calls", torch.tensor([3, 1, 2]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.norm(self.first(x)))
        x = self.third(torch.relu(self.again(self.drop(self.second(x)))))
        return {"logits": self.head(x), "classes": self.head(x).argmax(1)}


def dropping_task() -> Task:
    x, y = classes(300)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Dropping()

    def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs["logits"], targets)

    def metric(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return (outputs["classes"] == targets).double().mean()

    return Task(model, (x[:200], y[:200]), (x[200:], y[200:]), metric=metric, loss=loss)


def test_a_cut_network_recovers(builtin: str) -> None:
    task = make_task(builtin)
    before, after = evaluator_of(task, "none"), evaluator_of(task, finetune=Finetune(20, learning_rate=0.1))
    plan = uniform_plan(before, 0.5)
    assert after.measure(plan).metric > before.measure(plan).metric + 0.2
    assert after.measure(plan).metric > 0.9


def test_it_comes_after_a_refit(builtin: str) -> None:
    task = make_task(builtin)
    short = Finetune(20, learning_rate=0.03)
    refitted, both = evaluator_of(task, "reconstruct"), evaluator_of(task, "reconstruct+finetune", short)
    plan = uniform_plan(refitted, 0.8)
    assert both.measure(plan).loss < 0.7 * refitted.measure(plan).loss
    # The order of names does not matter: training always comes after closed forms.
    assert evaluator_of(task, "finetune+reconstruct", short).measure(plan) == both.measure(plan)


@pytest.mark.filterwarnings("ignore:.*layers are not cut")
def test_the_same_numbers_in_any_order_and_nothing_else_is_touched() -> None:
    task = dropping_task()
    dense, generators = tensors(task.model), generator_states()
    one, other = evaluator_of(task), evaluator_of(task)
    prepared = tensors(one.structure.model)
    plans = [random_plan(one.group_names, one.sizes, np.random.default_rng(seed)) for seed in range(3)]
    found = [one.measure(plan) for plan in (one.dense, *plans)]
    assert [other.measure(plan) for plan in (*reversed(plans), other.dense)] == list(reversed(found))
    assert same(tensors(one.compressed_model(plans[0])), tensors(other.compressed_model(plans[0])))
    assert same(tensors(task.model), dense)
    assert same(tensors(one.structure.model), prepared)
    assert generator_states() == generators
    assert found[1] != evaluator_of(task, finetune=Finetune(**{**vars(QUICK), "seed": 1})).measure(plans[0])


@pytest.mark.filterwarnings("ignore:.*layers are not cut")
def test_networks_of_all_sorts_of_tensors_are_trained() -> None:
    task = dropping_task()
    evaluator, untrained = evaluator_of(task), evaluator_of(task, "none")
    plan = uniform_plan(evaluator, 0.3)
    model, before = evaluator.compressed_model(plan), untrained.compressed_model(plan)
    assert not model.training
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before.get_parameter(name)), name
    assert model.third.weight is model.again.weight
    assert torch.equal(model.calls, task.model.calls)
    assert int(model.norm.num_batches_tracked) > 0
    assert not torch.equal(model.norm.running_mean, before.norm.running_mean)
    assert evaluator.measure(plan).loss < untrained.measure(plan).loss
    assert evaluator.measure(plan).params == sum(p.numel() for p in model.parameters())


def test_training_that_makes_it_worse_changes_nothing(user_task: Task) -> None:
    diverged, before = evaluator_of(user_task, finetune=DIVERGES), evaluator_of(user_task, "none")
    plan = uniform_plan(before, 0.4)
    assert same(tensors(diverged.compressed_model(plan)), tensors(before.compressed_model(plan)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 50])
def test_every_optimizer_and_schedule_trains(user_task: Task, optimizer: str, schedule: str, steps: int) -> None:
    rate = 0.01 if optimizer == "adam" else 0.03
    trained = evaluator_of(user_task, finetune=Finetune(steps, optimizer, rate, schedule, weight_decay=1e-3))
    plan = uniform_plan(trained, 0.5)
    before = evaluator_of(user_task, "none").measure(plan)
    assert trained.measure(plan).loss < before.loss * (1.01 if steps == 1 else 0.8)


def test_the_outcome_is_the_best_of_what_was_seen_on_the_way(user_task: Task) -> None:
    # As long as the rate grows too large in the end, what was best before stays.
    plan = uniform_plan(evaluator_of(user_task), 0.4)
    losses = [evaluator_of(user_task, finetune=Finetune(steps, "sgd", 3.0, "onecycle")).measure(plan).loss for steps in (20, 60)]
    assert max(losses) <= evaluator_of(user_task, "none").measure(plan).loss


def test_distillation_approaches_the_dense_outputs(user_task: Task) -> None:
    plain, taught = (evaluator_of(user_task, finetune=Finetune(80, learning_rate=0.03, distillation=d)) for d in (0.0, 1.0))
    plan = uniform_plan(plain, 0.4)
    goal = torch.log_softmax(on_train(user_task, user_task.model), 1)

    def apart(evaluator: LiveEvaluator) -> float:
        ours = torch.log_softmax(on_train(user_task, evaluator.compressed_model(plan)), 1)
        return float(functional.kl_div(ours, goal, reduction="batchmean", log_target=True))

    assert apart(taught) < 0.5 * apart(evaluator_of(user_task, "none"))
    assert apart(taught) < apart(plain)


def test_distances_of_outputs() -> None:
    ours, theirs = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1])
    p, q = torch.softmax(theirs / 4, 1), torch.softmax(ours / 4, 1)
    divergence = 16 * (p * (p / q).log()).sum(1).mean()
    assert distance(ours, theirs, labels, 4.0) == pytest.approx(float(divergence), rel=1e-5)
    squares = ((ours - theirs) ** 2).mean()
    assert distance(ours, theirs, torch.zeros(2, 2), 4.0) == pytest.approx(float(squares))
    nested = [{"logits": ours, "count": labels}, (ours, ours[:, 0])]
    taught = [{"logits": theirs, "count": labels}, (theirs, theirs[:, 0])]
    expected = (2 * divergence + ((ours - theirs)[:, 0] ** 2).mean()) / 3
    assert distance(nested, taught, labels, 4.0) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
@pytest.mark.parametrize("refit", ["", "reconstruct+"])
def test_holes_stay(user_task: Task, granularity: str, refit: str) -> None:
    decays = Finetune(40, learning_rate=0.03, weight_decay=0.01, distillation=0.5)
    evaluator = evaluator_of(user_task, f"{refit}finetune", decays, granularity=granularity)
    before = evaluator_of(user_task, refit.rstrip("+") or "none", granularity=granularity)
    plan = uniform_plan(evaluator, 0.8)
    trained, refitted = evaluator.compressed_model(plan), before.compressed_model(plan)
    kept = evaluator.kept_weights(plan)
    assert kept
    for name, count in kept.items():
        weight, start = trained.get_parameter(name), refitted.get_parameter(name)
        assert int((weight != 0).sum()) == count
        assert torch.equal(weight != 0, start != 0)
        assert not torch.equal(weight, start)
    # Refits are kept from plan to plan and must not be trained themselves.
    evaluator.measure(uniform_plan(evaluator, 0.9))
    assert same(tensors(evaluator.compressed_model(plan)), tensors(trained))


def test_factors_are_trained(user_task: Task) -> None:
    evaluator, before = evaluator_of(user_task), evaluator_of(user_task, "none")
    plan = Plan(evaluator.group_names, evaluator.dense.keep, ranks=[0.3] * len(evaluator.sizes))
    model, start = evaluator.compressed_model(plan), before.compressed_model(plan)
    assert tensors(model).keys() == tensors(start).keys()
    assert not any(torch.equal(t, start.state_dict()[name]) for name, t in tensors(model).items())
    assert evaluator.measure(plan).loss < before.measure(plan).loss
    # The next plan starts from whole layers again.
    dense = evaluator.measure(evaluator.dense)
    assert dense == before.measure(before.dense)


def test_tasks_that_cannot_be_trained_are_refused_at_once() -> None:
    x, y = classes(40)
    one = small_task("one-example", train=(x[:1], y[:1]), valid=(x[1:], y[1:]))
    with pytest.raises(ValueError, match=r"at least 2 training examples.*has 1; give more"):
        evaluator_of(one)

    def detached(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.detach(), targets)

    def number(outputs: Tensor, targets: Tensor) -> float:
        return functional.cross_entropy(outputs, targets).item()

    def many(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none" if torch.is_grad_enabled() else "mean")

    for loss in (detached, number, many):
        task = small_task(f"loss-{loss.__name__}", loss=loss)
        with pytest.raises(ValueError, match=r"finetune.*loss of torch operations that returns one number"):
            evaluator_of(task)
        # What the dense network answers can still be learned.
        taught = evaluator_of(task, finetune=Finetune(20, learning_rate=0.03, distillation=1.0))
        plan = uniform_plan(taught, 0.5)
        assert taught.measure(plan).loss < evaluator_of(task, "none").measure(plan).loss


@pytest.mark.filterwarnings("ignore:.*layers are not cut")
def test_the_users_network_is_left_alone() -> None:
    model = Dropping()
    before = copy.deepcopy(model.state_dict())
    x, y = classes(100)
    task = Task(
        model,
        (x[:60], y[:60]),
        (x[60:], y[60:]),
        metric=lambda o, t: (o["classes"] == t).double().mean(),
        loss=lambda o, t: functional.cross_entropy(o["logits"], t),
    )
    evaluator = evaluator_of(task)
    evaluator.measure(uniform_plan(evaluator, 0.5))
    assert same(model.state_dict(), before)


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seed=\d+; it must be below 2 \*\* 63"):
        Finetune(seed=2**63)
    task = make_task("digits-mlp")
    evaluator = evaluator_of(task, finetune=Finetune(steps=2, seed=2**63 - 1))
    assert evaluator.measure(uniform_plan(evaluator, 0.5)).loss > 0
