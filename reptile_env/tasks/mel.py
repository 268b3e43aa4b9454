"""Mel spectrograms (Davis and Mermelstein, IEEE TASSP 1980): power of short windows of sound in bands as the ear has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PART = 256  # sounds transformed at a time


@dataclass(frozen=True)
class Mel:
    """What a spectrogram is made of.

    Attributes:
        rate: samples a second.
        window: samples of the Hann window.
        transform: samples of the Fourier transform, at least `window`.
        hop: samples from one window to the next.
        bands: triangular filters, equally spaced on the mel scale from 0 Hz to half of `rate`.
    """

    rate: int
    window: int
    transform: int
    hop: int
    bands: int

    def filters(self) -> Tensor:
        """Weight of each frequency in each band, float32 ``(transform / 2 + 1, bands)`` in [0, 1]."""
        top = _mel(torch.tensor(self.rate / 2, dtype=torch.float64))
        edges = _hertz(torch.linspace(0, float(top), self.bands + 2, dtype=torch.float64))
        frequencies = torch.linspace(0, self.rate / 2, self.transform // 2 + 1, dtype=torch.float64)[:, None]
        rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
        return torch.minimum(rising, falling).clamp_min(0).float()

    def power(self, sounds: Tensor) -> Tensor:
        """Power of the bands, float32 ``(n, bands, samples // hop + 1)``, of sounds ``(n, samples)``, mirrored at both ends."""
        window, bands = torch.hann_window(self.window), self.filters().T
        parts = []
        for part in torch.split(sounds, _PART):
            spectrum = torch.stft(part, self.transform, self.hop, self.window, window, center=True, return_complex=True)
            parts.append(bands @ spectrum.abs().square())
        return torch.cat(parts)


def _mel(hertz: Tensor) -> Tensor:
    """O'Shaughnessy's formula (Speech Communication, 1987), as the HTK toolkit has it."""
    return 2595 * torch.log10(1 + hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
