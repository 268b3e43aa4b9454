"""Refits from few rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reptile_env.compression import moments, shrinkage

FEATURES, OUTPUTS = 30, 5


def problem(rows: int, noise: float, away: float, constant: bool, groups: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, noisy outputs, the weights that made them, and weights near to those."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = draw(groups, rows, FEATURES) @ draw(groups, FEATURES, FEATURES) + 2
    if constant:
        x[..., -1] = 1
    true = draw(groups, FEATURES, OUTPUTS)
    if constant:
        true[:, -1] += 50
    return x, x @ true + noise * draw(groups, rows, OUTPUTS), true, true + away * draw(groups, FEATURES, OUTPUTS)


def equations(x: Tensor, y: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.mT @ x / x.shape[1], x.mT @ y / x.shape[1], prior


def shrunk(x: Tensor, y: Tensor, prior: Tensor, constant: bool) -> Tensor:
    return shrinkage.solve(*equations(x, y, prior), y.square().mean(1).sum(1), x.shape[1], constant)


@pytest.mark.parametrize("constant", [False, True])
def test_without_noise_it_is_least_squares(constant: bool) -> None:
    x, y, true, prior = problem(60, 0.0, 1.0, constant, groups=3)
    torch.testing.assert_close(shrunk(x, y, prior, constant), true, atol=1e-2, rtol=0)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("rows", [20, 36, 60])
def test_few_noisy_rows_help_and_do_no_harm(rows: int, constant: bool) -> None:
    for away in (0.1, 1.0):
        x, y, true, prior = problem(rows, 5.0, away, constant)
        new = problem(2000, 0.0, 0.0, constant)[0]
        found = {
            "prior": prior,
            "least squares": moments.solve(*equations(x, y, prior)),
            "shrunk": shrunk(x, y, prior, constant),
        }
        error = {name: float((new @ (weights - true)).square().mean()) for name, weights in found.items()}
        assert error["shrunk"] < 1.1 * min(error.values())
        if away < 1:
            assert error["shrunk"] < 0.7 * error["least squares"]


def test_a_constant_is_not_pulled() -> None:
    x, y, _, prior = problem(20, 1.0, 0.1, True)
    prior[:, -1] = 0  # far off
    fitted = x @ shrunk(x, y, prior, True)
    torch.testing.assert_close(fitted.mean(1), y.mean(1))


def test_features_that_never_vary_keep_the_prior() -> None:
    x, y, _, prior = problem(40, 1.0, 0.1, False)
    x[..., :3] = 0
    assert torch.equal(shrunk(x, y, prior, False)[:, :3], prior[:, :3])
    still = torch.zeros_like(x)
    assert torch.equal(shrunk(still, y, prior, False), prior)
