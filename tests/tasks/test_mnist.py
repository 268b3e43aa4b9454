"""Published networks on MNIST: the loader on generated files, the networks where data and weights are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reptile_env.evaluation.live import structure_of
from reptile_env.tasks import download, mnist
from reptile_env.tasks.idx import read_idx
from reptile_env.tasks.mnist import FILES, LeNet5, generator, published, splits
from reptile_env.tasks.registry import make_task, task_spec
from tests.helpers import generator_states
from tests.tasks.idx_files import idx, write_part
from tests.tasks.rounds import play_round, sliced

DATA = Path(os.environ.get("REPTILE_DATA", "data"))
needs_mnist = pytest.mark.skipif(
    not (DATA / "mnist").is_dir() or not (DATA / "checkpoints").is_dir(), reason="needs $REPTILE_DATA/mnist and checkpoints"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of generated files, of which 60 images are for training, 20 for validation and 10 for the test."""
    monkeypatch.setattr(mnist, "TRAIN", 60)
    monkeypatch.setattr(mnist, "VALID", 20)
    write_part(tmp_path, "train", 100)
    write_part(tmp_path, "t10k", 30, seed=1)
    return tmp_path


def test_validation_images_are_none_that_the_networks_were_trained_on(small: Path) -> None:
    train, valid, test = splits(small)
    assert [len(part) for part in (train, valid, test)] == [60, 20, 10]
    official = {image.tobytes() for image in read_idx(small / "t10k-images-idx3-ubyte.gz")}
    for part, is_test in ((train, False), (valid, True), (test, True)):
        assert isinstance(part.inputs, Tensor)
        assert part.inputs.shape[1:] == (1, 28, 28)
        assert {(255 * image).round().byte().numpy().tobytes() in official for image in part.inputs} == {is_test}
    assert not valid.fingerprints() & test.fingerprints()


def test_images_are_enlarged_between_their_pixels() -> None:
    # Where pixels rise by one a column, bilinear interpolation gives the place of each new pixel's centre.
    ramp = torch.arange(28.0).expand(1, 1, 28, 28)
    places = ((torch.arange(32) + 0.5) * 28 / 32 - 0.5).clamp(0, 27)
    torch.testing.assert_close(mnist.enlarged(ramp), places.expand(1, 1, 32, 32))
    torch.testing.assert_close(mnist.enlarged(ramp.mT), places[:, None].expand(1, 1, 32, 32))


def test_the_order_of_the_training_file_does_not_matter(small: Path) -> None:
    before = splits(small)
    order = np.random.default_rng(7).permutation(100)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (small / name).write_bytes(idx(read_idx(small / f"{name}.gz")[order]))
    for one, other in zip(before, splits(small), strict=True):
        assert torch.equal(one.inputs, other.inputs)  # type: ignore[arg-type]
        assert torch.equal(one.targets, other.targets)


def test_files_of_another_size_are_refused(small: Path) -> None:
    write_part(small, "t10k", 20)
    with pytest.raises(ValueError, match=r"t10k holds images of shape \(20, 28, 28\) where at least 21 of 28x28"):
        splits(small)
    write_part(small, "train", 100, size=8)
    with pytest.raises(ValueError, match=r"train holds images of shape \(100, 8, 8\)"):
        splits(small)


def test_an_empty_data_folder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(mnist, "ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=rf"put it at {tmp_path}/mnist/train-images-idx3-ubyte\.gz"):
        splits()
    for build in (mnist.lenet5_task, mnist.gan_task, mnist.vae_task):
        with pytest.raises(
            FileNotFoundError, match=rf"{tmp_path}/checkpoints/mnist_\w+\.safetensors is missing: published weights of .*csinva"
        ):
            build("any")


def test_weights_of_another_network_or_damaged_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    path = tmp_path / "checkpoints" / "net.safetensors"
    path.parent.mkdir()
    weights = generator().state_dict()
    save_file(weights, path)
    model = published("net", generator())
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert not model.training
    with pytest.raises(ValueError, match=r"net\.safetensors does not hold the weights of this LeNet5: missing: convnet"):
        published("net", LeNet5())
    save_file({**weights, "0.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"of another shape: 0\.bias"):
        published("net", generator())
    save_file({**weights, "9.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"not known: 9\.bias"):
        published("net", generator())
    whole = path.read_bytes()
    for kept in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"is no safetensors file that can be read: .*fetch it again"):
            published("net", generator())


@needs_mnist
def test_the_test_files_are_the_official_ones() -> None:
    for name, sha256 in FILES.items():
        if name.startswith("t10k"):
            assert hashlib.sha256((DATA / "mnist" / name).read_bytes()).hexdigest() == sha256


@needs_mnist
@pytest.mark.parametrize("name", ["mnist-lenet5", "mnist-gan", "mnist-vae"])
def test_a_round_on_a_published_network(name: str) -> None:
    before = generator_states()
    task = make_task(name)
    assert generator_states() == before
    assert task.family == task_spec(name).family
    sizes = [len(split) for split in (task.train, task.valid, task.test_split())]
    assert sizes == ([1_000] * 3 if name == "mnist-gan" else [10_000, 2_000, 8_000])
    play_round(sliced(task, 400, calibration=400))


@needs_mnist
def test_the_networks_score_what_was_published() -> None:
    scores = {}
    for name in ("mnist-lenet5", "mnist-vae", "mnist-gan"):
        task = make_task(name)
        scores[name] = [task.score(task.outputs(task.model, split), split)[0] for split in (task.valid, task.test_split())]
    # Of all 10,000 test images together: one part of them alone may be easier.
    assert 0.985 <= np.average(scores["mnist-lenet5"], weights=[2, 8]) <= 0.991
    # 94.92 of all test images when the mean is decoded; 103.2 was published, of drawn latent variables.
    assert np.average(scores["mnist-vae"], weights=[2, 8]) == pytest.approx(94.92, abs=0.01)
    # Of equally many examples in both splits.
    assert scores["mnist-gan"][0] == pytest.approx(scores["mnist-gan"][1], rel=0.1)


@needs_mnist
def test_groups_are_what_can_be_cut() -> None:
    sizes = {name: structure_of(make_task(name)).sizes for name in ("mnist-lenet5", "mnist-gan", "mnist-vae")}
    assert {name: tuple(size) for name, size in sizes.items()} == {
        "mnist-lenet5": (6, 16, 120, 84),
        "mnist-gan": (256, 256),
        "mnist-vae": (400, 20, 400),
    }
