"""MobileNetV2 (Sandler et al., Inverted Residuals and Linear Bottlenecks, CVPR 2018) for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# A stage: expansion of its blocks, channels that go out, blocks, stride of the first.
Stage = tuple[int, int, int, int]
# Table 2 of the paper, strides as is usual at 32x32: the stem and the second stage keep the resolution.
CIFAR_STAGES: tuple[Stage, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, a 1x1 one that narrows; the identity around them where shapes allow.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        expansion: how many times wider the block is within; 1 leaves the widening convolution out.
        stride: of the depthwise convolution.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        wider = [_conv(inputs, hidden, 1)] if expansion > 1 else []
        narrower = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*wider, _conv(hidden, hidden, 3, stride, groups=hidden), *narrower)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        out: Tensor = self.conv(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """Inverted residuals between a 3x3 and a 1x1 convolution; its parameters go by the names that torchvision gave them.

    Args:
        channels: of the images.
        classes: logits.
        stem: channels of the first convolution, which keeps the resolution.
        stages: of inverted residuals.
        last: channels of the last convolution.
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, stem: int = 32, stages: Sequence[Stage] = CIFAR_STAGES, last: int = 1280
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(channels, stem, 3)]
        inputs = stem
        for expansion, outputs, blocks, stride in stages:
            for block in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, expansion, stride if block == 0 else 1))
                inputs = outputs
        self.features = nn.Sequential(*layers, _conv(inputs, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, channels, h, w)`` to logits ``(n, classes)``."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
