"""Weights on a grid of few levels so that a layer's outputs change least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Pulls towards the weights as they were; relative to the mean diagonal, as in GPTQ.
DAMPING = 0.01
_NOISE = 1e-10  # of centred second moments, relative to those about zero; at least
# Steps that are tried, as fractions of the one with which the largest weight of an output just fits.
CLIPPING = tuple(np.linspace(1.0, 0.3, 8))
SWEEPS = 2
_BLOCK = 64  # columns between two updates of all the others
_SMALLEST = 1e-30  # of a scale: its inverse is a float32 number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a weight's layer reads and is to give, float64, one entry for each of its groups.

    Attributes:
        gram: second moments of the inputs, ``(groups, features, features)``.
        cross: those of inputs with wanted outputs, ``(groups, features, outputs)``.
        mean: of the inputs, ``(groups, features)``, where a constant may be added to the outputs; else None.
        wanted: mean of the wanted outputs, ``(groups, outputs)``, likewise.
    """

    gram: Tensor
    cross: Tensor
    mean: Tensor | None = None
    wanted: Tensor | None = None


def top_level(bits: int) -> int:
    """The highest level; grids are symmetric: ``-top .. top``."""
    return int(2 ** (bits - 1)) - 1


def largest(weight: Tensor, bits: int, axis: int) -> Tensor:
    """For each output the step with which its largest weight is the highest level, float32 ``(outputs,)``."""
    size = weight.detach().float().abs().transpose(0, axis).flatten(1).amax(1)
    return torch.where(size > 0, (size / top_level(bits)).clamp_min(_SMALLEST), 1.0)


def on_grid(weight: Tensor, scale: Tensor, bits: int, axis: int) -> Tensor:
    """A weight on its grid, by torch's own operator: level times scale, in its own dtype."""
    top, zero = top_level(bits), torch.zeros(len(scale), dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight.detach().float(), scale, zero, axis, -top, top)
    return rounded.to(weight.dtype)


def least_squares(
    weight: Tensor, seen: Seen, bits: int, shared: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A weight on the grid that best gives the wanted outputs from what the layer reads.

    The best weights off the grid come first; they make up for errors of the layers before. From there rows are rounded one after
    another, those of the largest inputs first, and what each loses is passed on to the rows that are still to come (GPTQ: Frantar
    et al., ICLR 2023, after Optimal Brain Surgeon). Then, in turn, the steps are fitted to the levels in closed form and each
    level is set to the best one given all others (coordinate descent, as in QuantEase: Behdin et al., 2023).

    Args:
        weight: as a matrix, ``(groups, features, outputs)``, float64.
        seen: moments of inputs and wanted outputs.
        bits: 2 to 8.
        shared: whether all groups have the same steps.
        mask: bool, of the shape of `weight`: what stays zero; None: nothing.

    Returns:
        The weight, of the same shape; its steps, float32 numbers, ``(groups or 1, 1, outputs)``; and, where there are means, the
        constants that are to be added to the outputs, ``(groups, outputs)``.
    """
    gram, cross = seen.gram, seen.cross
    if seen.mean is not None:
        assert seen.wanted is not None
        gram, cross = gram - seen.mean[:, :, None] * seen.mean[:, None], cross - seen.mean[:, :, None] * seen.wanted[:, None]
    # Inputs that are all but constant leave rounding errors of what was subtracted, which may be negative.
    least = (_NOISE * seen.gram.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(1e-12)
    damping = (DAMPING * gram.diagonal(dim1=1, dim2=2).mean(1)).maximum(least)
    gram = gram + torch.diag_embed(damping[:, None].expand(gram.shape[:2]))
    factor = torch.linalg.cholesky(gram)
    best = weight + torch.cholesky_solve(cross + damping[:, None, None] * weight - gram @ weight, factor)
    problem = _Problem(best, gram, top_level(bits), shared, np.ones(weight.shape, bool) if mask is None else mask.numpy())
    scale = problem.clipped()
    levels = problem.propagated(scale, torch.cholesky_inverse(factor))
    for _ in range(SWEEPS):
        scale = problem.fitted(levels, scale)
        problem.descend(levels, scale)
    made = levels * scale
    constants = None if seen.mean is None or seen.wanted is None else seen.wanted - (seen.mean[:, None] @ made)[:, 0]
    return made, scale, constants


@dataclass(frozen=True)
class _Problem:
    """Minimise ``trace((W - Q)ᵀ G (W - Q))`` over matrices Q on a grid.

    Loops over features run on arrays that share the tensors' memory: each of their operations is small, and numpy starts one in
    a fraction of torch's time. Products of matrices are torch's, so that its number of threads holds.
    """

    weight: Tensor
    gram: Tensor
    top: int
    shared: bool
    free: NDArray[np.bool_]

    def clipped(self) -> Tensor:
        """For each output the step, of a few, with which plain rounding has the smallest error."""
        size = self._pooled(self.weight.abs().amax(1), Tensor.amax)
        whole = torch.where(size > 0, (size / self.top).clamp_min(_SMALLEST), 1.0)[:, None]
        best = torch.full_like(size, torch.inf)
        scale = whole
        for part in CLIPPING:
            tried = (part * whole).float().double()
            levels = (self.weight / tried).round().clamp(-self.top, self.top) * torch.from_numpy(self.free)
            lost = self.weight - levels * tried
            error = self._pooled((lost * (self.gram @ lost)).sum(1), Tensor.sum)
            scale = torch.where((error < best)[:, None], tried, scale)
            best = torch.minimum(error, best)
        return scale

    def propagated(self, scale: Tensor, inverse: Tensor) -> Tensor:
        """Levels, each feature's error made up for by those after it; `inverse` is that of the second moments."""
        order = self.gram.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        count = order.shape[1]
        rows = order[:, :, None].expand(inverse.shape)
        upper = torch.linalg.cholesky(inverse.gather(1, rows).gather(2, rows.mT), upper=True)
        rows = order[:, :, None].expand(self.weight.shape)
        left = self.weight.gather(1, rows)
        levels, errors = torch.zeros_like(left), torch.empty_like(left)
        free = np.take_along_axis(self.free, rows.numpy(), axis=1)
        w, q, e, u, step = left.numpy(), levels.numpy(), errors.numpy(), upper.numpy(), scale[:, 0].numpy()
        for start in range(0, count, _BLOCK):
            end = min(start + _BLOCK, count)
            for j in range(start, end):
                q[:, j] = self._rounded(w[:, j], step, free[:, j])
                e[:, j] = (w[:, j] - q[:, j] * step) / u[:, j, j, None]
                w[:, j + 1 : end] -= u[:, j, j + 1 : end, None] * e[:, j, None]
            left[:, end:] -= upper[:, start:end, end:].mT @ errors[:, start:end]
        return torch.zeros_like(levels).scatter(1, rows, levels)

    def fitted(self, levels: Tensor, scale: Tensor) -> Tensor:
        """For each output the step of least error with given levels; as it was where none is positive."""
        product = self.gram @ levels
        inner = self._pooled((product * self.weight).sum(1), Tensor.sum)
        square = self._pooled((product * levels).sum(1), Tensor.sum)
        good = (square > 0) & (inner > _SMALLEST * square)
        return torch.where(good, inner / torch.where(good, square, 1.0), scale[:, 0])[:, None].float().double()

    def descend(self, levels: Tensor, scale: Tensor) -> None:
        """Set each feature's levels, one feature after another, to the best ones given all others; in place."""
        slope = self.gram @ (self.weight - levels * scale)
        changes = torch.empty_like(levels)
        q, d, step, gram = levels.numpy(), changes.numpy(), scale[:, 0].numpy(), self.gram.numpy()
        for start in range(0, q.shape[1], _BLOCK):
            end = min(start + _BLOCK, q.shape[1])
            ahead = slope[:, start:end].numpy().copy()
            for j in range(start, end):
                wanted = q[:, j] * step + ahead[:, j - start] / gram[:, j, j, None]
                level = self._rounded(wanted, step, self.free[:, j])
                d[:, j] = (level - q[:, j]) * step
                q[:, j] = level
                ahead[:, j - start :] -= gram[:, j, j:end, None] * d[:, j, None]
            slope -= self.gram[:, :, start:end] @ changes[:, start:end]

    def _rounded(self, wanted: Array, step: Array, free: NDArray[np.bool_]) -> Array:
        rounded: Array = np.clip(np.rint(wanted / step), -self.top, self.top) * free
        return rounded

    def _pooled(self, values: Tensor, pool: Any) -> Tensor:
        """One value for each output: of all groups together where they share their steps."""
        made: Tensor = pool(values, 0, keepdim=True) if self.shared else values
        return made
