"""Classifiers of images of 8x8, of unequal widths, kernels and resolutions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU; zeros around, so that a stride of 1 keeps height and width."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two 3x3 convolutions and the identity (He et al., Deep Residual Learning, CVPR 2016)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = conv(channels, hidden, 3)
        self.second = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to the same shape."""
        return torch.relu(x + self.norm(self.second(self.first(x))))


class Downsampling(nn.Module):
    """Two 3x3 convolutions, the first with a stride of 2, and a shortcut of 1x1 (He et al., CVPR 2016, option B)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, hidden, 3, stride=2)
        self.second = nn.Conv2d(hidden, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / 2, w / 2)``."""
        return torch.relu(self.shortcut(x) + self.norm(self.second(self.first(x))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the identity where shapes allow (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.expand = conv(inputs, expanded, 1)
        self.depthwise = conv(expanded, expanded, kernel, stride, groups=expanded)
        self.project = nn.Sequential(nn.Conv2d(expanded, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.has_identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.has_identity else out


class DigitsCNN(nn.Module):
    """Convolutions of unequal widths and kernels, a residual block and a depthwise layer; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 16, 5)
        self.wide = conv(16, 48, 3)
        self.pool = nn.MaxPool2d(2)
        self.narrow = conv(48, 24, 3)
        self.block = Residual(24, 64)
        self.expand = conv(24, 96, 1)
        self.depthwise = conv(96, 96, 3, groups=96)
        self.project = conv(96, 32, 1)
        self.hidden = nn.Linear(32 * 4, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        x = self.pool(self.wide(self.stem(x)))
        x = self.block(self.narrow(x))
        x = self.pool(self.project(self.depthwise(self.expand(x))))
        logits: Tensor = self.head(torch.relu(self.hidden(x.flatten(1))))
        return logits


class DigitsMLP(nn.Module):
    """A fully connected network of unequal widths; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 256, 16, 192, 12, 96]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 10))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        out: Tensor = self.layers(x)
        return out


class DigitsResNet(nn.Module):
    """Residual blocks at 8x8, 4x4 and 2x2, their hidden layers wider or narrower than the stream; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Residual(10, 32), Downsampling(10, 16, 20), Residual(20, 48), Downsampling(20, 28, 40)]
        self.stem = conv(1, 10, 5)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class DigitsMobileNet(nn.Module):
    """Inverted residuals at 8x8, 4x4 and 2x2 of unequal expansion and kernels; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 16, 3)
        self.blocks = nn.Sequential(
            InvertedResidual(16, 64, 16),
            InvertedResidual(16, 40, 24, kernel=5, stride=2),
            InvertedResidual(24, 144, 24),
            InvertedResidual(24, 72, 40, stride=2),
        )
        self.last = conv(40, 128, 1)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        logits: Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return logits
