"""BC-ResNet (Kim et al., Broadcasted Residual Learning, Interspeech 2021, arXiv:2106.04140) on spoken digits.

The published network of scale 2 knows the 35 words of Speech Commands (Warden, 2018) at 16 kHz, with a test accuracy of .960 as its
publisher reports (.987 is the paper's largest network on its 12 words). Here it tells ten of them apart, the digits, in recordings
that it was not trained on (see `reptile_env.tasks.speech`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from reptile_env.tasks.download import needed
from reptile_env.tasks.mel import Mel
from reptile_env.tasks.published import fill, read_safetensors
from reptile_env.tasks.speech import splits
from reptile_env.tasks.task import Task

CHECKPOINT = "speech_commands_bcresnet2.safetensors"
# fmt: off
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go",
    "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven",
    "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)
# fmt: on
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MEL = Mel(rate=16_000, window=1024, transform=1024, hop=512, bands=40)
QUIET = 1e-9  # added to powers before their logarithm, as the network was trained
SUB_BANDS = 5
W = 0.5


class SubSpectralNorm(nn.Module):
    """Batch norm of each channel and each fifth of the frequencies by itself (Chang et al., ICASSP 2021, arXiv:2103.13620)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels * SUB_BANDS)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, frequencies, frames)``, frequencies a multiple of 5, to the same shape."""
        apart = torch.unflatten(x, 2, (SUB_BANDS, -1)).flatten(1, 2)
        return torch.unflatten(self.bn(apart), 1, (-1, SUB_BANDS)).flatten(2, 3)


def _frequencies(channels: int, stride: int = 1) -> list[nn.Module]:
    """Depthwise convolution over three frequencies, and its norm."""
    conv = nn.Conv2d(channels, channels, (3, 1), (stride, 1), (1, 0), groups=channels)
    return [conv, SubSpectralNorm(channels)]


def _frames(channels: int, dilation: int) -> nn.Sequential:
    """Depthwise convolution over three frames, and one over channels."""
    conv = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=channels)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.SiLU(), nn.Conv2d(channels, channels, 1), nn.Dropout2d(0.1))


class NormalBlock(nn.Module):
    """The identity, a convolution over frequencies, and one over frames of its mean, spread over all frequencies again."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.f2 = nn.Sequential(*_frequencies(channels))
        self.f1 = _frames(channels, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, frequencies, frames)`` to the same shape."""
        inner = self.f2(x)
        return torch.relu(x + inner + self.f1(inner.mean(2, keepdim=True)))


class TransitionBlock(nn.Module):
    """As `NormalBlock`, without the identity, to another number of channels and `stride` times fewer frequencies."""

    def __init__(self, inputs: int, outputs: int, dilation: int, stride: int) -> None:
        super().__init__()
        mix = [nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.f2 = nn.Sequential(*mix, *_frequencies(outputs, stride))
        self.f1 = _frames(outputs, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, frequencies, frames)`` to ``(n, outputs, frequencies / stride, frames)``."""
        inner = self.f2(x)
        return torch.relu(inner + self.f1(inner.mean(2, keepdim=True)))


class BCResNet(nn.Module):
    """Four stages of blocks, named as in the published checkpoint.

    Args:
        words: that are told apart.
        scale: of all widths; 2 is the published network.
    """

    def __init__(self, words: int = len(WORDS), scale: int = 2) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(1, 16 * scale, 5, (2, 1), 2)
        inputs, self._order = 16 * scale, []
        for stage, (width, normal) in enumerate(((8, 1), (12, 1), (16, 3), (20, 3)), 1):
            outputs, dilation = width * scale, 2 ** (stage - 1)
            made: dict[str, nn.Module] = {f"t{stage}": TransitionBlock(inputs, outputs, dilation, 2 if stage in (2, 3) else 1)}
            made |= {f"n{stage}{index}": NormalBlock(outputs, dilation) for index in range(1, normal + 1)}
            for name, block in made.items():
                self.add_module(name, block)
                self._order.append(name)
            inputs = outputs
        # 20 groups at every scale: the published weights have it so, where the paper has as many as channels.
        self.dw_conv = nn.Conv2d(inputs, inputs, 5, groups=20)
        self.onexone_conv = nn.Conv2d(inputs, 32 * scale, 1)
        self.head_conv = nn.Conv2d(32 * scale, words, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Log2-mel spectrograms ``(n, 1, 40, frames)``, 5 frames or more, to logits ``(n, words)``."""
        x = self.input_conv(x)
        for name in self._order:
            x = self.get_submodule(name)(x)
        x = self.onexone_conv(self.dw_conv(x))
        logits: Tensor = self.head_conv(x.mean(3, keepdim=True))
        return logits.flatten(1)


def published(path: Path | None = None) -> BCResNet:
    """The published network for 35 words; the global generator is left as it was.

    Args:
        path: of its tensors; None: ``checkpoints`` in the data folder.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: the file is damaged, or holds other tensors.
    """
    if path is None:
        path = needed("checkpoints", CHECKPOINT, "model-sc-2.pt of github.com/re9ulus/BC-ResNet (MIT), as safetensors")
    with torch.random.fork_rng(devices=[]):
        network = BCResNet()
    fill(network, read_safetensors(path), path)
    return network


def for_digits(network: BCResNet) -> BCResNet:
    """The network with the ten digits' logits in their order alone; it is changed in place."""
    rows = torch.tensor([WORDS.index(digit) for digit in DIGITS])
    head, whole = nn.Conv2d(network.head_conv.in_channels, len(DIGITS), 1, device="meta"), network.head_conv.state_dict()
    head.load_state_dict({name: tensor[rows] for name, tensor in whole.items()}, assign=True)
    network.head_conv = head
    return network


def log2_mel(sounds: Tensor) -> Tensor:
    """Log2-mel spectrograms ``(n, 1, 40, 32)`` of sounds ``(n, 16000)``."""
    return torch.log2(MEL.power(sounds) + QUIET)[:, None]


def task(name: str) -> Task:
    """The published network on spoken digits.

    Raises:
        FileNotFoundError: see `published`.
        ConnectionError, OSError, ValueError: see `published` and `speech.splits`.
    """
    return Task(for_digits(published()), *splits(log2_mel, MEL.rate), name=name, family="cnn", w=W)
