"""The arithmetic of data-aware rounding against plain loops and exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from reptile_env.compression.rounding import Seen, _Problem, largest, least_squares, on_grid


def problem(groups: int, features: int, outputs: int, rows: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and inputs that depend on one another and have a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, features, features, generator=generator, dtype=torch.float64) / features**0.5
    x = torch.randn(groups, rows, features, generator=generator, dtype=torch.float64) @ mixing + 0.5
    return torch.randn(groups, features, outputs, generator=generator, dtype=torch.float64), x


def seen(x: Tensor, wanted: Tensor, constant: bool) -> Seen:
    gram, cross = x.mT @ x / x.shape[1], x.mT @ wanted / x.shape[1]
    return Seen(gram, cross, x.mean(1), wanted.mean(1)) if constant else Seen(gram, cross)


def error(x: Tensor, wanted: Tensor, made: Tensor, constants: Tensor | None) -> Tensor:
    lost = wanted - x @ made - (0 if constants is None else constants[:, None])
    return lost.square().mean(1)


def plain(weight: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    step = weight.abs().amax(1, keepdim=True) / top
    return (weight / step).round() * step


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("groups", "features", "outputs"), [(1, 150, 8), (3, 9, 2), (1, 2, 5)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_errors_are_far_below_those_of_plain_rounding(bits: int, groups: int, features: int, outputs: int, constant: bool) -> None:
    weight, x = problem(groups, features, outputs)
    made, scale, constants = least_squares(weight, seen(x, x @ weight, constant), bits)
    levels = made / scale
    assert torch.equal(levels.round() * scale, made)
    assert levels.abs().max() <= 2 ** (bits - 1) - 1
    assert torch.equal(scale.float().double(), scale)
    assert scale.shape == (groups, 1, outputs)
    assert (constants is not None) == constant
    ours, theirs = error(x, x @ weight, made, constants).mean(), error(x, x @ weight, plain(weight, bits), None).mean()
    assert ours < (0.7 if features > 2 else 1.0) * theirs


def test_the_best_levels_of_all_are_nearly_reached() -> None:
    weight, x = problem(1, 5, 8)
    made, scale, _ = least_squares(weight, seen(x, x @ weight, False), 3)
    every = torch.tensor(list(itertools.product(range(-3, 4), repeat=5)), dtype=torch.float64)
    best = torch.stack(
        [(x[0] @ (weight[0, :, [o]] - (every * scale[0, 0, o]).T)).square().mean(0).min() for o in range(weight.shape[2])]
    )
    ours = error(x, x @ weight, made, None)[0]
    assert (ours >= best - 1e-9).all()
    assert ours.mean() < 1.2 * best.mean()


def test_blocks_of_columns_are_no_different_from_one_column_after_another() -> None:
    weight, x = problem(2, 150, 6)
    gram = x.mT @ x / x.shape[1]
    inverse = torch.linalg.inv(gram)
    work = _Problem(weight, gram, 7, False, np.ones(weight.shape, bool))
    scale = work.clipped()
    levels = work.propagated(scale, inverse)
    for group in range(2):
        order = gram[group].diagonal().argsort(descending=True, stable=True).tolist()
        left, hessian = weight[group].clone(), gram[group].clone()
        wanted = torch.zeros_like(left)
        # Optimal Brain Quantization as it is derived: after each column the inverse over those that are left.
        for place, column in enumerate(order):
            rest = order[place:]
            inverse_left = torch.linalg.inv(hessian[rest][:, rest])
            wanted[column] = (left[column] / scale[group, 0]).round().clamp(-7, 7)
            change = (left[column] - wanted[column] * scale[group, 0]) / inverse_left[0, 0]
            left[rest] -= inverse_left[:, :1] * change
        assert torch.equal(levels[group], wanted)


def test_descent_only_lowers_the_error_and_ends_where_no_single_change_helps() -> None:
    weight, x = problem(2, 100, 4)
    gram = x.mT @ x / x.shape[1]
    work = _Problem(weight, gram, 3, False, np.ones(weight.shape, bool))
    scale = work.clipped()
    levels = (weight / scale).round().clamp(-3, 3)
    errors = [error(x, x @ weight, levels * scale, None)]
    for _ in range(30):
        work.descend(levels, scale)
        errors.append(error(x, x @ weight, levels * scale, None))
        assert (errors[-1] <= errors[-2] + 1e-9).all()
    assert (errors[-1] < errors[0]).all()
    for change in (-1, 1):
        for feature in range(100):
            other = levels.clone()
            other[:, feature] = (other[:, feature] + change).clamp(-3, 3)
            assert (error(x, x @ weight, other * scale, None) >= errors[-1] - 1e-9).all()
    fitted = work.fitted(levels, scale)
    assert (error(x, x @ weight, levels * fitted, None) <= errors[-1] + 1e-7).all()


def test_errors_of_the_layers_before_are_made_up_for() -> None:
    weight, x = problem(1, 60, 8, rows=2000)
    given = (x * 1.3 + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)) - 0.4
    wanted = x @ weight
    made, _, constants = least_squares(weight, seen(given, wanted, True), 4)
    ignorant, _, shift = least_squares(weight, seen(given, given @ weight, True), 4)
    assert error(given, wanted, made, constants).mean() < 0.1 * error(given, wanted, ignorant, shift).mean()


def test_holes_and_shared_steps() -> None:
    weight, x = problem(3, 20, 4)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.6
    weight = weight * mask
    made, scale, _ = least_squares(weight, seen(x, x @ weight, False), 4, shared=True, mask=mask)
    assert scale.shape == (1, 1, 4)
    assert not made[~mask].any()
    levels = made / scale
    assert torch.equal(levels.round() * scale, made)
    assert error(x, x @ weight, made, None).mean() < 0.8 * error(x, x @ weight, plain(weight, 4), None).mean()


def test_what_no_input_shows_is_rounded_as_it_is() -> None:
    weight, x = problem(1, 10, 4)
    made, scale, constants = least_squares(weight, seen(x * 0, x @ weight * 0, True), 8)
    assert ((made - weight).abs() <= scale).all()
    assert constants is not None
    assert not constants.any()


@pytest.mark.parametrize("features", [1, 12])
@pytest.mark.parametrize("size", [10.0, 1e3, 1e5])
def test_constant_inputs_leave_their_constant(features: int, size: float) -> None:
    # What is left of their second moments about the mean are rounding errors, some of them negative.
    weight, _ = problem(1, features, 6)
    for seed in range(5):
        x = size * torch.rand(features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).expand(1, 401, features)
        made, _, constants = least_squares(weight, seen(x, x @ weight, True), 4)
        assert error(x, x @ weight, made, constants).max() < 1e-20 * size**2


@pytest.mark.parametrize("axis", [0, 1])
def test_nearest_levels(axis: int) -> None:
    weight = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    weight[:, 2], weight[4] = 0, 0
    scale = largest(weight, 3, axis)
    shape = [-1 if dim == axis else 1 for dim in range(3)]
    reference = weight.abs().amax([dim for dim in range(3) if dim != axis]) / 3
    assert torch.equal(scale, torch.where(reference > 0, reference, 1.0))
    got = on_grid(weight, scale, 3, axis)
    step = scale.view(shape)
    torch.testing.assert_close(got, (weight / step).round() * step, atol=1e-6, rtol=0)
    assert ((got - weight).abs() <= step / 2 + 1e-6).all()
    assert torch.equal(on_grid(got, scale, 3, axis), got)
