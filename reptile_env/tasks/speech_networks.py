"""Classifiers of spoken words by their log-mel spectrograms, of unequal widths and kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1) -> nn.Sequential:
    """Convolution over bands and frames, batch norm and ReLU; zeros around, so that a stride of 1 keeps both."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class SpeechCNN(nn.Module):
    """Convolutions over bands and frames, over frames alone and over bands alone, and a residual one; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(1, 12, (5, 5), stride=2)
        self.wide = _conv(12, 40, (3, 3))
        self.pool = nn.MaxPool2d(2)
        self.narrow = _conv(40, 20, (3, 3))
        self.inner = _conv(20, 56, (3, 3))
        self.outer = nn.Sequential(nn.Conv2d(56, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20))
        self.frames = _conv(20, 64, (1, 5))
        self.bands = _conv(64, 16, (5, 1))
        self.hidden = nn.Linear(16 * 4 * 6, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Spectrograms ``(n, 32, 51)`` to logits ``(n, 10)``."""
        x = self.narrow(self.pool(self.wide(self.stem(x[:, None]))))
        x = torch.relu(x + self.outer(self.inner(x)))
        x = self.pool(self.bands(self.frames(x)))
        logits: Tensor = self.head(torch.relu(self.hidden(x.flatten(1))))
        return logits


class SpeechLSTM(nn.Module):
    """Three LSTMs (Hochreiter and Schmidhuber, 1997), the first two of both directions, and linear layers; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(32, 48)
        self.first = nn.LSTM(48, 56, batch_first=True, bidirectional=True)
        self.narrow = nn.Linear(112, 20)
        self.second = nn.LSTM(20, 80, batch_first=True, bidirectional=True)
        self.third = nn.LSTM(160, 28, batch_first=True)
        self.hidden = nn.Linear(28, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Spectrograms ``(n, 32, frames)`` to logits ``(n, 10)``."""
        x, _ = self.first(torch.relu(self.embed(x.transpose(1, 2))))
        x, _ = self.second(torch.relu(self.narrow(x)))
        x, _ = self.third(x)
        logits: Tensor = self.head(torch.relu(self.hidden(x.mean(1))))
        return logits
