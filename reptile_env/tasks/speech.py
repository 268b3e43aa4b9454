"""Spoken digits: the Free Spoken Digit Dataset 1.0.10 (Jackson et al.; CC BY-SA 4.0), 3,000 recordings of six speakers at 8 kHz.

The first five takes of every speaker and digit are the test split, as the authors ask for, the next five are for validation, and
forty for training: 2,400 / 300 / 300 recordings of the same voices in all three. Both networks reach a test accuracy of .997;
reported for a convolutional network: .993 (Ahmed, GLaSS-CNN, Engineering Research Express 2025).
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample
from torch import Tensor, nn

from reptile_env.tasks.download import Resource, fetch_folder
from reptile_env.tasks.mel import Mel
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.speech_networks import SpeechCNN, SpeechLSTM
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

VERSION = "1.0.10"
ARCHIVE = Resource(
    f"free-spoken-digit-dataset-{VERSION}.zip",
    f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v{VERSION}.zip",
    "c680098f5d2355ba7cc4bd8b0ca9e0a24c00ebe3b4c552208889a4d28d4fbc2b",
    "fsdd",
)
RATE = 8000  # samples a second
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = {"train": range(10, 50), "valid": range(5, 10), "test": range(5)}
MEL = Mel(rate=RATE, window=200, transform=256, hop=160, bands=32)  # windows of 25 ms, a new one every 20 ms
QUIET = 1e-6  # added to powers before their logarithm: about the noise of 16 bits

Features = Callable[[Tensor], Tensor]


def read_wav(path: Path) -> NDArray[np.float32]:
    """Samples in [-1, 1) of a recording: mono, 16 bits, 8 kHz.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, or a file that is damaged or shorter than its header says.
    """
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            frames = file.getnframes()
            data = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is damaged, or no PCM wav file: {str(error) or 'it ends too early'}; fetch it again") from error
    if form != (1, 16, RATE):
        raise ValueError(
            f"{path} has {form[0]} channels of {form[1]} bits at {form[2]:,} Hz; recordings have one of 16 bits at {RATE:,} Hz"
        )
    if not frames or len(data) != 2 * frames:
        raise ValueError(f"{path} is truncated: it holds {len(data) // 2:,} of {frames:,} samples; fetch it again")
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)


def recordings(folder: Path, rate: int = RATE) -> dict[str, tuple[Tensor, Tensor]]:
    """Of ``train``, ``valid`` and ``test`` the sounds, float32 ``(n, rate)``, and their digits, int64 ``(n,)``.

    A sound is a second long: of the 20 recordings that are longer the middle, silence around the others.

    Args:
        folder: of the recordings.
        rate: samples a second; where it is not that of the recordings they are resampled, keeping all their frequencies.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder holds other files than the 3,000 recordings or not all of them, or one of them is damaged.
    """
    _check_names(folder)
    splits = {}
    for name, takes in TAKES.items():
        asked = [(digit, speaker, take) for digit in range(10) for speaker in SPEAKERS for take in takes]
        sounds = np.stack([_fitted(_resampled(read_wav(folder / _file(*which)), rate), rate) for which in asked])
        splits[name] = torch.from_numpy(sounds), torch.tensor([digit for digit, _, _ in asked])
    return splits


def splits(features: Features, rate: int = RATE, folder: Path | None = None) -> tuple[Split, Split, Split]:
    """Train, valid and test: 2,400 / 300 / 300 recordings as `features` of their sounds, and their digits.

    Args:
        features: makes the inputs of a network from sounds ``(n, rate)``.
        rate: samples a second.
        folder: of the recordings; None: ``fsdd/recordings`` in the data folder, downloaded where it is missing.

    Raises:
        ConnectionError, OSError: see `download.fetch`.
        FileNotFoundError, ValueError: see `recordings`.
    """
    if folder is None:
        folder = fetch_folder(ARCHIVE, "fsdd/recordings", f"free-spoken-digit-dataset-{VERSION}/recordings")
    made = {name: Split(features(sounds), digits) for name, (sounds, digits) in recordings(folder, rate).items()}
    return made["train"], made["valid"], made["test"]


def log_mel(sounds: Tensor) -> Tensor:
    """Log-mel spectrograms ``(n, 32, 51)`` of sounds ``(n, 8000)``, about -14 to 8."""
    return torch.log(MEL.power(sounds) + QUIET)


def _standardised(parts: tuple[Split, Split, Split]) -> tuple[Split, Split, Split]:
    """Spectrograms with mean 0 and deviation 1 in every band of the training split."""
    known = parts[0].inputs
    assert isinstance(known, Tensor)
    mean, deviation = known.mean((0, 2), keepdim=True), known.std((0, 2), keepdim=True)

    def scaled(part: Split) -> Split:
        assert isinstance(part.inputs, Tensor)
        return Split((part.inputs - mean) / deviation, part.targets)

    train, valid, test = (scaled(part) for part in parts)
    return train, valid, test


def vary(spectrograms: Tensor, generator: torch.Generator) -> Tensor:
    """Spectrograms ``(n, bands, frames)``, each moved by up to 4 frames, and up to 6 bands and 6 frames of it set to the mean, 0.

    As SpecAugment (Park et al., Interspeech 2019), for sounds of a second.
    """
    count, bands, frames = spectrograms.shape
    shift = torch.randint(-4, 5, (count, 1), generator=generator)
    places = (torch.arange(frames) - shift) % frames
    moved = spectrograms.gather(2, places[:, None].expand(-1, bands, -1))
    masked = [_stretch(count, length, 6, generator) for length in (bands, frames)]
    return moved.masked_fill(masked[0][:, :, None] | masked[1][:, None], 0)


def _stretch(count: int, length: int, most: int, generator: torch.Generator) -> Tensor:
    """For each of `count` a stretch of up to `most` consecutive places, bool ``(count, length)``."""
    wide = torch.randint(0, most + 1, (count, 1), generator=generator)
    start = (torch.rand(count, 1, generator=generator) * (length - wide + 1)).long()
    places = torch.arange(length)
    return (places >= start) & (places < start + wide)


def _file(digit: int, speaker: str, take: int) -> str:
    return f"{digit}_{speaker}_{take}.wav"


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; put the recordings of the Free Spoken Digit Dataset {VERSION} there")
    takes = sorted(take for part in TAKES.values() for take in part)
    expected = {_file(digit, speaker, take) for digit in range(10) for speaker in SPEAKERS for take in takes}
    found = {path.name for path in folder.iterdir()}
    if foreign := sorted(found - expected):
        raise ValueError(
            f"{folder} holds {foreign[0]!r}, which is no recording: those are named digit_speaker_take.wav, with a digit from 0 "
            f"to 9, a take from 0 to {takes[-1]} and a speaker out of {', '.join(SPEAKERS)}. Move what is not theirs elsewhere"
        )
    if missing := sorted(expected - found):
        raise ValueError(
            f"{folder} lacks {len(missing):,} of {len(expected):,} recordings, {missing[0]} for one; remove the folder and fetch "
            f"version {VERSION} again: {ARCHIVE.url}"
        )


def _resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The same sound at another rate, by its Fourier transform."""
    return samples if rate == RATE else resample(samples, len(samples) * rate // RATE).astype(np.float32)


def _fitted(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """As many samples as `length`, those of the recording in the middle."""
    spare = length - len(samples)
    if spare <= 0:
        return samples[-spare // 2 :][:length]
    return np.pad(samples, (spare // 2, spare - spare // 2))


RECIPES = {
    "fsdd-cnn": Recipe("cnn", SpeechCNN, 0.85, {"epochs": 40, "lr": 4e-3, "augment": vary}),
    "fsdd-lstm": Recipe("lstm", SpeechLSTM, 0.75, {"epochs": 80, "lr": 5e-3, "augment": vary}),
}


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train a network as its recipe says; `progress` is told the fraction done."""
    return RECIPES[name].trained(_standardised(splits(log_mel))[0], progress)


def task(name: str) -> Task:
    """A trained network with its data; see `splits` for what is raised."""
    return RECIPES[name].task(name, _standardised(splits(log_mel)))
