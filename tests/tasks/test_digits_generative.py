"""The autoencoder and the generator of digits are what they are said to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.digits import splits
from reptile_env.tasks.digits_generative import DigitsGAN, adversarial, latents
from reptile_env.tasks.generative import negative_elbo_with_logits
from reptile_env.tasks.registry import make_task
from tests.helpers import generator_states


def images(split: int) -> Tensor:
    inputs = splits()[split].inputs
    assert isinstance(inputs, Tensor)
    return inputs


def test_the_autoencoder_tells_digits_better_than_their_mean_does() -> None:
    task, valid = make_task("digits-vae"), images(1)
    bound = task.score(task.outputs(task.model, task.valid), task.valid)[0]
    mean = images(0).mean(0, keepdim=True).clamp(1e-3, 1 - 1e-3).expand(len(valid), -1, -1, -1)
    assert bound < 0.85 * float(negative_elbo_with_logits((torch.logit(mean), torch.zeros(len(valid))), valid))


def test_the_autoencoder_draws_in_training_alone() -> None:
    model, x = make_task("digits-vae").model, images(1)[:8]
    assert torch.equal(model(x)[0], model(x)[0])
    with torch.random.fork_rng(devices=[]):
        drawing = type(model)().train()
        assert not torch.equal(drawing(x)[0], drawing(x)[0])


def shipped() -> DigitsGAN:
    with torch.random.fork_rng(devices=[]):
        model = DigitsGAN()
    model.load_state_dict(load_checkpoint("digits-gan"))
    return model.eval().requires_grad_(False)


def test_the_classifier_that_judges_the_generator_knows_digits() -> None:
    for split in splits()[1:]:
        assert (shipped().classifier(split.inputs).argmax(1) == split.targets).double().mean() > 0.95


def test_what_the_generator_makes_is_near_to_digits_and_of_all_kinds() -> None:
    task, valid = make_task("digits-gan"), images(1)
    made = task.outputs(task.model, task.valid)
    assert made.shape == valid.shape
    assert 0 <= made.min() < made.max() <= 1
    noise = torch.rand(valid.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(valid, 3, 1, 1)
    real, ours, *others = (float(task.loss(examples, valid)) for examples in (images(2), made, blurred, noise))
    assert 0 < real < ours < 0.1 * min(others)
    assert float(task.metric(made, valid)) > 0.95
    counts = torch.bincount(shipped().classifier(made).argmax(1), minlength=10)
    assert counts.min() > 0.3 * counts.float().mean()


def test_latent_variables_are_the_same_every_time() -> None:
    first, second = latents(), latents()
    assert [tuple(z.shape) for z in first] == [(897, 24), (450, 24), (450, 24)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.cat(first).mean().abs() < 0.02
    assert abs(float(torch.cat(first).std()) - 1) < 0.02


def test_adversarial_training_is_reproducible() -> None:
    weights = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained = adversarial(DigitsGAN().generator, images(0), 3, lambda done: None)
        assert not trained.training
        weights.append(torch.cat([p.flatten() for p in trained.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_training_leaves_the_global_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from reptile_env.tasks import digits_generative

    monkeypatch.setattr(digits_generative, "STEPS", 3)
    before = generator_states()
    told: list[float] = []
    digits_generative.train_gan("digits-gan", told.append)
    assert generator_states() == before
    assert told == sorted(told)
    assert told[-1] == 1
