"""Second moments of what every consumer reads, from which its weights are refitted in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import consumers, hooks
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.padding import Padding
from reptile_env.tasks.splits import Split, call

_CHUNK_ROWS = 1024
_CHUNK_BYTES = 64 * 2**20
RIDGE = 1e-6  # relative to the mean diagonal: far below what changes a fit, enough for constant and dead channels


@dataclass(frozen=True)
class Moments:
    """Second moments of one consumer's inputs, float64, one matrix for each of its groups.

    With rows ``x`` of features (patches of a convolution, channel-major; a last 1 where a constant can be absorbed) and the dense
    weights ``V``, the constant as last row:

    Attributes:
        gram: ``XᵀX / rows``, ``(groups, features, features)``.
        cross: ``XᵀY / rows``, ``(groups, features, outputs)``; ``Y = X V`` where X are dense inputs.
        dense: ``V``, ``(groups, features, outputs)``.
        kernel: features that one input channel has.
        constant: whether the last feature is the 1.
    """

    gram: Tensor
    cross: Tensor
    dense: Tensor
    kernel: int
    constant: bool

    def features(self, channels: Tensor) -> Tensor:
        """Numbers of the features of some input channels, the constant included."""
        kept = (channels[:, None] * self.kernel + torch.arange(self.kernel)).flatten()
        return torch.cat([kept, torch.tensor([self.gram.shape[-1] - 1])]) if self.constant else kept

    def solve(self, channels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights ``(groups, kept features, outputs)`` and constants ``(outputs,)`` that best rebuild the dense outputs.

        The normal equations of least squares (He et al., Channel Pruning, ICCV 2017), solved by Cholesky; the ridge pulls
        towards the dense weights where the data says nothing.
        """
        kept = self.features(channels)
        return split(solve(self.gram[:, kept][:, :, kept], self.cross[:, kept], self.dense[:, kept]), self.constant)


def solve(gram: Tensor, cross: Tensor, prior: Tensor) -> Tensor:
    """``(gram + ridge)⁻¹ (cross + ridge * prior)`` for a stack of positive semi-definite matrices, float64."""
    matrix, right = regular(gram, cross, prior)
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def try_solve(gram: Tensor, cross: Tensor, prior: Tensor) -> Tensor | None:
    """As `solve`; None where rounding has left the matrices indefinite."""
    matrix, right = regular(gram, cross, prior)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return None if failed.any() else torch.cholesky_solve(right, factor)


def products(x: Tensor, outputs: Tensor, quick: bool = False) -> tuple[Tensor, Tensor]:
    """``XᵀX / rows`` and ``XᵀY / rows``, float64, of rows ``(groups, rows, features)`` and ``(groups, rows, outputs)``.

    Args:
        x: what a layer reads.
        outputs: what it should make of it.
        quick: multiply `_CHUNK_ROWS` rows at a time in float32 and add up in float64: twice as fast, with errors of a few 1e-7
            of the diagonal, which moved the loss of refitted networks by less than 1e-6; solve with `try_solve`.
    """
    if not quick:
        x, outputs = x.double(), outputs.double()
        return x.transpose(1, 2) @ x / x.shape[1], x.transpose(1, 2) @ outputs / x.shape[1]
    both = torch.cat([x, outputs.to(x.dtype)], dim=2)
    total = x.new_zeros(x.shape[0], x.shape[2], both.shape[2], dtype=torch.float64)
    for part, whole in zip(torch.split(x, _CHUNK_ROWS, 1), torch.split(both, _CHUNK_ROWS, 1), strict=True):
        total += part.transpose(1, 2) @ whole
    total /= x.shape[1]
    return total[..., : x.shape[2]], total[..., x.shape[2] :]


def regular(gram: Tensor, cross: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Normal equations with a ridge that pulls towards `prior`: ``gram + ridge`` and ``cross + ridge * prior``."""
    ridge = (RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)).clamp_min(1e-12)[:, None]
    return gram + torch.diag_embed(ridge.expand(-1, gram.shape[-1])), cross + ridge[..., None] * prior


def split(solution: Tensor, constant: bool) -> tuple[Tensor, Tensor | None]:
    """A solution as weights and, where its last row is one, constants ``(outputs,)``."""
    if not constant:
        return solution, None
    return solution[:, :-1], solution[:, -1].flatten()


def collect(model: nn.Module, found: Sequence[Consumer], calibration: Split, batch_size: int) -> dict[Consumer, Moments]:
    """Moments of every consumer from one pass of the dense network over the calibration examples."""
    modules = dict(model.named_modules())
    padding = Padding(model)
    sums: dict[Consumer, Tensor] = {}
    counts = dict.fromkeys(found, 0)

    def observe(consumer: Consumer, layer: Any, inputs: Any, output: Any) -> None:
        real = padding.real_rows(layer, inputs)
        total = consumers.row_count(consumer, layer, inputs, output) if real is None else len(real)
        features = len(dense[consumer][0]) * consumers.groups_of(layer)
        step = max(1, _CHUNK_BYTES // (12 * features))
        # Patches of a convolution are made chunk by chunk; other rows are there already.
        whole = (
            consumers.rows(consumer, layer, inputs, output, real)
            if total <= step or not isinstance(layer, nn.modules.conv._ConvNd)
            else None
        )
        for start in range(0, total, step):
            picked = torch.arange(start, min(start + step, total))
            x = whole[:, picked] if whole is not None else consumers.rows(consumer, layer, inputs, output, picked)
            # In double: float32 sums can leave the matrix indefinite beyond what the ridge mends.
            x = x.double()
            if consumer.shift is not None:
                x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
            sums[consumer] = sums.get(consumer, 0) + x.transpose(1, 2) @ x
            counts[consumer] += x.shape[1]

    state = {name: t.detach() for name, t in (*model.named_parameters(), *model.named_buffers())}
    dense = {consumer: dense_matrix(consumer, modules[consumer.layer], state) for consumer in found}
    run_observed(model, found, calibration, batch_size, observe, padding)
    moments = {}
    for consumer, total in sums.items():
        weight = dense[consumer]
        gram = total / counts[consumer]
        kernel = state[consumer.weight][0, 0].numel() if state[consumer.weight].dim() > 2 else 1
        moments[consumer] = Moments(gram, gram @ weight, weight, kernel, consumer.shift is not None)
    return moments


def dense_matrix(consumer: Consumer, layer: nn.Module, state: dict[str, Tensor]) -> Tensor:
    """Dense weights of a consumer as a matrix with its constant (a bias; 0 where a batch norm takes it) as last row."""
    weight = consumers.matrix(consumer, layer, state[consumer.weight]).double()
    if consumer.shift is None:
        return weight
    bias = state[consumer.shift].double() if consumer.sign > 0 else weight.new_zeros(weight.shape[0] * weight.shape[2])
    return torch.cat([weight, bias.view(weight.shape[0], 1, -1)], dim=1)


def run_observed(
    model: nn.Module,
    found: Sequence[Consumer],
    data: Split,
    batch_size: int,
    observe: Callable[[Consumer, Any, Any, Any], None],
    padding: Padding | None = None,
) -> None:
    """Run a network over data and show `observe` each consumer's layer, input and output; `padding` watches meanwhile."""
    modules = dict(model.named_modules())

    def hook_of(consumer: Consumer) -> Any:
        def hook(layer: nn.Module, given: Any, output: Any) -> None:
            observe(consumer, layer, given, output)

        return hook

    handles = [hooks.after(modules[consumer.layer], hook_of(consumer)) for consumer in found]
    with torch.no_grad(), hooks.attached(handles + (padding.handles() if padding else [])):
        for batch in data.batches(batch_size):
            call(model, batch.inputs)
