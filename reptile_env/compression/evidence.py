"""What importances are computed from: weights by channel, second moments by reader, gradients of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from reptile_env.compression import gradients, moments
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.gradients import NoGradientError
from reptile_env.compression.groups import Structure
from reptile_env.compression.layers import RECURRENT
from reptile_env.compression.moments import Moments
from reptile_env.compression.producers import CONVS, TRANSPOSED, is_depthwise
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

READERS = (nn.Linear, *CONVS, *RECURRENT)
GRADIENT_BATCH = 16  # over many examples the gradients of a trained network cancel out

Key = TypeVar("Key")


@dataclass(frozen=True)
class Reader:
    """A weight that reads a group's channels, and what is known of its inputs.

    Attributes:
        moments: second moments of its dense inputs, and its dense weights ``(groups, features, outputs)``.
        inverse: of the gram matrix with its ridge, ``(groups, features, features)``.
        features: numbers of each channel's features, ``(channels, features of one)``.
        outputs: for each output the channel of the group that it is itself, ``(groups, outputs)``; -1: none.
    """

    moments: Moments
    inverse: Callable[[], Tensor]
    features: Tensor
    outputs: Tensor

    @property
    def energy(self) -> Tensor:
        """Mean square of the dense outputs, summed over outputs; above 0."""
        return (self.moments.dense * self.moments.cross).sum().clamp_min(1e-30)


@dataclass
class Evidence:
    """What importances are computed from.

    Attributes:
        structure: the network and its groups.
        state: its parameters and buffers.
        moments: gives second moments of every layer's inputs; costs a pass over the calibration examples at the first call.
        task: gives the loss.
        calibration: training examples.
        refits: whether what reads the channels is refitted after a cut.
        modules: layers by name.
    """

    structure: Structure
    state: Mapping[str, Tensor]
    moments: Callable[[], Mapping[Consumer, Moments]]
    task: Task
    calibration: Split
    refits: bool = True
    modules: dict[str, nn.Module] = field(init=False)
    _inverses: dict[Consumer, Tensor] = field(init=False, default_factory=dict)
    _squares: dict[str, dict[Any, Tensor]] = field(init=False, default_factory=dict)
    _no_gradient: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.modules = dict(self.structure.model.named_modules())

    def makers(self, group: int) -> Iterator[tuple[str, int]]:
        """Weights, and their dimension, whose rows make a group's channels: filters, gates, projections of heads."""
        producers = self.structure.groups[group].producers
        for name, dim in self._weights(group):
            layer = name.rpartition(".")[0]
            if layer in producers and dim == _output_dim(self.modules[layer]):
                yield name, dim

    def readers(self, group: int) -> Iterator[tuple[str, int]]:
        """Weights, and their dimension, that a group's channels are multiplied with where they are read."""
        for name, dim in self._weights(group):
            layer = self.modules[name.rpartition(".")[0]]
            if isinstance(layer, READERS) and not is_depthwise(layer) and dim != _output_dim(layer):
                yield name, dim

    def measured_readers(self, group: int) -> Iterator[Reader]:
        """Those of `readers` whose inputs are measured: all but grouped transposed convolutions."""
        readers = set(self.readers(group))
        for consumer, measured in self.moments().items():
            if (consumer.weight, consumer.into) not in readers:
                continue
            positions = self._positions(consumer.weight, consumer.into, group)
            features = (positions[..., None] * measured.kernel + torch.arange(measured.kernel)).flatten(1)
            axis = self.structure.axes.get((consumer.weight, consumer.out))
            groups, _, outputs = measured.dense.shape
            own = torch.full((groups, outputs), -1)
            if axis is not None:
                own = torch.from_numpy(np.where(axis.group == group, axis.channel, -1)).view(groups, outputs)
            yield Reader(measured, partial(self.inverse, consumer), features, own)

    def inverse(self, consumer: Consumer) -> Tensor:
        """Inverse of a consumer's gram matrix with its ridge, ``(groups, features, features)``."""
        if consumer not in self._inverses:
            measured = self.moments()[consumer]
            matrix, _ = moments.regular(measured.gram, measured.cross, measured.dense)
            self._inverses[consumer] = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return self._inverses[consumer]

    def by_channel(self, values: Tensor, tensor: str, dim: int, group: int) -> Tensor:
        """What belongs to each channel of `values`, one for each element of a tensor: ``(channels, elements)``."""
        return values.movedim(dim, 0)[self._positions(tensor, dim, group)].flatten(1)

    def mean_squares(self, what: str, products: Callable[[dict[str, Tensor]], dict[Key, Tensor]]) -> dict[Key, Tensor]:
        """Mean squares of what `products` makes of the loss's gradient by each parameter, over batches of calibration examples.

        Args:
            what: a name for it; the pass over the examples is made at the first call.
            products: ``gradients -> tensors``.

        Raises:
            NoGradientError: the loss has none.
        """
        if self._no_gradient:
            raise NoGradientError(self._no_gradient)
        if what not in self._squares:
            total: dict[Key, Tensor] = {}
            try:
                for share, found in gradients.of_batches(self.structure.model, self.task, self.calibration, GRADIENT_BATCH):
                    for key, product in products(found).items():
                        total[key] = total.get(key, 0) + share * product.square()
            except NoGradientError as error:
                self._no_gradient = str(error)
                raise
            self._squares[what] = total
        return self._squares[what]

    def _weights(self, group: int) -> Iterator[tuple[str, int]]:
        for (name, dim), axis in self.structure.axes.items():
            if name.rpartition(".")[2].startswith("weight") and (axis.group == group).any():
                yield name, dim

    def _positions(self, tensor: str, dim: int, group: int) -> Tensor:
        """Positions of each channel along a dimension, ``(channels, positions of one)``: every channel has as many."""
        axis = self.structure.axes[tensor, dim]
        mine = np.flatnonzero(axis.group == group)
        ordered = mine[np.argsort(axis.channel[mine], kind="stable")]
        return torch.from_numpy(ordered.reshape(self.structure.groups[group].size, -1))


def _output_dim(layer: nn.Module) -> int:
    # A depthwise weight has one dimension for its channels, whichever way it convolves.
    return 1 if isinstance(layer, (*TRANSPOSED, nn.Embedding)) and not is_depthwise(layer) else 0
