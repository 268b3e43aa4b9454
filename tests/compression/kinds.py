"""Networks of every kind, with the groups that are to be found in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad, relu
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from reptile_env.tasks.splits import Split


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(14, 10, 1)
        self.norm, self.d, self.head = nn.BatchNorm2d(14), nn.Conv2d(24, 12, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = relu(self.a(x))
        ab = torch.cat([a, relu(self.b(a))], 1)
        c = relu(self.c(relu(self.norm(ab))))
        return self.head(relu(self.d(torch.cat([ab, c], 1))).mean((2, 3)))


class OptionA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(16, 5)
        self.b1, self.b2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.a(x))
        x = relu(self.b2(relu(self.b1(x))) + pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(x.mean((2, 3)))


class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 5, padding=2), nn.Conv1d(8, 12, 3, padding=1)
        self.hidden, self.head = nn.Linear(120, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool1d(relu(self.b(max_pool1d(relu(self.a(x)), 2))), 2)
        return self.head(relu(self.hidden(x.flatten(1))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.c, self.wide, self.head = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 24, 3, groups=12), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(relu(self.wide(relu(self.c(relu(self.b(relu(self.a(x)))))))).mean((2, 3)))


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.image, self.norm = nn.Linear(16, 12 * 16), nn.Unflatten(1, (12, 4, 4)), nn.BatchNorm2d(12)
        self.a, self.norm_a = nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8)
        self.b = nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = relu(self.norm(self.image(self.start(z))))
        return torch.tanh(self.b(relu(self.norm_a(self.a(x))))).flatten(1)


class Autoencoder(nn.Module):
    """A VAE that returns its reconstruction and its divergence, so that its latent bottleneck is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.mean, self.log_variance = nn.Linear(16, 40), nn.Linear(40, 6), nn.Linear(40, 6)
        self.decoder, self.out = nn.Linear(6, 30), nn.Linear(30, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = relu(self.encoder(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return torch.sigmoid(self.out(relu(self.decoder(mean)))), divergence


class Recurrent(nn.Module):
    def __init__(self, kind: Any, layers: int, both: bool, batch_first: bool, final: bool) -> None:
        super().__init__()
        self.recurrent = kind(4, 12, layers, batch_first=batch_first, bidirectional=both)
        self.head = nn.Linear(12 * (1 + both), 5)
        self.both, self.batch_first, self.final = both, batch_first, final

    def forward(self, x: Tensor) -> Tensor:
        sequence, state = self.recurrent(x if self.batch_first else x.transpose(0, 1))
        if self.final:
            state = state[0] if isinstance(state, tuple) else state
            return self.head(torch.cat([state[-2], state[-1]], -1) if self.both else state[-1])
        return self.head(sequence.mean(1 if self.batch_first else 0))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(4, 10, 2, batch_first=True, bidirectional=True), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        lengths = 2 + (100 * x.abs().sum((1, 2))).long() % 6
        packed, _ = self.recurrent(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return self.head(pad_packed_sequence(packed, batch_first=True)[0].mean(1))


class Encoder(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
        self.embed, self.head = nn.Linear(4, 16), nn.Linear(16, 5)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


IMAGE, SIGNAL, VECTOR, SEQUENCE = (3, 8, 8), (1, 40), (16,), (7, 4)
# name -> (network, shape of an input, groups and their sizes)
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "concatenating": (DenseNet, IMAGE, {"a": 8, "b": 6, "c": 10, "d": 12}),
    "option A": (OptionA, IMAGE, {"a": 8, "b1": 16}),
    "1-d": (Conv1d, SIGNAL, {"a": 8, "b": 12, "hidden": 20}),
    "grouped": (Grouped, IMAGE, {"a": 4, "b": 4, "c": 12}),
    "generator": (Generator, VECTOR, {"start": 12, "a": 8}),
    "autoencoder": (Autoencoder, VECTOR, {"encoder": 40, "mean": 6, "decoder": 30}),
    "lstm": (lambda: Recurrent(nn.LSTM, 2, False, True, False), SEQUENCE, {"recurrent.layers.0": 12, "recurrent.layers.1": 12}),
    "lstm both ways": (
        lambda: Recurrent(nn.LSTM, 2, True, True, True),
        SEQUENCE,
        {"recurrent.layers.0": 12, "recurrent.layers.1": 12},
    ),
    "gru": (lambda: Recurrent(nn.GRU, 1, False, True, True), SEQUENCE, {"recurrent": 12}),
    "rnn time first": (
        lambda: Recurrent(nn.RNN, 3, True, False, False),
        SEQUENCE,
        {f"recurrent.layers.{i}": 12 for i in range(3)},
    ),
    "packed": (Packed, SEQUENCE, {"recurrent.layers.0": 10, "recurrent.layers.1": 10}),
    "transformer": (
        lambda: Encoder(False),
        SEQUENCE,
        {f"encoder.layers.{i}.{part}": size for i in range(2) for part, size in (("self_attn", 4), ("linear1", 32))},
    ),
    "transformer norm first": (
        lambda: Encoder(True),
        SEQUENCE,
        {f"encoder.layers.{i}.{part}": size for i in range(2) for part, size in (("self_attn", 4), ("linear1", 32))},
    ),
}


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def made(name: str) -> tuple[nn.Module, Split, dict[str, int]]:
    build, shape, sizes = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build().eval().requires_grad_(False)
        inputs = torch.randn(12, *shape)
        return model, Split(inputs, first(model(inputs)).argmax(1)), sizes
