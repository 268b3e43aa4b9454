"""Classifiers of signals of 40 samples: convolutional, recurrent and a Transformer, of unequal widths and resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LENGTH, CLASSES = 40, 10


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """1-d convolution, batch norm and ReLU; zeros around, so that a stride of 1 keeps the length."""
    layer = nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm1d(outputs), nn.ReLU())


class SignalCNN(nn.Module):
    """Convolutions of unequal widths and kernels at 20 and 10 samples; 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        first = [conv(1, 20, 7, stride=2), conv(20, 80, 3), conv(80, 12, 3), nn.MaxPool1d(2)]
        second = [conv(12, 96, 3), conv(96, 24, 3), nn.MaxPool1d(2)]
        self.layers = nn.Sequential(*first, *second)
        self.hidden = nn.Linear(24 * 5, 64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Signals ``(n, 1, 40)`` to logits ``(n, 10)``."""
        logits: Tensor = self.head(torch.relu(self.hidden(self.layers(x).flatten(1))))
        return logits


class SignalLSTM(nn.Module):
    """Two strided convolutions, then three LSTM layers with a bottleneck over 10 steps; 10 logits from the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(conv(1, 16, 5, stride=2), conv(16, 40, 3, stride=2))
        self.first = nn.LSTM(40, 64, batch_first=True)
        self.narrow = nn.LSTM(64, 16, batch_first=True)
        self.last = nn.LSTM(16, 48, batch_first=True)
        self.hidden = nn.Linear(48, 40)
        self.head = nn.Linear(40, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Signals ``(n, 1, 40)`` to logits ``(n, 10)``."""
        x = self.front(x).transpose(1, 2)
        for layer in (self.first, self.narrow, self.last):
            x, _ = layer(x)
        logits: Tensor = self.head(torch.relu(self.hidden(x[:, -1])))
        return logits


class SignalGRU(nn.Module):
    """A strided convolution, a GRU both ways over 10 steps, a narrow layer, a wide GRU; 10 logits from the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(conv(1, 32, 7, stride=2), nn.MaxPool1d(2))
        self.both = nn.GRU(32, 40, batch_first=True, bidirectional=True)
        self.narrow = nn.Linear(80, 20)
        self.last = nn.GRU(20, 72, batch_first=True)
        self.hidden = nn.Linear(72, 48)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Signals ``(n, 1, 40)`` to logits ``(n, 10)``."""
        x, _ = self.both(self.front(x).transpose(1, 2))
        x, _ = self.last(torch.relu(self.narrow(x)))
        logits: Tensor = self.head(torch.relu(self.hidden(x[:, -1])))
        return logits


class SignalTransformer(nn.Module):
    """Patches of a convolution, then encoder layers of unequal heads and widths (Vaswani et al., NeurIPS 2017); 10 logits."""

    WIDTH, TOKENS = 32, LENGTH // 4

    def __init__(self) -> None:
        super().__init__()
        self.front = conv(1, 40, 5, stride=2)
        self.patches = nn.Conv1d(40, self.WIDTH, 2, 2)
        self.places = nn.Embedding(self.TOKENS, self.WIDTH)
        shapes = ((8, 96), (4, 16), (8, 128))  # heads and hidden units
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(self.WIDTH, heads, hidden, dropout=0.1, batch_first=True, norm_first=True)
                for heads, hidden in shapes
            )
        )
        self.norm = nn.LayerNorm(self.WIDTH)
        self.head = nn.Linear(self.WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Signals ``(n, 1, 40)`` to logits ``(n, 10)``."""
        x = self.patches(self.front(x)).transpose(1, 2)
        x = self.layers(x + self.places(torch.arange(self.TOKENS, device=x.device)))
        logits: Tensor = self.head(self.norm(x.mean(1)))
        return logits
