"""Recoveries against independent references, and the dense tensors left alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import leaky_relu

from reptile_env.compression.consumers import patches
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.helpers import random_plan


class Small(nn.Module):
    """Convolutions with stride, dilation, padding mode, with and without bias; then linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 6, 3, stride=2, padding=(1, 2), bias=False)
        self.dilated = nn.Conv2d(6, 7, 2, dilation=2, padding=1, padding_mode="circular")
        self.hidden = nn.Linear(7, 9)
        self.head = nn.Linear(9, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Leaky, so that no feature is constant and the least-squares fit is unique.
        x = leaky_relu(self.dilated(leaky_relu(self.strided(leaky_relu(self.stem(x), 0.2)), 0.2)), 0.2)
        return self.head(leaky_relu(self.hidden(x[:, :, 1, 1]), 0.2))


@pytest.fixture(scope="module")
def task() -> Task:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small().eval().requires_grad_(False)
        # Correlated channels, so that the kept ones can say something of the removed.
        images = 5 * functional.interpolate(torch.randn(400, 2, 4, 4), size=8, mode="bilinear")
    with torch.no_grad():
        targets = model(images).argmax(1)
    return Task(model, (images[:300], targets[:300]), (images[300:], targets[300:]), name="small-images", w=0.5)


PLAN = {"stem": [0, 2, 3, 7], "strided": [1, 4, 5], "dilated": [0, 1, 3, 6], "hidden": [0, 2, 3, 4, 8]}
# consumer -> the group that it reads, the group that it writes
CONSUMERS = {
    "strided": ("stem", "strided"),
    "dilated": ("strided", "dilated"),
    "hidden": ("dilated", "hidden"),
    "head": ("hidden", None),
}


def rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Rows that a layer sees, by torch's own im2col."""
    if isinstance(layer, nn.Linear):
        return inputs
    assert isinstance(layer, nn.Conv2d)
    (top, left), mode = layer.padding, layer.padding_mode
    padded = functional.pad(inputs, (left, left, top, top), mode="constant" if mode == "zeros" else mode)
    columns = functional.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)


@pytest.fixture(scope="module")
def fitted(task: Task) -> nn.Module:
    evaluator = LiveEvaluator(task, Settings("reconstruct"))
    assert evaluator.group_names == tuple(PLAN)
    return evaluator.compressed_model(Plan.from_dict({name: {"keep": keep} for name, keep in PLAN.items()}))


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_the_closed_form_is_the_least_squares_fit(consumer: str, task: Task, fitted: nn.Module) -> None:
    read, written = CONSUMERS[consumer]
    layer = task.model.get_submodule(consumer)
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        task.model(task.train.inputs)
    hook.remove()
    x = rows(layer, seen[0]).double()
    dense = layer.weight.flatten(1).T.double()
    wanted = x @ dense + (layer.bias.double() if layer.bias is not None else 0)
    kernel = layer.weight[0, 0].numel()
    kept = [channel * kernel + k for channel in PLAN[read] for k in range(kernel)]
    a = x[:, kept]
    if layer.bias is not None:
        a = torch.cat([a, torch.ones(len(a), 1, dtype=torch.double)], 1)
    outputs = PLAN[written] if written else list(range(4))
    solution = torch.linalg.lstsq(a, wanted[:, outputs]).solution
    found = fitted.get_submodule(consumer)
    weight = found.weight.flatten(1).T.double()
    expected = solution[:-1] if layer.bias is not None else solution
    assert (weight - expected).norm() / expected.norm() < 1e-3
    if layer.bias is not None:
        assert (found.bias - solution[-1]).norm() / solution[-1].norm() < 1e-3
    plain = dense[kept][:, outputs]
    assert (weight - plain).norm() / plain.norm() > 0.02, "the fit is the dense layer itself: this test would show nothing"


@pytest.mark.parametrize("consumer", ["strided", "dilated"])
def test_patches_are_what_the_convolution_sees(consumer: str, task: Task) -> None:
    layer = task.model.get_submodule(consumer)
    x = torch.randn(3, layer.in_channels, 8, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(patches(layer, x), rows(layer, x), atol=0, rtol=0)
    by_rows = patches(layer, x) @ layer.weight.flatten(1).T + (layer.bias if layer.bias is not None else 0)
    torch.testing.assert_close(by_rows, layer(x).flatten(2).transpose(1, 2).flatten(0, 1), atol=1e-5, rtol=1e-5)


def test_reconstruction_wins_accuracy_back(builtin: str) -> None:
    task = make_task(builtin)
    plain, fitted = LiveEvaluator(task, Settings("none")), LiveEvaluator(task, Settings("reconstruct"))
    generator = np.random.default_rng(1)
    plans = [random_plan(plain.group_names, plain.sizes, generator) for _ in range(12)]
    gains = [fitted.measure(plan).metric - plain.measure(plan).metric for plan in plans]
    assert np.mean(gains) > 0.1


def test_where_the_data_says_nothing_the_dense_weights_stay() -> None:
    # Hidden units 1 and 3 never fire; 3 is kept.
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).requires_grad_(False)
    model[0].weight[[1, 3]] = 0
    model[0].bias[[1, 3]] = -1
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    evaluator = LiveEvaluator(Task(model, (x[:100], y[:100]), (x[100:], y[100:]), w=0.5), Settings("reconstruct"))
    fitted = evaluator.compressed_model(Plan(["0"], [[0, 2, 3, 5]]))
    torch.testing.assert_close(fitted[2].weight[:, 2], model[2].weight[:, 3], atol=1e-6, rtol=1e-6)
    assert (fitted[2].weight[:, 0] - model[2].weight[:, 0]).abs().max() > 0.01


def test_reconstruction_sees_training_data_alone(task: Task) -> None:
    other = Task(task.model, task.train, Split(task.valid.inputs[:10] * 3, task.valid.targets[:10]), name="other-valid", w=0.5)
    models = [
        LiveEvaluator(t, Settings("reconstruct")).compressed_model(Plan.from_dict({n: {"keep": k} for n, k in PLAN.items()}))
        for t in (task, other)
    ]
    states = [m.state_dict() for m in models]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_nothing_is_fitted_where_nothing_was_cut(builtin: str) -> None:
    task = make_task(builtin)
    evaluator = LiveEvaluator(task, Settings("reconstruct"))
    state = evaluator.compressed_model(evaluator.dense).state_dict()
    assert all(torch.equal(v, state[k]) for k, v in task.model.state_dict().items())


class TestRecalibrate:
    def plan(self, evaluator: LiveEvaluator) -> Plan:
        return random_plan(evaluator.group_names, evaluator.sizes, np.random.default_rng(4))

    def test_statistics_are_those_of_the_cut_network_on_calibration_data(self) -> None:
        task = make_task("digits-cnn")
        evaluator = LiveEvaluator(task, Settings("recalibrate", calibration_examples=256))
        model = evaluator.compressed_model(self.plan(evaluator))
        chosen = torch.from_numpy(np.linspace(0, len(task.train) - 1, 256).round().astype(np.int64))
        with torch.no_grad():
            # The first two norms; further ones see inputs normalised by the batch, as these then do.
            x = model.stem[0](task.train.inputs[chosen])
            y = model.wide[0](
                torch.relu(functional.batch_norm(x, None, None, model.stem[1].weight, model.stem[1].bias, training=True))
            )
        for norm, seen in ((model.stem[1], x), (model.wide[1], y)):
            torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), atol=1e-5, rtol=1e-4)

    def test_the_dense_network_stays_as_it_was(self) -> None:
        task = make_task("digits-cnn")
        before = copy.deepcopy(task.model.state_dict())
        evaluator = LiveEvaluator(task, Settings("recalibrate"))
        dense = evaluator.measure(evaluator.dense)
        for _ in range(2):
            evaluator.measure(self.plan(evaluator))
            evaluator._memo.clear()
            assert evaluator.measure(evaluator.dense) == dense
        assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
        after = evaluator.compressed_model(evaluator.dense)
        assert all(torch.equal(v, before[k]) for k, v in after.state_dict().items())
        assert not any(m.training for m in after.modules())
        assert LiveEvaluator(task, Settings("none")).measure(evaluator.dense) == dense

    def test_a_recalibrated_network_keeps_its_momentum(self) -> None:
        evaluator = LiveEvaluator(make_task("digits-cnn"), Settings("recalibrate"))
        model = evaluator.compressed_model(self.plan(evaluator))
        assert not model.training
        assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}

    def test_a_network_without_batch_norm_is_refused(self) -> None:
        with pytest.raises(ValueError, match="has none; use 'reconstruct' or 'none'"):
            LiveEvaluator(make_task("digits-mlp"), Settings("recalibrate"))


def test_recoveries_follow_one_another() -> None:
    task = make_task("digits-cnn")
    plan = random_plan(*(lambda e: (e.group_names, e.sizes))(LiveEvaluator(task, Settings("none"))), np.random.default_rng(4))
    measured = {
        recovery: LiveEvaluator(task, Settings(recovery)).measure(plan)
        for recovery in ("none", "recalibrate", "reconstruct", "reconstruct+recalibrate", "recalibrate+reconstruct")
    }
    assert len({m.loss for m in measured.values()}) == 5
    assert len({m.macs for m in measured.values()}) == 1


@pytest.mark.parametrize("count", [2, 256, 257, 258, 300, 513])
def test_recalibrated_statistics_do_not_depend_on_how_the_batches_fall(count: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(count + 20, 8)
    model = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)).eval()
    y = model(x).argmax(1)
    task = Task(model, (x[:count], y[:count]), (x[count:], y[count:]))
    evaluator = LiveEvaluator(task, Settings("recalibrate", calibration_examples=count))
    norm = evaluator.compressed_model(Plan(evaluator.group_names, [range(6)])).get_submodule("1")
    seen = x[:count] @ model[0].weight[:6].T + model[0].bias[:6]
    torch.testing.assert_close(norm.running_mean, seen.mean(0), atol=1e-5, rtol=0)
    # Batches of one size each: what the mean over batches leaves out is small.
    torch.testing.assert_close(norm.running_var, seen.var(0), rtol=0.03, atol=0)


def test_recalibration_on_one_example_is_refused() -> None:
    x = torch.randn(20, 8)
    model = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)).eval()
    task = Task(model, (x[:1], model(x[:1]).argmax(1)), (x[1:], model(x[1:]).argmax(1)))
    with pytest.raises(ValueError, match="at least 2 training examples"):
        LiveEvaluator(task, Settings("recalibrate"))
