from __future__ import annotations

import pytest
import torch
from torch import nn

from reptile_env.evaluation.live import structure_of
from reptile_env.tasks.digits import RECIPES, network, splits
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.training import shift, train
from tests.helpers import generator_states


def test_the_networks_are_trained(builtin: str) -> None:
    task = make_task(builtin)
    with torch.no_grad():
        reached = [task.score(task.model(s.inputs), s)[0] for s in (task.train, task.valid, task.test_split())]
    assert reached[0] > 0.99
    assert min(reached) > 0.93


def test_groups_are_unequal(builtin: str) -> None:
    sizes = structure_of(make_task(builtin)).sizes
    assert max(sizes) >= 4 * min(sizes)


def test_data_is_the_same_every_time() -> None:
    first, second = splits(), splits()
    assert all(torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in zip(first, second, strict=True))
    assert first[0].inputs.shape == (897, 1, 8, 8)
    assert (first[0].inputs.min(), first[0].inputs.max()) == (0, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_training_is_reproducible_and_draws_from_its_own_generators(name: str) -> None:
    data, _, _ = splits()
    before = generator_states()
    settings = {**RECIPES[name].training, "epochs": 1}
    runs = [train(network(name), data[:128], loss=nn.functional.cross_entropy, **settings).state_dict() for _ in range(2)]
    other = train(network(name), data[:128], loss=nn.functional.cross_entropy, seed=1, **settings).state_dict()
    assert generator_states() == before
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert not all(torch.equal(runs[0][k], other[k]) for k in other)


def test_dropout_draws_from_the_seed_too() -> None:
    data = splits()[0][:64]
    weights = []
    for global_seed in (1, 2):
        model = nn.Sequential(network("digits-mlp"), nn.Dropout(0.5))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            train(model, data, epochs=1, loss=nn.functional.cross_entropy)
        weights.append(next(model.parameters()).detach().clone())
    assert torch.equal(*weights)


def test_shift_moves_by_at_most_a_pixel() -> None:
    image = torch.zeros(200, 1, 5, 5)
    image[:, :, 2, 2] = 1
    moved = shift(image, torch.Generator().manual_seed(0))
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}
    assert moved.sum() == 200
