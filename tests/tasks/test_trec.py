"""Questions: their files, their words, and the Transformer that is trained on them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reptile_env.tasks import download, trec
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from reptile_env.tasks.text import by_length, disjoint
from tests.helpers import episode, generator_states, make

FOLDER = Path(os.environ.get("REPTILE_DATA", "data")) / "trec"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs TREC's questions in $REPTILE_DATA/trec")


def test_both_kinds_of_labels_are_read(tmp_path: Path) -> None:
    named, numbered = tmp_path / "train_5500.label", tmp_path / "TREC.train.all"
    named.write_bytes(b"DESC:manner How did serfdom develop ?\nNUM:date When was 1984 ?\nLOC:city Which sister\xf0city ?\n")
    numbered.write_bytes(b"0 How did serfdom develop ?\n5 When was 1984 ?\n4 Which sister\xf0city ?\n")
    read = trec.read_questions(named)
    assert read == trec.read_questions(numbered)
    assert read[0] == (0, ["how", "did", "serfdom", "develop", "?"])
    assert read[1] == (5, ["when", "was", "0000", "?"])
    assert read[2] == (4, ["which", "sister\xf0city", "?"])


@pytest.mark.parametrize(
    "line", ["6 What ?", "DESC: What ?", "desc:def What ?", "DESC:def", "0 ", "0", "", "What ?", "0  What ?", "WHAT:ever is ?"]
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "TREC.test.all"
    path.write_text(f"0 What is an atom ?\n{line}\n3 Who was Galileo ?\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"TREC\.test\.all, line 2: a line is a label, DESC, .* and a question; got"):
        trec.read_questions(path)


def test_missing_and_shortened_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds neither train_5500\.label nor TREC\.train\.all; get it from https://cogcomp"
    ):
        trec.splits(tmp_path)
    (tmp_path / "train_5500.label").write_text("DESC:def What is an atom ?\n", encoding="latin-1")
    with pytest.raises(FileNotFoundError, match=r"holds neither TREC_10\.label nor"):
        trec.splits(tmp_path)
    (tmp_path / "TREC_10.label").write_text("DESC:def What is an atom ?\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"train_5500\.label holds 1 questions, not 5,452"):
        trec.splits(tmp_path)
    (tmp_path / "TREC_10.label").write_bytes(b"")
    with pytest.raises(ValueError, match=r"TREC_10\.label, line 1"):
        trec.splits(tmp_path)


def test_an_empty_data_folder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    nowhere = {part: replace(file, url=f"http://127.0.0.1:9/{file.name}") for part, file in trec.OFFICIAL.items()}
    monkeypatch.setattr(trec, "OFFICIAL", nowhere)
    with pytest.raises(ConnectionError, match=rf"put it at {tmp_path}/trec/train_5500\.label"):
        trec.task("trec-transformer")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of 60 and 20 questions, other files among them."""
    monkeypatch.setattr(trec, "QUESTIONS", {"train": 60, "test": 20})
    monkeypatch.setattr(trec, "VALID", 12)
    (tmp_path / "README").write_text("foreign")
    (tmp_path / "TREC.train.all.orig").mkdir()
    for part, start, count in (("train", 0, 60), ("test", 60, 20)):
        lines = [f"{row % 6} What is {'abcdefghij'[row % 10]} {'klmnopqrst'[row // 10]} ?\n" for row in range(start, start + count)]
        (tmp_path / trec.NUMBERED[part]).write_text("".join(lines), encoding="latin-1")
    return tmp_path


def test_the_order_of_the_training_file_does_not_matter(small: Path) -> None:
    before, words = trec.splits(small)
    assert [len(part) for part in before] == [48, 12, 20]
    path = small / trec.NUMBERED["train"]
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after, again = trec.splits(small)
    assert again == words
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.inputs, other.inputs)  # type: ignore[arg-type]
        assert torch.equal(one.targets, other.targets)


def test_other_questions_than_those_the_network_knows_are_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trec, "data_folder", lambda: small.parent)
    small.rename(small.parent / "trec")
    with pytest.raises(ValueError, match=r"the training questions have \d+ words, not 3,\d+: they are other ones"):
        trec.task("trec-transformer")


def test_words_that_occur_once_are_unknown() -> None:
    assert trec.vocabulary([["b", "a", "c"], ["b", "c", "b", "d"]]) == {"b": 3, "c": 4}


def test_a_later_split_keeps_what_two_have() -> None:
    rows = {"train": [1, 2, 3, 4], "valid": [4, 5], "test": [5, 1]}
    parts = disjoint({name: Split(torch.tensor(values)[:, None], torch.tensor(values)) for name, values in rows.items()})
    assert {name: part.targets.tolist() for name, part in parts.items()} == {"train": [2, 3], "valid": [4], "test": [5, 1]}


def test_sorting_by_length_starts_in_the_middle() -> None:
    lengths = torch.tensor([5, 1, 4, 2, 3])
    assert by_length(Split(lengths[:, None], lengths), lengths).targets.tolist() == [3, 4, 5, 1, 2]


def test_padding_changes_nothing() -> None:
    model = trec.QuestionTransformer(50).eval()
    short = torch.zeros(3, trec.LONGEST, dtype=torch.long)
    short[0, :4], short[1, :7], short[2, :9] = 5, torch.arange(2, 9), torch.arange(20, 29)
    with torch.no_grad():
        together = model(short)
        alone = torch.cat([model(short[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_words_are_forgotten_by_a_seed_alone() -> None:
    numbers = torch.randint(3, 50, (500, trec.LONGEST))
    numbers[:, 0] = trec.START
    numbers[:, 20:] = trec.PADDING
    before = generator_states()
    first, again = (trec.forget_words(numbers, torch.Generator().manual_seed(3)) for _ in range(2))
    assert generator_states() == before
    assert torch.equal(first, again)
    changed = first != numbers
    assert (first[changed] == trec.UNKNOWN).all()
    assert not changed[:, 20:].any()
    assert not changed[:, 0].any()
    assert changed[:, 1:20].double().mean() == pytest.approx(0.1, abs=0.01)


@needs_data
def test_splits_are_apart() -> None:
    parts, words = trec.splits()
    prints = [part.fingerprints() for part in parts]
    assert len(set().union(*prints)) == sum(map(len, prints))
    assert len(parts[2]) == 500
    assert max(int(part.inputs.max()) for part in parts) < words  # type: ignore[union-attr]
    assert parts[0].inputs.max() == words - 1  # type: ignore[union-attr]


@needs_data
def test_the_network_is_trained() -> None:
    task = make_task("trec-transformer")
    train, valid, test = (task.score(task.outputs(task.model, s), s)[0] for s in (task.train, task.valid, task.test_split()))
    assert train > 0.95
    assert min(valid, test) > 0.8


@needs_data
def test_heads_and_hidden_units_are_cut() -> None:
    env = make("trec-transformer", measure="round")
    sizes = dict(zip(env.groups, env.evaluator.sizes, strict=True))
    expected = {}
    for index, (heads, inner) in enumerate(((8, 256), (4, 48), (8, 128))):
        expected |= {f"encoder.layers.{index}.self_attn": heads, f"encoder.layers.{index}.linear1": inner}
    assert sizes == expected | {"hidden": 96}
    total, info = episode(env, env.reference.uniform_rate)
    assert total == pytest.approx(1)
    assert info["params"] < env.reference.dense.params
