"""The utterances of Japanese Vowels are read strictly, from aeon's package, and their padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from reptile_env.tasks import vowels
from reptile_env.tasks.vowels import VowelsRNN, utterances

HEAD = "@problemName X\n@univariate false\n@data\n"


def line(frames: int = 3, channels: int = 12, speaker: str = "2", value: str = "0.5") -> str:
    return ":".join([",".join([value] * frames)] * channels + [speaker])


def written(folder: Path, text: str) -> Path:
    path = folder / "some.ts"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    first = ":".join(f"{c},{c + 0.25}" for c in range(12)) + ":9"
    split = utterances(written(tmp_path, HEAD + first + "\n\n" + line(frames=4) + "\n"))
    assert isinstance(split.inputs, tuple)
    frames, lengths = split.inputs
    assert frames.shape == (2, 4, 12)
    assert (frames.dtype, lengths.tolist(), split.targets.tolist()) == (torch.float32, [2, 4], [8, 1])
    assert frames[0, 1].tolist() == [c + 0.25 for c in range(12)]
    assert frames[0, 2:].abs().sum() == 0


def test_the_official_test_utterances_are_for_validation_and_test_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, speakers in zip(vowels.FILES.values(), ("129", "13579"), strict=True):
        lines = [line(value=f"0.{number}", speaker=speaker) for number, speaker in enumerate(speakers)]
        (tmp_path / name).write_text(HEAD + "\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(vowels, "data_folder", lambda: tmp_path)
    assert [split.targets.tolist() for split in vowels.splits()] == [[0, 1, 8], [0, 4, 8], [2, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no utterance"),
        (line(), "no utterance after a line '@data'"),
        (HEAD, "no utterance"),
        (HEAD + line(channels=11), "line 4: 12 coefficients and a speaker are expected, got 11"),
        (HEAD + line() + "\n" + line(speaker="10"), "line 5: the speaker must be 1 to 9, got '10'"),
        (HEAD + line(speaker="0"), "the speaker must be 1 to 9, got '0'"),
        (HEAD + line(speaker="e"), "the speaker must be 1 to 9, got 'e'"),
        (HEAD + line(value="?"), "line 4: could not convert string to float"),
        (HEAD + line(value="nan"), "line 4: a value is NaN or infinite"),
        (HEAD + line().replace("0.5,", "", 1), "line 4: the coefficients have different numbers of frames"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        utterances(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + line())
    path.write_bytes(path.read_bytes() + b"\xff")
    with pytest.raises(ValueError, match=r"some\.ts is damaged: .*; install aeon again"):
        utterances(path)


@pytest.mark.parametrize("there", ["nothing", "the package without its data"])
def test_without_the_package_the_mend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    if there == "nothing":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        (tmp_path / "aeon").mkdir()
        (tmp_path / "aeon" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="pip install --no-deps aeon"):
        vowels.task("vowels-rnn")


def test_padding_changes_nothing() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, frames = VowelsRNN().eval(), torch.randn(5, 9, 12)
    lengths = torch.tensor([9, 2, 5, 1, 7])
    longer = torch.cat([frames, torch.full((5, 4, 12), 99.0)], 1)
    noisy: Tensor = torch.where(torch.arange(9)[None, :, None] < lengths[:, None, None], frames, 99.0)
    with torch.no_grad():
        want = model(frames, lengths)
        torch.testing.assert_close(model(longer, lengths), want)
        torch.testing.assert_close(model(noisy, lengths), want)
        for row, length in enumerate(lengths.tolist()):
            alone = model(frames[row : row + 1, :length], torch.tensor([length]))
            torch.testing.assert_close(alone, want[row : row + 1], atol=1e-5, rtol=1e-5)


def test_lengths_are_on_the_cpu_where_the_frames_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Tensor):
        """Lengths that are on another device until they are asked to the CPU."""

        def cpu(self, *_: object) -> Tensor:  # type: ignore[override]
            return self.as_subclass(Tensor)

    seen = []

    def packed(frames: Tensor, lengths: Tensor, **how: bool) -> object:
        seen.append(type(lengths))
        return pack_padded_sequence(frames, lengths, **how)

    monkeypatch.setattr(vowels, "pack_padded_sequence", packed)
    VowelsRNN().eval()(torch.zeros(2, 3, 12), torch.tensor([3, 1]).as_subclass(Elsewhere))
    assert seen == [Tensor]
