"""A recurrent network on Japanese Vowels: who of nine men said /ae/, from 7 to 29 frames of 12 cepstrum coefficients.

Kudo, Toyama and Shimbo (Multidimensional curve classification using passing-through regions, Pattern Recognition Letters 1999), who
made the data (UCI; CC BY 4.0), report a test accuracy of .941, and .962 for hidden Markov models. Their 270 training utterances are
the train split; of their 370 test utterances every second is for validation, the others for test: .962 of both are recognised.
aeon's package holds the files.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

COEFFICIENTS, SPEAKERS = 12, 9
NOISE = 0.5  # added in training to frames of variance 1: 270 utterances are few
FILES = {"train": "JapaneseVowels_TRAIN.ts", "test": "JapaneseVowels_TEST.ts"}
_INSTALL = "vowels-rnn needs the data that aeon ships: pip install --no-deps aeon"


class VowelsRNN(nn.Module):
    """Two recurrent layers (Elman, 1990) with a bottleneck, the last one both ways; 9 logits from the mean of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(COEFFICIENTS, affine=False)
        self.embed = nn.Linear(COEFFICIENTS, 48)
        self.first = nn.RNN(48, 96, batch_first=True)
        self.narrow = nn.Linear(96, 20)
        self.last = nn.RNN(20, 64, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(128, 56)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(56, SPEAKERS)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Frames ``(n, longest, 12)``, zeros after the end, and lengths ``(n,)`` to logits ``(n, 9)``."""
        # Packed: no layer sees the padding, so that no refit does. Lengths have to be on the CPU, wherever the frames are.
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        frames = self.scale(packed.data)
        if self.training:
            frames = frames + NOISE * torch.randn_like(frames)
        packed, _ = self.first(_each(packed, torch.relu(self.embed(frames))))
        packed, _ = self.last(_each(packed, torch.relu(self.narrow(packed.data))))
        outputs, _ = pad_packed_sequence(packed, batch_first=True)
        logits: Tensor = self.head(self.drop(torch.relu(self.hidden(outputs.sum(1) / lengths[:, None]))))
        return logits


RECIPES = {"vowels-rnn": Recipe("rnn", VowelsRNN, 0.93, {"epochs": 60, "lr": 3e-3, "batch_size": 32})}


def splits() -> tuple[Split, Split, Split]:
    """Train, valid and test: 270 / 185 / 185 utterances, as `utterances` gives them.

    Raises:
        ImportError: aeon is not installed, or its package holds no such files.
        ValueError: a file of another form.
    """
    folder = data_folder()
    train, test = (utterances(folder / name) for name in FILES.values())
    return train, test[0::2], test[1::2]


def utterances(path: Path) -> Split:
    """The utterances of a ``.ts`` file: frames float32 ``(n, longest, 12)``, lengths int64 ``(n,)``; targets int64 in 0-8.

    An utterance is a line: coefficients divided by ``:``, the values of each over time by ``,``, and last the speaker, from 1.

    Raises:
        ValueError: a line of another form, or none; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}; install aeon again") from error
    started, frames, targets = False, [], []
    for number, line in enumerate(lines, 1):
        if started and line.strip():
            series, speaker = _utterance(line, f"{path}, line {number}")
            frames.append(series)
            targets.append(speaker)
        started = started or line.strip().lower() == "@data"
    if not frames:
        raise ValueError(f"{path}: no utterance after a line '@data'; install aeon again")
    lengths = torch.tensor([len(series) for series in frames])
    return Split((pad_sequence(frames, batch_first=True), lengths), torch.tensor(targets))


def data_folder() -> Path:
    """Where aeon's package keeps the data; the package is not imported, since what it asks for may be missing.

    Raises:
        ImportError: it is not installed, or holds no such files.
    """
    spec = importlib.util.find_spec("aeon")
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "datasets" / "data" / "JapaneseVowels"
        if all((folder / name).is_file() for name in FILES.values()):
            return folder
    raise ImportError(_INSTALL)


def is_installed() -> bool:
    """Whether the data is there."""
    try:
        data_folder()
    except ImportError:
        return False
    return True


def network(name: str) -> nn.Module:
    """The untrained network; the global generator is left as it was."""
    return RECIPES[name].untrained()


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train the network as its recipe says; `progress` is told the fraction done."""
    return RECIPES[name].trained(splits()[0], progress)


def task(name: str) -> Task:
    """The trained network with its data.

    Raises:
        ImportError: see `data_folder`.
    """
    return RECIPES[name].task(name, splits())


def _each(packed: PackedSequence, data: Tensor) -> PackedSequence:
    """The same sequences with other frames."""
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def _utterance(line: str, where: str) -> tuple[Tensor, int]:
    *channels, label = line.strip().split(":")
    if len(channels) != COEFFICIENTS:
        raise ValueError(f"{where}: {COEFFICIENTS} coefficients and a speaker are expected, got {len(channels)} coefficients")
    if label not in {str(speaker + 1) for speaker in range(SPEAKERS)}:
        raise ValueError(f"{where}: the speaker must be 1 to {SPEAKERS}, got {label!r:.40}")
    try:
        values = [[float(value) for value in channel.split(",")] for channel in channels]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if len({len(channel) for channel in values}) > 1:
        raise ValueError(f"{where}: the coefficients have different numbers of frames")
    if not all(math.isfinite(value) for channel in values for value in channel):
        raise ValueError(f"{where}: a value is NaN or infinite")
    return torch.tensor(values).T, int(label) - 1
