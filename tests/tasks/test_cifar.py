"""CIFAR-10: its loader and the published networks', on generated files of the same formats."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.tasks import cifar, download
from reptile_env.tasks.cifar import IMAGENET, NETWORKS, published, read_batch, splits, task
from reptile_env.tasks.download import Resource
from reptile_env.tasks.mobilenet import MobileNetV2
from reptile_env.tasks.published import read_pickled
from reptile_env.tasks.registry import task_spec
from reptile_env.tasks.resnet import ResNet
from tests.helpers import generator_states
from tests.tasks.archives import packed
from tests.tasks.rounds import play_round, sliced

RECORDS = 120


def records(seed: int, count: int = RECORDS) -> bytes:
    """A file of the binary archive: a label and a random image a record."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 256, (count, cifar.RECORD), dtype=np.uint8)
    rows[:, 0] = np.arange(count) % 10
    return rows.tobytes()


BATCHES = {**{f"data_batch_{i}.bin": records(i) for i in range(1, 6)}, "test_batch.bin": records(6)}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The unpacked archive in a data folder, with 120 images a file."""
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    for name, value in (("RECORDS", RECORDS), ("TRAIN", 200), ("VALID", 40)):
        monkeypatch.setattr(cifar, name, value)
    made = tmp_path / "cifar10" / "cifar-10-batches-bin"
    made.mkdir(parents=True)
    for name, content in BATCHES.items():
        (made / name).write_bytes(content)
    return made


def unlike(model: nn.Module) -> nn.Module:
    """The network with weights and batch statistics of its own, so that a mistaken name shows."""
    generator = torch.Generator().manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.rand(tensor.shape, generator=generator))
    return model.eval()


def chenyaofo(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with option B, or MobileNetV2, and its weights under the names that were published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = unlike(NETWORKS[name].network())
    return model, {key.replace("linear.", "fc."): tensor for key, tensor in model.state_dict().items()}


def save(tensors: Any, folder: Path, name: str) -> Path:
    path = folder.parent / NETWORKS[name].file.rpartition("/")[2]
    torch.save(tensors, path)
    return path


def test_the_archive_is_split_and_normalised(folder: Path) -> None:
    parts = splits()
    assert [len(part) for part in parts] == [200, 40, 80]
    assert len(set().union(*(part.fingerprints() for part in parts))) == 320
    first = np.frombuffer(BATCHES["data_batch_1.bin"], np.uint8)[: cifar.RECORD]
    image = torch.from_numpy(first[1:].reshape(3, 32, 32).copy()).float() / 255  # red, green and blue rows by rows
    expected = (image - torch.tensor(cifar.CIFAR.mean)[:, None, None]) / torch.tensor(cifar.CIFAR.deviation)[:, None, None]
    assert isinstance(parts[0].inputs, Tensor)
    torch.testing.assert_close(parts[0].inputs[0], expected)
    assert int(parts[0].targets[0]) == first[0] == 0
    # Every file of training images is represented.
    assert torch.bincount(parts[0].targets, minlength=10).min() > 0
    test = {label for part in parts[1:] for label in part.targets.tolist()}
    assert test == set(range(10))


@pytest.mark.parametrize("size", [0, cifar.RECORD, RECORDS * cifar.RECORD - 1, RECORDS * cifar.RECORD + 1])
def test_a_file_of_another_size_is_refused(folder: Path, size: int) -> None:
    path = folder / "data_batch_3.bin"
    path.write_bytes((BATCHES["data_batch_3.bin"] + b"\0")[:size])
    with pytest.raises(ValueError, match=rf"data_batch_3\.bin is no file of CIFAR-10's .*{size:,} bytes, 368,760 are expected"):
        splits()


def test_labels_out_of_range_and_missing_files_are_told(folder: Path) -> None:
    broken = bytearray(BATCHES["test_batch.bin"])
    broken[5 * cifar.RECORD] = 10
    (folder / "test_batch.bin").write_bytes(broken)
    with pytest.raises(ValueError, match="holds label 10; labels are 0 to 9"):
        splits()
    (folder / "test_batch.bin").unlink()
    (folder / "foreign.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin is missing; .* remove the folder, and it is fetched again"):
        splits()


def test_the_official_size_is_that_of_the_archive() -> None:
    assert cifar.RECORDS * cifar.RECORD == 30_730_000


def test_the_archive_is_unpacked_where_it_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(cifar, "ARCHIVE", Resource("cifar-10-binary.tar.gz", "http://127.0.0.1:9", "", "cifar10"))
    with pytest.raises(ConnectionError, match=rf"put it at {folder.parent}/cifar-10-binary\.tar\.gz"):
        splits()
    packed(folder.parent / "cifar-10-binary.tar.gz", {f"cifar-10-batches-bin/{name}": data for name, data in BATCHES.items()})
    assert len(splits()[0]) == 200


@pytest.mark.parametrize("name", NETWORKS)
def test_published_weights_of_the_common_source(folder: Path, name: str) -> None:
    model, tensors = chenyaofo(name)
    save(tensors, folder, name)
    before = generator_states()
    loaded, normalisation = published(name)
    assert generator_states() == before
    assert normalisation == cifar.CIFAR
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


@pytest.mark.parametrize(("name", "depth"), [("cifar10-resnet20", 20), ("cifar10-resnet56", 56)])
def test_weights_of_akamaster_bring_their_own_normalisation(folder: Path, name: str, depth: int) -> None:
    with torch.random.fork_rng(devices=[]):
        model = unlike(ResNet(depth))
    path = folder.parent / "theirs.th"
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in model.state_dict().items()}, "best_prec1": 91.7}, path)
    loaded, normalisation = published(name, path)
    assert normalisation == IMAGENET
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


def test_files_without_the_count_of_batches_are_read(folder: Path) -> None:
    _, tensors = chenyaofo("cifar10-resnet20")
    old = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    save(old, folder, "cifar10-resnet20")
    assert torch.equal(published("cifar10-resnet20")[0].state_dict()["linear.weight"], tensors["fc.weight"])


def test_other_weights_are_refused(folder: Path) -> None:
    name = "cifar10-resnet20"
    _, tensors = chenyaofo(name)
    refused: list[tuple[Any, str]] = [
        (chenyaofo("cifar10-resnet56")[1], r"not known: layer1\.3"),
        ({key: tensor for key, tensor in tensors.items() if key != "conv1.weight"}, "missing: conv1.weight"),
        ({**tensors, "fc.weight": torch.zeros(100, 64)}, "of another shape: linear.weight"),
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        (nn.Linear(2, 2), "can't be read as weights"),  # a pickled object: never run
    ]
    for held, message in refused:
        save(held, folder, name)
        with pytest.raises(ValueError, match=message):
            published(name)


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_damaged_weights_are_refused(folder: Path, kept: float) -> None:
    path = save(chenyaofo("cifar10-resnet20")[1], folder, "cifar10-resnet20")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"can't be read as weights: .*fetch it again"):
        read_pickled(path)


def test_missing_weights_are_fetched_or_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(cifar, "_RELEASES", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9/resnet/cifar10_resnet56-187c023a\.pt can't be fetched"):
        published("cifar10-resnet56")
    with pytest.raises(FileNotFoundError, match=r"cifar10/cifar10_mobilenetv2_x1_0-fe6a5b48\.pt is missing: published weights"):
        published("cifar10-mobilenetv2")


def test_hashes_agree_with_the_names_of_the_files() -> None:
    # As torch.hub has it, a file's name ends with the first digits of its SHA-256.
    for known in NETWORKS.values():
        assert known.file.partition("-")[2].startswith(known.sha256[:8])
        assert len(known.sha256) in (0, hashlib.sha256().digest_size * 2)


def test_sizes_are_the_published_ones() -> None:
    # Parameters in the README of the common source: 0.27, 0.86 and 2.24 million.
    counted = {name: sum(p.numel() for p in NETWORKS[name].network().parameters()) / 1e6 for name in NETWORKS}
    assert {name: round(count, 2) for name, count in counted.items()} == {
        "cifar10-resnet20": 0.27,
        "cifar10-resnet56": 0.86,
        "cifar10-mobilenetv2": 2.24,
    }


@pytest.mark.parametrize("name", ["cifar10-resnet20", pytest.param("cifar10-resnet56", marks=pytest.mark.slow)])
def test_a_round_on_a_residual_network(folder: Path, name: str) -> None:
    play_whole_round(folder, name)


@pytest.mark.slow
def test_a_round_on_mobilenet(folder: Path) -> None:
    play_whole_round(folder, "cifar10-mobilenetv2")


def play_whole_round(folder: Path, name: str) -> None:
    _, tensors = chenyaofo(name)
    save(tensors, folder, name)
    made = task(name)
    assert made.family == task_spec(name).family
    # A network that was not trained has an accuracy, which is all that a round needs.
    play_round(sliced(made, 24, calibration=48))


def test_blocks_narrow_what_is_added_to_the_identity() -> None:
    # Depthwise layers shrink with the layer before them, so a block has one group inside it.
    model = MobileNetV2(channels=1, stem=8, stages=((1, 8, 1, 1), (2, 12, 2, 2)), last=16)
    assert [block.adds for block in model.features if hasattr(block, "adds")] == [True, False, True]
    assert model.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_both_shortcuts_halve_the_resolution_and_double_the_width() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        plain, projected = ResNet(8).eval(), ResNet(8, shortcut="B").eval()
    assert plain(x).shape == projected(x).shape == (2, 10)
    added = sum(p.numel() for p in projected.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    with pytest.raises(ValueError, match="unknown shortcut 'C'; known: A, B"):
        ResNet(8, shortcut="C")


def test_batches_are_read_plane_by_plane(folder: Path) -> None:
    images, classes = read_batch(folder / "test_batch.bin")
    assert (images.shape, images.dtype, classes.dtype) == ((RECORDS, 3, 32, 32), torch.uint8, torch.int64)
    assert images[7, 1, 2, 3] == BATCHES["test_batch.bin"][7 * cifar.RECORD + 1 + 1024 + 2 * 32 + 3]
