"""The shipped networks come from their seeds."""

from __future__ import annotations

import pytest
import torch

from reptile_env.tasks.digits import splits, train_network
from reptile_env.tasks.registry import make_task


@pytest.mark.slow
def test_training_reproduces_the_shipped_network() -> None:
    before = torch.random.get_rng_state()
    told: list[float] = []
    first, second = train_network("digits-mlp", told.append), train_network("digits-mlp")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert told[-1] == 1
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())
    # Another processor rounds otherwise, and training amplifies it: the same quality, not the same bits.
    shipped, (_, valid, _) = make_task("digits-mlp").model, splits()
    accuracy = [(model(valid.inputs).argmax(1) == valid.targets).double().mean() for model in (first, shipped)]
    assert abs(accuracy[0] - accuracy[1]) <= 0.02
