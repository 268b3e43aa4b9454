"""The kinds of network of the transfer family: from the shape of an example and a member's numbers to an untrained network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU}

Shape = tuple[int, ...]


def mlp(shape: Shape, classes: int, *, widths: Sequence[int], activation: str = "relu", norm: bool = False) -> nn.Module:
    """A fully connected network.

    Args:
        shape: of an example.
        classes: logits.
        widths: of the hidden layers.
        activation: a key of `ACTIVATIONS`.
        norm: batch norm behind each hidden layer.
    """
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    for number, (inputs, outputs) in enumerate(itertools.pairwise([math.prod(shape), *widths]), 1):
        net.add_module(f"linear{number}", nn.Linear(inputs, outputs))
        if norm:
            net.add_module(f"norm{number}", nn.BatchNorm1d(outputs))
        net.add_module(f"act{number}", ACTIVATIONS[activation]())
    net.add_module("head", nn.Linear(widths[-1], classes))
    return net


def convolutional(
    shape: Shape, classes: int, *, layers: Sequence[tuple[int, int, int]], hidden: int = 0, activation: str = "relu"
) -> nn.Module:
    """A plain chain of convolutions with batch norm, over images ``(c, h, w)`` or signals ``(c, n)``.

    Args:
        shape: of an example.
        classes: logits.
        layers: of each its channels, its kernel and the size of the max pooling behind it (1: none).
        hidden: units of a fully connected layer that reads all positions; 0: the mean over positions is read by the head.
        activation: a key of `ACTIVATIONS`.
    """
    image = len(shape) == 3
    pooling: type[nn.Module] = nn.MaxPool2d if image else nn.MaxPool1d
    net, channels, places = nn.Sequential(), shape[0], shape[1:]
    for number, (outputs, kernel, pool) in enumerate(layers, 1):
        net.add_module(f"conv{number}", _conv(image, channels, outputs, kernel))
        net.add_module(f"act{number}", ACTIVATIONS[activation]())
        if pool > 1:
            net.add_module(f"pool{number}", pooling(pool))
        channels, places = outputs, tuple(place // pool for place in places)
    if not hidden:
        return _averaged(net, image, channels, classes)
    net.add_module("flatten", nn.Flatten())
    net.add_module("hidden", nn.Linear(channels * math.prod(places), hidden))
    net.add_module("hidden_act", ACTIVATIONS[activation]())
    net.add_module("head", nn.Linear(hidden, classes))
    return net


def residual(shape: Shape, classes: int, *, stem: tuple[int, int, int], blocks: Sequence[tuple[int, int, int, int]]) -> nn.Module:
    """A residual network over images (He et al., Deep Residual Learning, CVPR 2016).

    Args:
        shape: of an example, ``(c, h, w)``.
        classes: logits.
        stem: channels, kernel and stride of the first convolution.
        blocks: of each the channels of its sum, those between its two convolutions, its kernel and its stride.
    """
    channels, kernel, stride = stem
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(_conv(True, shape[0], channels, kernel, stride), nn.ReLU()))
    for number, (outputs, inner, size, step) in enumerate(blocks, 1):
        net.add_module(f"block{number}", Residual(channels, inner, outputs, size, step))
        channels = outputs
    return _averaged(net, True, channels, classes)


class Residual(nn.Module):
    """Two convolutions and a shortcut: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(True, inputs, inner, kernel, stride)
        self.second = _conv(True, inner, outputs, kernel)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv(True, inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


def depthwise(
    shape: Shape, classes: int, *, stem: tuple[int, int, int], blocks: Sequence[tuple[int, int, int, int]], last: int = 0
) -> nn.Module:
    """Depthwise separable convolutions over images, with or without an expansion before them.

    With an expansion these are the inverted residuals of MobileNetV2 (Sandler et al., CVPR 2018), without one the layers of
    MobileNets (Howard et al., 2017).

    Args:
        shape: of an example, ``(c, h, w)``.
        classes: logits.
        stem: channels, kernel and stride of the first convolution.
        blocks: of each its outputs, the channels of its expansion (0: none), its kernel and its stride.
        last: channels of a last 1x1 convolution; 0: none.
    """
    channels, kernel, stride = stem
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(_conv(True, shape[0], channels, kernel, stride), nn.ReLU6()))
    for number, (outputs, expanded, size, step) in enumerate(blocks, 1):
        net.add_module(f"block{number}", Separable(channels, expanded, outputs, size, step))
        channels = outputs
    if last:
        net.add_module("last", nn.Sequential(_conv(True, channels, last, 1), nn.ReLU6()))
    return _averaged(net, True, last or channels, classes)


class Separable(nn.Module):
    """An expansion, if there is one, a depthwise convolution and a projection; inverted residuals add their input."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        channels = expanded or inputs
        self.expand = nn.Sequential(_conv(True, inputs, channels, 1), nn.ReLU6()) if expanded else nn.Identity()
        self.depthwise = nn.Sequential(_conv(True, channels, channels, kernel, stride, channels), nn.ReLU6())
        self.project = _conv(True, channels, outputs, 1)
        self.act = nn.Identity() if expanded else nn.ReLU6()
        self.adds = bool(expanded) and stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        out: Tensor = self.act(self.project(self.depthwise(self.expand(x))))
        return x + out if self.adds else out


class Recurrent(nn.Module):
    """Recurrent layers, each as wide as it likes, over sequences ``(steps, features)``.

    Args:
        shape: of an example.
        classes: logits.
        cell: a key of `CELLS`.
        widths: hidden units of each layer, in one direction.
        project: units of a layer that reads each step first; 0: none.
        both: read both ways.
        mean: read the mean over the steps, not the last step.
        hidden: units of a fully connected layer before the head; 0: none.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        cell: str,
        widths: Sequence[int],
        project: int = 0,
        both: bool = False,
        mean: bool = False,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        features, self.mean = shape[1], mean or both
        self.project = nn.Sequential(nn.Linear(features, project), nn.ReLU()) if project else nn.Identity()
        self.layers = nn.ModuleList()
        features = project or features
        for width in widths:
            self.layers.append(CELLS[cell](features, width, batch_first=True, bidirectional=both))
            features = width * (1 + both)
        self.hidden = nn.Sequential(nn.Linear(features, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, steps, features)`` to logits ``(n, classes)``."""
        x = self.project(x)
        for layer in self.layers:
            x, _ = layer(x)
        logits: Tensor = self.head(self.hidden(x.mean(1) if self.mean else x[:, -1]))
        return logits


class Transformer(nn.Module):
    """Encoder layers (Vaswani et al., Attention Is All You Need, NeurIPS 2017) over sequences ``(steps, features)``.

    Args:
        shape: of an example.
        classes: logits.
        width: of the residual stream.
        layers: of each its heads and the units of its feed-forward part.
        embed: units of a layer before the stream is made; 0: one matrix makes it.
        hidden: units of a fully connected layer before the head; 0: none.
        norm_first: normalise before each part, not after it.
        activation: of the feed-forward parts: ``relu`` or ``gelu``.
        dropout: while training.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        width: int,
        layers: Sequence[tuple[int, int]],
        embed: int = 0,
        hidden: int = 0,
        norm_first: bool = False,
        activation: str = "relu",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        steps, features = shape
        self.read = nn.Sequential(nn.Linear(features, embed), ACTIVATIONS[activation]()) if embed else nn.Identity()
        self.embed = nn.Linear(embed or features, width)
        self.places = nn.Embedding(steps, width)
        options: dict[str, Any] = {"dropout": dropout, "activation": activation, "batch_first": True, "norm_first": norm_first}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, units, **options) for heads, units in layers)
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), ACTIVATIONS[activation]()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, steps, features)`` to logits ``(n, classes)``."""
        x = self.embed(self.read(x)) + self.places(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.hidden(self.norm(x).mean(1)))
        return logits


# kind -> network of (shape of an example, classes, the member's numbers)
KINDS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": convolutional,
    "resnet": residual,
    "mobilenet": depthwise,
    "cnn-1d": convolutional,
    "lstm": Recurrent,
    "gru": Recurrent,
    "transformer": Transformer,
}


def _conv(image: bool, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, and its batch norm."""
    options: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": False}
    if image:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.BatchNorm2d(outputs))
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, **options), nn.BatchNorm1d(outputs))


def _averaged(net: nn.Sequential, image: bool, channels: int, classes: int) -> nn.Sequential:
    """The mean over all positions, and a head that reads it."""
    net.add_module("mean", nn.AdaptiveAvgPool2d(1) if image else nn.AdaptiveAvgPool1d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(channels, classes))
    return net
