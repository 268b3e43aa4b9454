"""Questions by what they ask for: TREC's (Li and Roth, COLING 2002), 5,452 for training and 500 for tests, in six classes.

The network is a Transformer (Vaswani et al., NeurIPS 2017) that knows the words of the training questions alone. It reaches a test
accuracy of .884; reported for networks without words learned elsewhere: .912 (convolutions, Kim, EMNLP 2014).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.download import Resource, data_folder, fetch
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.text import by_length, disjoint

CLASSES = ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM")  # description, entity, abbreviation, human, location, number
_ADDRESS = "https://cogcomp.seas.upenn.edu/Data/QA/QC"
OFFICIAL = {
    "train": Resource(
        "train_5500.label",
        f"{_ADDRESS}/train_5500.label",
        "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
        "trec",
    ),
    "test": Resource(
        "TREC_10.label", f"{_ADDRESS}/TREC_10.label", "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e", "trec"
    ),
}
NUMBERED = {"train": "TREC.train.all", "test": "TREC.test.all"}  # the same questions, with numbers for classes
QUESTIONS = {"train": 5452, "test": 500}
VALID = 452  # of the training questions
LONGEST = 40  # words, the mark of the start among them; no question has more
PADDING, UNKNOWN, START = 0, 1, 2
RARE = 2  # words that occur less often are unknown

_LINE = re.compile(rf"(?:([0-{len(CLASSES) - 1}])|({'|'.join(CLASSES)})(?::[a-z]+)?) (\S.*)")


def read_questions(path: Path) -> list[tuple[int, list[str]]]:
    """Class, 0 to 5, and words of every question of a file: ``label text`` a line, latin-1.

    A label is a number or ``COARSE:fine``, as in ``DESC:manner``; the words are in lower case, digits are 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line of another form, or no line.
    """
    questions = []
    for number, line in enumerate(path.read_text(encoding="latin-1").rstrip("\n").split("\n"), 1):
        parts = _LINE.fullmatch(line.rstrip("\r"))
        if parts is None:
            raise ValueError(
                f"{path}, line {number}: a line is a label, {', '.join(CLASSES)} or a number from 0 to {len(CLASSES) - 1}, and a "
                f"question; got {line[:60]!r}"
            )
        digit, coarse, text = parts.groups()
        words = re.sub(r"\d", "0", text.lower()).split()
        questions.append((int(digit) if digit else CLASSES.index(coarse), words))
    return questions


def vocabulary(questions: Sequence[Sequence[str]]) -> dict[str, int]:
    """Numbers, from 3 on, of the words that occur at least twice: the most frequent first, equally frequent ones by alphabet."""
    counts = Counter(word for words in questions for word in words)
    known = sorted((word for word, count in counts.items() if count >= RARE), key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(known, START + 1)}


def splits(folder: Path | None = None) -> tuple[tuple[Split, Split, Split], int]:
    """Train, valid and test, and how many numbers words have.

    Inputs are the numbers of words behind that of the start, int64 ``(n, LONGEST)``, padded by zeros. Questions that occur in two
    splits are in the later one alone: 4,785 / 433 / 500 are left.

    Args:
        folder: of the questions; None: ``trec`` in the data folder, downloaded where they are missing.

    Raises:
        ConnectionError, OSError: see `download.fetch`.
        FileNotFoundError: a file is not in `folder`.
        ValueError: see `read_questions`; or a file that is not whole.
    """
    paths = {part: _path(part, folder) for part in OFFICIAL}
    read = {part: read_questions(path) for part, path in paths.items()}
    for part, questions in read.items():
        if len(questions) != QUESTIONS[part]:
            found = f"{paths[part]} holds {len(questions):,} questions"
            raise ValueError(f"{found}, not {QUESTIONS[part]:,}; remove it and fetch it again")
    # By alphabet first: files with the same questions in another order give the same splits, and so the same words.
    questions = sorted(read["train"], key=lambda question: (question[1], question[0]))
    order = np.random.default_rng(0).permutation(len(questions)).tolist()
    parts = {
        "train": [questions[row] for row in order[VALID:]],
        "valid": [questions[row] for row in order[:VALID]],
        "test": read["test"],
    }
    numbers = vocabulary([words for _, words in parts["train"]])
    apart = disjoint({name: _split(questions, numbers) for name, questions in parts.items()})
    return (apart["train"], apart["valid"], apart["test"]), len(numbers) + START + 1


def _path(part: str, folder: Path | None) -> Path:
    where = folder or data_folder() / "trec"
    found = [path for name in (NUMBERED[part], OFFICIAL[part].name) if (path := where / name).is_file()]
    if found:
        return found[0]
    if folder is None:
        return fetch(OFFICIAL[part])
    raise FileNotFoundError(f"{folder} holds neither {OFFICIAL[part].name} nor {NUMBERED[part]}; get it from {OFFICIAL[part].url}")


def _split(questions: Sequence[tuple[int, list[str]]], numbers: dict[str, int]) -> Split:
    inputs = torch.full((len(questions), LONGEST), PADDING)
    for row, (_, words) in enumerate(questions):
        known = [START, *(numbers.get(word, UNKNOWN) for word in words)][:LONGEST]
        inputs[row, : len(known)] = torch.tensor(known)
    split = Split(inputs, torch.tensor([label for label, _ in questions]))
    return by_length(split, (inputs != PADDING).sum(1))


class QuestionTransformer(nn.Module):
    """Word and place vectors, three encoder layers of unequal widths, a hidden layer on what they make of the start; 6 logits.

    Args:
        words: numbers that words have.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        width = 64
        self.words = nn.Embedding(words, width, padding_idx=PADDING)
        self.places = nn.Embedding(LONGEST, width)
        self.drop = nn.Dropout(0.3)
        layers = [
            nn.TransformerEncoderLayer(width, heads, inner, dropout=0.3, batch_first=True)
            for heads, inner in ((8, 256), (4, 48), (8, 128))
        ]
        self.encoder = nn.TransformerEncoder(layers[0], 1, enable_nested_tensor=False)
        self.encoder.layers, self.encoder.num_layers = nn.ModuleList(layers), len(layers)
        self.hidden = nn.Linear(width, 96)
        self.head = nn.Linear(96, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of words ``(n, LONGEST)`` to logits ``(n, 6)``."""
        real = x != PADDING
        if not torch.compiler.is_exporting():
            longest = int(real.sum(1).max())
            x, real = x[:, :longest], real[:, :longest]
        vectors = self.drop(self.words(x) + self.places.weight[: x.shape[1]])
        start = self.encoder(vectors, src_key_padding_mask=~real)[:, 0]
        logits: Tensor = self.head(self.drop(torch.relu(self.hidden(start))))
        return logits


def forget_words(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of words with one word in ten unknown."""
    forgotten = torch.rand(numbers.shape, generator=generator) < 0.1
    return numbers.masked_fill(forgotten & (numbers > START), UNKNOWN)


def _recipe(words: int) -> Recipe:
    training = {"epochs": 40, "lr": 2e-3, "weight_decay": 0.1, "augment": forget_words}
    return Recipe("transformer", lambda: QuestionTransformer(words), 0.93, training)


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train the network; `progress` is told the fraction done."""
    (train, _, _), words = splits()
    return _recipe(words).trained(train, progress)


def task(name: str) -> Task:
    """The trained network with its data.

    Raises:
        ConnectionError, OSError: see `splits`.
        ValueError: see `splits`; or training questions other than those that the network was trained on.
    """
    parts, words = splits()
    known = len(load_checkpoint(name)["words.weight"])
    if words != known:
        raise ValueError(f"the training questions have {words:,} words, not {known:,}: they are other ones; fetch them again")
    return _recipe(words).task(name, parts)
