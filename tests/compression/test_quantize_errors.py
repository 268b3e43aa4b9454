"""Quantization: how near the outputs stay, and what data-aware rounding wins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Inputs, Split, call
from reptile_env.tasks.task import Task
from tests.compression.kinds import first
from tests.compression.quantizing import ROUNDINGS, evaluator_of, uniform


def error_of(name: str, rounding: str, bits: int) -> float:
    """Squared error of the outputs on examples that rounding didn't see, relative to their variance."""
    evaluator = evaluator_of(name, rounding, 200)
    inputs = evaluator.task.valid.inputs
    wanted, got = (first(call(evaluator.compressed_model(p), inputs)) for p in (evaluator.dense, uniform(evaluator, bits)))
    return float((got - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize(
    "name", ["concatenating", "option A", "1-d", "grouped", "generator", "lstm", "gru", "packed", "grouped up"]
)
def test_data_aware_rounding_changes_outputs_less(name: str) -> None:
    assert error_of(name, "data-aware", 3) < 0.6 * error_of(name, "nearest", 3)


@pytest.mark.parametrize(("name", "bits"), [("digits-cnn", 3), ("digits-mlp", 2)])
def test_data_aware_rounding_halves_the_loss_in_metric(name: str, bits: int) -> None:
    lost = []
    for rounding in ROUNDINGS:
        evaluator = LiveEvaluator(make_task(name), Settings("none", rounding=rounding))
        lost.append(evaluator.measure(evaluator.dense).metric - evaluator.measure(uniform(evaluator, bits)).metric)
    nearest, data_aware = lost
    assert nearest > 0.01
    assert data_aware < 0.5 * nearest


def custom(model: nn.Module, inputs: Inputs, bits: int, rounding: str = "data-aware") -> tuple[nn.Module, nn.Module]:
    """A network of its own kind, dense and quantized; it is calibrated on all inputs but the last two."""
    model.eval().requires_grad_(False)
    data = Split(inputs, torch.zeros(len(first(inputs))))
    task = Task(model, data[:-2], data[-2:], metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    evaluator = LiveEvaluator(task, Settings("none", rounding=rounding))
    return model, evaluator.compressed_model(uniform(evaluator, bits))


class Norms(nn.Module):
    """A batch norm behind one convolution without bias, and one that two share."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.b, self.c, self.shared = nn.Conv2d(8, 6, 1, bias=False), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm(self.a(x)))
        return self.head((self.shared(self.b(x)) * torch.sigmoid(self.shared(self.c(x)))).mean((2, 3)))


def test_a_batch_norm_that_follows_takes_up_what_changes_in_the_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, quantized = custom(Norms(), inputs := torch.randn(40, 2, 6, 6) + 1, 2)
    means, plain = [], []
    for network_ in (model, quantized):
        network_.norm.register_forward_hook(lambda _, given, output: means.append(output.mean((0, 2, 3))))
        network_.a.register_forward_hook(lambda _, given, output: plain.append(output.mean((0, 2, 3))))
        network_(inputs[:-2])
    assert (plain[0] - plain[1]).abs().max() > 0.05
    torch.testing.assert_close(means[0], means[1], atol=1e-4, rtol=0)
    assert not torch.equal(quantized.norm.running_mean, model.norm.running_mean)
    # Two layers would shift it twice.
    assert torch.equal(quantized.shared.running_mean, model.shared.running_mean)


class Twice(nn.Module):
    """A layer that runs twice: the first half of its features is zero in one run, the second half in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.again, self.head = nn.Linear(4, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        half = torch.arange(16) < 8
        return self.head(relu(self.again(x * half)) - relu(self.again(x * ~half)))


def test_all_runs_of_a_layer_count() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = Twice(), torch.randn(200, 4)
    errors = {}
    for rounding in ROUNDINGS:
        dense, quantized = custom(model, inputs, 3, rounding)
        a = dense.a(inputs)
        for run, kept in enumerate((slice(0, 8), slice(8, 16))):
            given = torch.zeros_like(a)
            given[:, kept] = a[:, kept]
            errors[rounding, run] = float((quantized.again(given) - dense.again(given)).square().mean())
    for run in range(2):
        assert errors["data-aware", run] < 0.4 * errors["nearest", run]


class Masked(nn.Module):
    """Tokens with a mask: 1 where they count."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        x = relu(self.b(relu(self.a(x))))
        return self.head((x * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True))


def test_padding_is_left_out_of_ranges_and_fits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Masked(), torch.randn(60, 5, 6)
        mask = (torch.arange(5) < torch.randint(1, 6, (60, 1))).long()
    for rounding in ROUNDINGS:
        states = []
        for filler in (0.0, 100.0):
            inputs = x.masked_fill(mask[..., None] == 0, filler)
            _, quantized = custom(model, (inputs, mask), 4, rounding)
            real = inputs[:-2][mask[:-2] == 1]
            assert quantized.a.input_scale == pytest.approx(float(real.max() - real.min()) / 255, rel=1e-5)
            states.append(quantized.state_dict())
        for key, tensor in states[0].items():
            torch.testing.assert_close(states[1][key], tensor, atol=1e-5, rtol=0)


def test_eight_bits_are_nearly_the_float_network() -> None:
    for rounding in ROUNDINGS:
        for name in ("grouped", "lstm", "transformer", "autoencoder"):
            assert error_of(name, rounding, 8) < 2e-3
