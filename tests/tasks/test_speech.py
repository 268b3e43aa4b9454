"""Spoken digits: recordings, spectrograms and the networks that are trained on them."""

from __future__ import annotations

import io
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from reptile_env.tasks import speech
from reptile_env.tasks.mel import Mel
from reptile_env.tasks.registry import make_task
from tests.helpers import episode, generator_states, make

FOLDER = Path(os.environ.get("REPTILE_DATA", "data")) / "fsdd" / "recordings"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the Free Spoken Digit Dataset in $REPTILE_DATA/fsdd/recordings")


def sound(samples: list[int], rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """The bytes of a wav file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(np.array(samples, {1: "u1", 2: "<i2"}[width]).tobytes())
    return file.getvalue()


def record(folder: Path) -> Path:
    """All 3,000 recordings, each of ten samples that tell its take and of one that tells its speaker."""
    folder.mkdir(parents=True)
    for take in range(50):
        for number, speaker in enumerate(speech.SPEAKERS):
            data = sound([take + 1] * 10 + [1000 * (number + 1)])
            for digit in range(10):
                (folder / f"{digit}_{speaker}_{take}.wav").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("fsdd") / "recordings")


def test_samples_are_read_as_fractions(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound([0, 16384, -32768, 1]))
    assert speech.read_wav(tmp_path / "a.wav").tolist() == [0, 0.5, -1, 2**-15]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (sound([1, 2, 3] * 50)[:-7], r"truncated: it holds 146 of 150 samples; fetch it again"),
        (sound([]), r"truncated: it holds 0 of 0 samples"),
        (sound([1] * 20)[:20], r"is damaged, or no PCM wav file"),
        (b"", r"is damaged, or no PCM wav file: it ends too early"),
        (b"digits,but,no,sound" * 9, r"is damaged, or no PCM wav file"),
        (sound([1] * 20, rate=16_000), r"1 channels of 16 bits at 16,000 Hz; recordings have one of 16 bits at 8,000 Hz"),
        (sound([1] * 20, channels=2), r"2 channels of 16 bits"),
        (sound([1] * 20, width=1), r"1 channels of 8 bits"),
    ],
)
def test_a_bad_recording_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "3_theo_7.wav"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"3_theo_7\.wav.*{said}"):
        speech.read_wav(path)


def test_a_folder_holds_the_recordings_and_nothing_else(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder; put the recordings"):
        speech.recordings(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"lacks 3,000 of 3,000 recordings"):
        speech.recordings(tmp_path)
    for foreign in ("10_george_0.wav", "x_george_0.wav", "1_georgia_0.wav", "1_george_50.wav", "1_george_01.wav", "notes.txt"):
        path = recorded / foreign
        path.write_bytes(sound([1]))
        try:
            with pytest.raises(ValueError, match=rf"holds '{foreign}', which is no recording.*with a digit from 0 to 9"):
                speech.recordings(recorded)
        finally:
            path.unlink()
    gone = recorded / "4_lucas_17.wav"
    data = gone.read_bytes()
    gone.unlink()
    try:
        with pytest.raises(ValueError, match=r"lacks 1 of 3,000 recordings, 4_lucas_17\.wav for one"):
            speech.recordings(recorded)
    finally:
        gone.write_bytes(data)


def test_takes_are_split_as_the_data_set_asks_for(recorded: Path) -> None:
    parts = speech.recordings(recorded)
    takes = {name: set((sounds[:, 3995] * 2**15 - 1).int().tolist()) for name, (sounds, _) in parts.items()}
    assert takes == {"test": set(range(5)), "valid": set(range(5, 10)), "train": set(range(10, 50))}
    for name, count in (("train", 2400), ("valid", 300), ("test", 300)):
        sounds, digits = parts[name]
        assert sounds.shape == (count, 8000)
        assert torch.bincount(digits).tolist() == [count // 10] * 10
        assert len(set(sounds.amax(1).tolist())) == 6  # speakers


def test_recordings_are_put_in_the_middle(recorded: Path) -> None:
    assert torch.nonzero(speech.recordings(recorded)["test"][0][0]).flatten().tolist() == list(range(3994, 4005))
    path = recorded / "0_george_0.wav"
    data = path.read_bytes()
    path.write_bytes(sound([*range(1, 8004)]))
    try:
        first = speech.recordings(recorded)["test"][0][0] * 2**15
        assert (first[0], first[-1]) == (2, 8001)
    finally:
        path.write_bytes(data)


def test_the_archive_is_unpacked_into_the_data_folder(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    (tmp_path / "fsdd").mkdir()
    with zipfile.ZipFile(tmp_path / "fsdd" / speech.ARCHIVE.name, "w") as archive:
        archive.writestr("free-spoken-digit-dataset-1.0.10/README.md", "read me")
        for path in recorded.iterdir():
            archive.write(path, f"free-spoken-digit-dataset-1.0.10/recordings/{path.name}")
    train, valid, _ = speech.splits(lambda sounds: sounds)
    assert len(train) == 2400
    assert torch.equal(valid.inputs, speech.recordings(recorded)["valid"][0])  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "fsdd" / "recordings").iterdir())[0] == "0_george_0.wav"


def test_mel_bands_share_what_lies_between_them() -> None:
    filters = Mel(rate=8000, window=256, transform=256, hop=128, bands=20).filters()
    assert filters.shape == (129, 20)
    centres = filters.argmax(0)
    assert (centres.diff() > 0).all()
    inner = filters[int(centres[0]) + 1 : int(centres[-1])].sum(1)
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_a_tone_is_in_the_band_of_its_pitch() -> None:
    # 21 steps of equal mel up to 4 kHz (2,146 mel): band 11 has its centre at 12 steps, 1,226 mel, which is 1,378 Hz.
    mel = Mel(rate=8000, window=200, transform=256, hop=160, bands=20)
    tone = torch.sin(2 * torch.pi * 1378 * torch.arange(8000) / 8000)
    power = mel.power(torch.stack([tone, 2 * tone]))
    assert power.shape == (2, 20, 51)
    assert power[0, :, 10:40].argmax(0).unique().tolist() == [11]
    torch.testing.assert_close(power[1], 4 * power[0])


def test_spectrograms_are_varied_by_a_seed_alone() -> None:
    whole = torch.rand(200, 32, 51) + 1
    before = generator_states()
    first, again = (speech.vary(whole, torch.Generator().manual_seed(3)) for _ in range(2))
    assert generator_states() == before
    assert torch.equal(first, again)
    assert not torch.equal(first, speech.vary(whole, torch.Generator().manual_seed(4)))
    gone = first == 0
    bands, frames = gone.all(2).sum(1), gone.all(1).sum(1)
    assert (bands.max(), frames.max()) == (6, 6)
    assert (bands.min(), frames.min()) == (0, 0)
    assert torch.equal(gone, gone.all(2)[:, :, None] | gone.all(1)[:, None])
    shifted = torch.stack([torch.roll(whole, by, 2) for by in range(-4, 5)])
    assert ((first == shifted) | gone).flatten(2).all(2).any(0).all()


@needs_data
@pytest.mark.parametrize("name", speech.RECIPES)
def test_the_networks_are_trained(name: str) -> None:
    task = make_task(name)
    train, valid, test = (task.score(task.outputs(task.model, s), s)[0] for s in (task.train, task.valid, task.test_split()))
    assert train > 0.99
    assert min(valid, test) > 0.97


@needs_data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        (
            "fsdd-cnn",
            {"stem.0": 12, "wide.0": 40, "narrow.0": 20, "inner.0": 56, "frames.0": 64, "bands.0": 16, "hidden": 48},
        ),
        ("fsdd-lstm", {"embed": 48, "first": 56, "narrow": 20, "second": 80, "third": 28, "hidden": 64}),
    ],
)
def test_every_layer_is_cut(name: str, sizes: dict[str, int]) -> None:
    env = make(name, measure="round")
    assert dict(zip(env.groups, env.evaluator.sizes, strict=True)) == sizes
    assert make_task(name).skipped == {}
    total, info = episode(env, env.reference.uniform_rate)
    assert total == pytest.approx(1)
    assert info["params"] < env.reference.dense.params


@needs_data
@pytest.mark.parametrize("name", speech.RECIPES)
def test_training_is_reproducible(name: str) -> None:
    data = make_task(name).train
    before = generator_states()
    recipe = speech.RECIPES[name]
    short = type(recipe)(recipe.family, recipe.network, recipe.w, recipe.training | {"epochs": 1}, recipe.loss)
    runs = [short.trained(data[:128]).state_dict() for _ in range(2)]
    assert generator_states() == before
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
