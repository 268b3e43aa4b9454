"""Least squares in which each output may read only some of the features: the refit of a weight with holes."""

from __future__ import annotations

import torch
from torch import Tensor

from reptile_env.compression import moments


def solve(gram: Tensor, cross: Tensor, prior: Tensor, free: Tensor) -> Tensor:
    """Weights that are zero outside `free` and best rebuild the outputs; exact, as `moments.solve` for each output.

    Every output has features of its own and so its own system, the smaller of two with the same solution: the normal
    equations of the features that stay, or those of the multipliers that hold the others at zero, which start from the solution
    without holes (Hassibi and Stork, Optimal Brain Surgeon, NIPS 1993). None has more than half of the features.

    Args:
        gram: ``(groups, features, features)``, float64.
        cross: ``(groups, features, outputs)``.
        prior: weights towards which the ridge pulls, of the shape of `cross`.
        free: bool, of the shape of `cross`: which weights may differ from zero.
    """
    matrix, right = moments.regular(gram, cross, prior)
    whole, inverse = torch.empty_like(right), torch.empty_like(matrix)
    few = free.sum(1) <= free.shape[1] // 2
    for group in torch.nonzero(~few.all(1)).flatten().tolist():
        factor = torch.linalg.cholesky(matrix[group])
        whole[group], inverse[group] = torch.cholesky_solve(right[group], factor), torch.cholesky_inverse(factor)
    solution = torch.zeros_like(right)
    for group, column in torch.nonzero(free.any(1)).tolist():
        kept = torch.nonzero(free[group, :, column]).flatten()
        if few[group, column]:
            solution[group, kept, column] = _solved(matrix[group], right[group, kept, column], kept)
            continue
        gone = torch.nonzero(~free[group, :, column]).flatten()
        change = inverse[group][:, gone] @ _solved(inverse[group], whole[group, gone, column], gone)
        solution[group, kept, column] = (whole[group, :, column] - change)[kept]
    return solution


def _solved(matrix: Tensor, right: Tensor, rows: Tensor) -> Tensor:
    """Solution of the system of some rows and columns of a positive definite matrix."""
    part = matrix.index_select(0, rows).index_select(1, rows)
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(part))[:, 0]
