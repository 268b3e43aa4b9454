"""The signals of MNIST-1D are the standard ones, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mnist1d.data import get_dataset_args, make_dataset

import reptile_env
from agents.arguments import resolve_task
from agents.cli import BadArgumentError
from reptile_env.tasks import mnist1d
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import own_generators
from tests.helpers import generator_states


def test_the_splits_are_of_the_standard_set() -> None:
    with own_generators():
        standard = make_dataset(get_dataset_args())
    train, valid, test = mnist1d.splits()
    for part, inputs, targets in (
        (test, standard["x_test"], standard["y_test"]),
        (train, standard["x"][:3500], standard["y"][:3500]),
        (valid, standard["x"][3500:], standard["y"][3500:]),
    ):
        assert torch.equal(part.inputs, torch.from_numpy(inputs.astype(np.float32))[:, None])  # type: ignore[arg-type]
        assert part.targets.tolist() == targets.tolist()


def test_data_is_the_same_every_time_and_draws_from_its_own_generators() -> None:
    first = mnist1d.splits()[0]
    mnist1d.splits.cache_clear()
    np.random.rand()  # noqa: NPY002 - the package draws from this generator
    before = generator_states()
    again = mnist1d.splits()[0]
    assert generator_states() == before
    assert torch.equal(first.inputs, again.inputs)  # type: ignore[arg-type]


def test_other_signals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mnist1d.DIGESTS, mnist1d.SEED, "0" * 64)
    mnist1d.splits.cache_clear()
    with pytest.raises(ValueError, match=r"made other signals from seed 42.*constraints\.txt"):
        mnist1d.splits()
    monkeypatch.setattr(reptile_env, "make_task", make_task.__wrapped__)  # it remembers what it made
    with pytest.raises(BadArgumentError, match=r"--task mnist1d-cnn: mnist1d made other signals.*constraints\.txt"):
        resolve_task("mnist1d-cnn")


@pytest.mark.slow
def test_no_example_of_the_training_set_is_in_another_split() -> None:
    _, valid, test = mnist1d.splits()
    more = mnist1d.training_examples()
    assert len(more) == 15_500
    assert not more.fingerprints() & (valid.fingerprints() | test.fingerprints())
