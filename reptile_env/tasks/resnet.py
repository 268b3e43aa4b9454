"""Residual networks for small images (He et al., Deep Residual Learning, CVPR 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.errors import unknown

SHORTCUTS = ("A", "B")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution; where it is more than 1 the shortcut has to follow.
        shortcut: how. ``A`` takes every `stride`-th pixel and adds zero channels; ``B`` is a 1x1 convolution with batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str = "A") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, (outputs - inputs) // 2
        self.downsample: nn.Module | None = None
        if stride > 1 and shortcut == "B":
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return torch.relu(out + x)


class ResNet(nn.Module):
    """ResNet-(6n+2): three stages of n blocks with 16, 32 and 64 channels.

    Args:
        depth: 20, 32, 44, 56 or 110: 2 more than a multiple of 6.
        channels: of the images.
        classes: logits.
        shortcut: ``A`` or ``B``, see `BasicBlock`.

    Raises:
        ValueError: another depth or shortcut.
    """

    def __init__(self, depth: int = 20, channels: int = 3, classes: int = 10, shortcut: str = "A") -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth={depth}; it must be 2 more than a multiple of 6, such as 20 or 56")
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in range(3):
            blocks = [BasicBlock(widths[stage], widths[stage + 1], 1 + (stage > 0), shortcut)]
            blocks += [BasicBlock(widths[stage + 1], widths[stage + 1], 1) for _ in range((depth - 2) // 6 - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def stages(self) -> list[nn.Module]:
        """The three stages."""
        return [self.get_submodule(f"layer{stage}") for stage in (1, 2, 3)]

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, channels, h, w)`` to logits ``(n, classes)``."""
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in self.stages():
            x = stage(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
