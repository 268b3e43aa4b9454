"""Fashion-MNIST: its loader on generated files, its training, and the shipped networks on the real data where that is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reptile_env.tasks import download, fashion
from reptile_env.tasks.fashion import RECIPES, splits, train
from reptile_env.tasks.registry import task_spec
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.helpers import generator_states
from tests.tasks.idx_files import write_part
from tests.tasks.rounds import play_round, sliced

REQUIRED = os.environ.get("REPTILE_FASHION") == "required"  # where they are installed for these tests
needs_data = pytest.mark.skipif(not fashion.DEBIAN.is_dir() and not REQUIRED, reason="needs Debian's dataset-fashion-mnist")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of generated files: 150 images to train on, 50 more, 20 for the test."""
    monkeypatch.setattr(fashion, "TRAINED", 150)
    write_part(tmp_path, "train", 200)
    write_part(tmp_path, "t10k", 20, seed=1)
    return tmp_path


def test_data_are_split_and_normalised(small: Path) -> None:
    parts = splits(small, valid=30)
    assert [len(part) for part in parts] == [150, 30, 20]
    assert len(set().union(*(part.fingerprints() for part in parts))) == 200
    test = parts[2]
    assert isinstance(test.inputs, Tensor)
    assert test.inputs.shape == (20, 1, 28, 28)
    assert test.inputs.min() == pytest.approx((0 - fashion.MEAN) / fashion.DEVIATION)
    assert test.inputs.max() == pytest.approx((1 - fashion.MEAN) / fashion.DEVIATION)
    assert test.targets.dtype == torch.int64
    # What is measured less of is the beginning of the same.
    assert torch.equal(splits(small, valid=50)[1].targets[:30], parts[1].targets)


def test_missing_and_short_files_are_told(small: Path) -> None:
    with pytest.raises(ValueError, match="holds 200 training images, 210 are needed"):
        splits(small, valid=60)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        splits(small / "elsewhere")
    with pytest.raises(ValueError, match="valid: the split has size 0; give it at least one example"):
        fashion.task("fashion-resnet20", small, valid=0)


def test_where_the_data_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(fashion, "ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9/train-images-idx3-ubyte\.gz can't be fetched"):
        fashion.find()
    (tmp_path / "debian").mkdir()
    assert fashion.find() == tmp_path / "debian"
    (tmp_path / fashion.FOLDER / "something else").mkdir(parents=True)
    assert fashion.find() == tmp_path / "debian"
    for part in ("train", "t10k"):
        write_part(tmp_path / fashion.FOLDER, part, 10)
    assert fashion.find() == tmp_path / fashion.FOLDER


@pytest.mark.parametrize("name", RECIPES)
def test_training_is_reproducible_and_draws_from_its_own_generators(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    data = Split(torch.randn(256, 1, 28, 28, generator=generator), torch.arange(256) % 10)
    before = generator_states()
    told: list[float] = []
    first, second = (train(RECIPES[name].untrained(), data, epochs=1, rate=0.1, progress=told.append) for _ in range(2))
    assert generator_states() == before
    assert told == [0.5, 1.0, 0.5, 1.0]
    assert not first.training
    untrained = RECIPES[name].untrained().state_dict()
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())
    assert any(not torch.equal(tensor, untrained[key]) for key, tensor in first.state_dict().items())


@pytest.fixture(scope="module", params=RECIPES)
def real(request: pytest.FixtureRequest) -> Task:
    return fashion.task(request.param, fashion.DEBIAN)


@needs_data
def test_the_shipped_networks_reach_what_is_said(real: Task) -> None:
    assert (len(real.train), len(real.valid), len(real.test_split())) == (55_000, 2_000, 10_000)
    assert real.family == task_spec(real.name).family
    accuracy = real.score(real.outputs(real.model, real.valid), real.valid)[0]
    assert accuracy > 0.92


@needs_data
@pytest.mark.slow  # 18 plans of the uniform sweep
def test_a_round_on_a_shipped_network(real: Task) -> None:
    play_round(sliced(real, 200))
