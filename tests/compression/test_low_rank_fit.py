"""Layers as products of two thinner ones: how near the product comes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.low_rank import decompose
from reptile_env.compression.modules import Factored
from reptile_env.compression.producers import TRANSPOSED
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.task import Task
from tests.compression.factors import factors_of, ranked


def correlated(features: int, rows: int = 400, seed: int = 0) -> Tensor:
    """Rows whose variances fall by a factor of a hundred along directions that are no axes."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, -1, features, dtype=torch.float64)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64) * scales @ basis


@pytest.mark.parametrize(("features", "outputs"), [(12, 8), (8, 12), (9, 9)])
def test_no_product_of_that_rank_is_nearer(features: int, outputs: int) -> None:
    x = correlated(features)
    weight = torch.randn(features, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rank in (1, 3, 7):
        a, b = decompose(x.T @ x / len(x), weight, rank)
        assert (a.shape, b.shape) == ((features, rank), (rank, outputs))
        # No matrix of that rank is nearer to the outputs, whatever it is a product of (Eckart and Young, 1936).
        nearest = torch.linalg.svdvals(x @ weight)[rank:].square().sum()
        torch.testing.assert_close((x @ (weight - a @ b)).square().sum(), nearest, rtol=1e-4, atol=0)
        # Half of each singular value is in either factor.
        torch.testing.assert_close((x @ a).square().mean(0).sqrt(), b.norm(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("features", "outputs"), [(12, 8), (8, 12)])
def test_a_rank_above_the_matrix_own_adds_nothing_wrong(features: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    thin = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((features, 2), (2, outputs))]
    for weight in (thin[0] @ thin[1], torch.zeros(features, outputs, dtype=torch.float64)):
        x = correlated(features, rows=5)
        a, b = decompose(x.T @ x / 5, weight, 6)
        torch.testing.assert_close(a @ b, weight, atol=1e-9, rtol=0)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 10), (5, 6)),
    "linear without bias": (lambda: nn.Linear(6, 10, bias=False), (5, 3, 6)),
    "1-d": (lambda: nn.Conv1d(6, 10, 5, stride=2, padding=4, dilation=2), (5, 6, 20)),
    "2-d same": (lambda: nn.Conv2d(6, 10, (3, 5), padding="same", padding_mode="reflect"), (5, 6, 9, 9)),
    "3-d": (lambda: nn.Conv3d(6, 10, 3, padding=1, bias=False), (5, 6, 4, 4, 4)),
    "transposed 1-d": (lambda: nn.ConvTranspose1d(6, 10, 3, stride=2, output_padding=1), (5, 6, 7)),
    "transposed 2-d": (lambda: nn.ConvTranspose2d(6, 10, 4, 2, 1, dilation=2), (5, 6, 4, 4)),
    "transposed 3-d": (lambda: nn.ConvTranspose3d(6, 10, 2, 2), (5, 6, 3, 3, 3)),
}


class Between(nn.Module):
    """A layer of any kind between two that make it part of groups."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv = isinstance(layer, nn.modules.conv._ConvNd)
        dims = layer.weight.dim() - 2
        kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1] if conv else nn.Linear
        extra = [1] if conv else []
        self.before, self.layer, self.after = kind(6, 6, *extra), layer, kind(10, 3, *extra)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(torch.relu(self.layer(torch.relu(self.before(x)))))
        return x.flatten(2).mean(2) if self.conv else x.flatten(1, -2).mean(1) if x.dim() > 2 else x


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("recovery", ["none", "reconstruct-sequential"])
def test_at_full_rank_the_factors_are_the_layer(kind: str, recovery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, shape = LAYERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Between(build()).eval().requires_grad_(False), torch.randn(40, *shape[1:])
    y = model(x)
    task = Task(model, (x[:30], y[:30]), (x[30:], y[30:]), metric="mse", loss="mse")

    def full(layer: Any, fraction: float) -> int:
        outputs = layer.weight.shape[int(isinstance(layer, TRANSPOSED))]
        return int(min(outputs, layer.weight.numel() // outputs))

    monkeypatch.setattr("reptile_env.compression.low_rank._rank", full)
    evaluator = LiveEvaluator(task, Settings(recovery, calibration_examples=30))
    built = evaluator.compressed_model(ranked(evaluator.dense, 0.9))
    assert isinstance(built.get_submodule("layer"), Factored)
    torch.testing.assert_close(built(x), y, atol=1e-4, rtol=1e-4)


def one_layer(features: int = 24, outputs: int = 20) -> tuple[Task, nn.Sequential]:
    """A linear layer of correlated inputs with a mean, between two that cost nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(features, features), nn.Linear(features, outputs), nn.Linear(outputs, 2)).eval()
        model.requires_grad_(False)
        x = (correlated(features) + torch.randn(features)).float()
    y = model(x)
    return Task(model, (x[:300], y[:300]), (x[300:], y[300:]), metric="mse", loss="mse"), model


def test_inputs_that_are_alike_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = one_layer()
    aware = LiveEvaluator(task, Settings("none"))
    plan = ranked(aware.dense, 0.5)
    error = aware.measure(plan).loss
    plain = lambda gram, weight, rank: decompose(torch.eye(len(gram), dtype=gram.dtype), weight, rank)  # noqa: E731
    monkeypatch.setattr("reptile_env.compression.low_rank.decompose", plain)
    assert error < 0.5 * LiveEvaluator(task, Settings("none")).measure(plan).loss


def normed(norm: bool) -> tuple[LiveEvaluator, nn.Sequential, Tensor]:
    """A wide convolution, with or without batch norm, whose outputs are of very unequal worth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, bias=not norm), *([nn.BatchNorm2d(12)] if norm else [])]
        model = nn.Sequential(*layers, nn.Conv2d(12, 4, 1)).eval()
        x = torch.randn(64, 2, 6, 6) + 1
        if norm:
            nn.init.uniform_(model[3].running_mean, -1, 1)
            nn.init.uniform_(model[3].running_var, 0.1, 3)
            nn.init.uniform_(model[3].weight, 0.1, 3)
    model.requires_grad_(False)
    task = Task(model, (x, x), (x + 1, x + 1), metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    return LiveEvaluator(task, Settings("none", calibration_examples=64)), model, x


def upto(model: nn.Module, layer: int, x: Tensor) -> Tensor:
    return nn.Sequential(*list(model.children())[: layer + 1])(x)


@pytest.mark.parametrize("norm", [False, True])
def test_the_mean_of_every_output_is_kept(norm: bool) -> None:
    evaluator, model, x = normed(norm)
    small = evaluator.compressed_model(evaluator.dense.replace(evaluator.group_names.index("2"), rank=0.3))
    assert list(factors_of(small)) == ["2"]
    got, expected = upto(small, 2 + norm, x), upto(model, 2 + norm, x)
    torch.testing.assert_close(got.mean((0, 2, 3)), expected.mean((0, 2, 3)), atol=1e-5, rtol=0)
    assert (got - expected).abs().max() > 0.1


def test_a_batch_norm_decides_what_outputs_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, model, x = normed(True)
    plan = evaluator.dense.replace(evaluator.group_names.index("2"), rank=0.3)
    expected, stretched = upto(model, 3, x), upto(evaluator.compressed_model(plan), 3, x)
    monkeypatch.setattr("reptile_env.compression.low_rank.MOST_STRETCH", 1.0)
    nearest = upto(evaluator.compressed_model(plan), 3, x)
    monkeypatch.setattr("reptile_env.compression.low_rank._worth", lambda model, consumer: None)
    alike = upto(evaluator.compressed_model(plan), 3, x)
    assert (nearest - expected).square().mean() < 0.97 * (alike - expected).square().mean()
    # Outputs keep their variance, unless hardly anything of them is left.
    lost = expected.var((0, 2, 3)) / nearest.var((0, 2, 3))
    assert lost.max() > 1.5
    kept = stretched.var((0, 2, 3)) / expected.var((0, 2, 3))
    torch.testing.assert_close(kept, (4 / lost).clamp_max(1), atol=1e-3, rtol=0)
