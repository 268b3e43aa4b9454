"""The Frechet distance and the evidence bound: by hand, and of published networks on MNIST where the data is."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.generative import FrechetDistance, FrechetScore, negative_elbo, negative_elbo_with_logits
from reptile_env.tasks.idx import read_idx
from reptile_env.tasks.metrics import LOSSES, METRICS, resolve_metric
from reptile_env.tasks.task import Task
from tests.compression.kinds import Autoencoder, Generator, made
from tests.helpers import generator_states

DATA = Path(os.environ.get("REPTILE_DATA", "data"))
needs_mnist = pytest.mark.skipif(
    not (DATA / "mnist").is_dir() or not (DATA / "checkpoints").is_dir(), reason="needs $REPTILE_DATA/mnist and checkpoints"
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestFrechetDistance:
    def test_of_two_normal_samples(self) -> None:
        x, y = (
            draw(500, 3).double(),
            2 * draw(400, 3, seed=1).double() @ torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 3]]).double(),
        )
        y = y + 1
        distance = FrechetDistance(nn.Identity())(x, y)
        s, r = np.cov(x.numpy().T), np.cov(y.numpy().T)
        root = sum(np.sqrt(np.linalg.eigvals(s @ r).real))
        expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s) + np.trace(r) - 2 * root
        assert float(distance) == pytest.approx(expected)

    def test_of_diagonal_covariances(self) -> None:
        x = torch.tensor([[1.0, 0.0], [-1, 0], [0, 2], [0, -2]])
        # Variances 2/3 and 8/3 against four times that, and a shift of (3, 4).
        distance = FrechetDistance(nn.Identity())(2 * x + torch.tensor([3.0, 4.0]), x)
        assert float(distance) == pytest.approx(25 + 2 / 3 + 8 / 3)

    def test_is_zero_of_the_same_examples_and_grows_with_the_difference(self) -> None:
        distance, x = FrechetDistance(nn.Linear(6, 4)), draw(300, 6)
        apart = [float(distance(x + shift, x)) for shift in (0.0, 0.1, 0.5, 2.0)]
        assert apart[0] == pytest.approx(0, abs=1e-5)
        assert apart == sorted(apart)
        assert float(distance(x, x + 2)) == pytest.approx(apart[-1])

    def test_fewer_examples_than_features_are_well_defined(self) -> None:
        distance = FrechetDistance(nn.Identity())
        x, y = draw(5, 40), draw(7, 40, seed=1)
        assert 0 < float(distance(x, y)) < 200
        assert float(distance(x, x)) == pytest.approx(0, abs=1e-4)
        assert float(distance(torch.zeros(5, 4), torch.zeros(5, 4))) == 0

    def test_lower_is_better_without_being_told(self) -> None:
        distance = FrechetDistance(nn.Identity())
        assert resolve_metric(distance, None) == ("frechet_distance", distance, False)
        assert resolve_metric(distance, True)[2]
        assert resolve_metric(lambda outputs, targets: 1.0, None)[2]

    def test_it_keeps_a_frozen_copy_of_the_features(self) -> None:
        features = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)).train()
        distance, x, y = FrechetDistance(features), draw(300, 6), draw(300, 6, seed=1)
        before, states = distance(x, y), generator_states()
        nn.init.zeros_(features[0].weight)
        assert distance(x, y) == before
        assert pickle.loads(pickle.dumps(distance))(x, y) == before
        assert copy.deepcopy(distance)(x, y) == before
        assert generator_states() == states
        assert features.training

    def test_batches_do_not_show(self) -> None:
        x, y = draw(600, 6), draw(530, 6, seed=1)
        features = nn.Linear(6, 4).requires_grad_(False)
        whole = FrechetDistance(nn.Identity())(features(x), features(y))
        torch.testing.assert_close(FrechetDistance(features)(x, y), whole, rtol=1e-5, atol=0)

    def test_it_has_a_gradient(self) -> None:
        distance, y = FrechetDistance(nn.Identity()), draw(20, 4, seed=1).double()
        x = (2 * draw(20, 4).double()).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: distance(x, y), x)
        few = draw(3, 6).requires_grad_()
        distance(few, draw(3, 6, seed=1)).backward()
        assert few.grad is not None
        assert torch.isfinite(few.grad).all()

    def test_what_has_no_distance_is_refused(self) -> None:
        distance, x = FrechetDistance(nn.Identity()), draw(10, 4)
        with pytest.raises(ValueError, match="at least 2 examples, outputs have 1"):
            distance(x[:1], x)
        with pytest.raises(ValueError, match="at least 2 examples, targets have 1"):
            distance(x, x[:1])
        with pytest.raises(ValueError, match=r"\(10, 2, 2\); flatten"):
            distance(x.view(10, 2, 2), x)
        with pytest.raises(ValueError, match="features of outputs hold NaN"):
            distance(x / 0, x)
        with pytest.raises(ValueError, match="one tensor of examples, got tuple"):
            distance((x, x), x)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"features must be a torch\.nn\.Module, got function"):
            FrechetDistance(lambda x: x)  # type: ignore[arg-type]

    def test_a_task_says_what_does_not_fit(self) -> None:
        model, x = made("generator")[0], draw(20, 16)
        with pytest.raises(ValueError, match="metric 'frechet_distance' can't score outputs"):
            Task(model, (x[:10], x[:10]), (x[10:], x[10:]), metric=FrechetDistance(nn.Linear(5, 3)), loss="mse")


class TestFrechetScore:
    def test_is_the_part_of_the_variance_that_the_distance_leaves(self) -> None:
        features = nn.Linear(6, 4)
        score, distance = FrechetScore(features), FrechetDistance(features)
        x, y = draw(300, 6), 0.8 * draw(300, 6, seed=1) + 0.2
        variance = float(features(y).detach().double().var(0).sum())
        assert float(score(x, y)) == pytest.approx(1 - float(distance(x, y)) / variance)
        assert float(score(y, y)) == pytest.approx(1)

    def test_no_variety_is_worth_nothing(self) -> None:
        score, y = FrechetScore(nn.Identity()), draw(300, 4)
        assert float(score(y.mean(0).expand(50, 4), y)) == pytest.approx(0, abs=1e-6)
        assert float(score(y + 9, y)) == 0

    def test_higher_is_better_without_being_told(self) -> None:
        score = FrechetScore(nn.Identity())
        assert resolve_metric(score, None) == ("frechet_score", score, True)


class TestNegativeElbo:
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return draw(7, 12).sigmoid(), draw(7, 3, seed=1), draw(7, 3, seed=2), (draw(7, 12, seed=3) > 0).float()

    def test_is_that_of_torchs_distributions(self) -> None:
        reconstruction, mean, log_variance, targets = self.parts()
        normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
        prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        divergence = torch.distributions.kl_divergence(normal, prior).sum(1)
        likelihood = torch.distributions.Bernoulli(reconstruction).log_prob(targets).sum(1)
        expected = (divergence - likelihood).mean()
        for outputs in (
            (reconstruction, mean, log_variance),
            [reconstruction, divergence],
            (reconstruction, torch.distributions.kl_divergence(normal, prior)),
        ):
            torch.testing.assert_close(negative_elbo(outputs, targets), expected)  # type: ignore[arg-type]
        logits = torch.logit(reconstruction)
        torch.testing.assert_close(negative_elbo_with_logits((logits, divergence), targets), expected)

    def test_images_are_summed_over_all_their_pixels(self) -> None:
        reconstruction, mean, log_variance, targets = self.parts()
        flat = negative_elbo((reconstruction, mean, log_variance), targets)
        image = negative_elbo((reconstruction.view(7, 3, 2, 2), mean, log_variance), targets.view(7, 3, 2, 2))
        torch.testing.assert_close(image, flat)

    def test_outputs_that_are_none_are_refused(self) -> None:
        reconstruction, mean, log_variance, targets = self.parts()
        refused: list[tuple[Any, str]] = [
            (reconstruction, r"must return \(reconstruction, divergence\).*got Tensor"),
            ((reconstruction,), "got tuple of 1"),
            ((reconstruction[:, :6], mean, log_variance), r"\(7, 6\) and targets \(7, 12\) differ"),
            ((4 * reconstruction, mean, log_variance), "use negative_elbo_with_logits"),
            ((reconstruction / 0 * 0, mean, log_variance), "got nan to nan"),
            ((reconstruction, mean[:1], log_variance), r"\(1, 3\), \(7, 3\)"),
            ((reconstruction, torch.tensor(1.0)), "one for each example"),
        ]
        for outputs, message in refused:
            with pytest.raises(ValueError, match=message):
                negative_elbo(outputs, targets)
        with pytest.raises(ValueError, match="targets must be in"):
            negative_elbo_with_logits((reconstruction, mean, log_variance), 2 * targets)

    def test_by_name(self) -> None:
        for name, function in (("negative_elbo", negative_elbo), ("negative_elbo_with_logits", negative_elbo_with_logits)):
            assert METRICS[name] == (function, False)
            assert LOSSES[name] is function


class Flat(nn.Module):
    """Rows of an image as features."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (16, 16)).mean(1)


def round_of(task: Task, recovery: str, rate: float = 0.4) -> dict[str, Any]:
    """The last info of a round in which every group loses a fraction of its channels."""
    env: Any = gym.make("ReptilePrune-v0", task=task, recovery=recovery)
    env.reset(seed=0)
    groups = len(env.unwrapped.groups)
    for step in range(groups):
        observation, reward, terminated, _, info = env.step(env.unwrapped.action_for(rate))
        assert np.isfinite(reward)
        assert np.isfinite(observation).all()
        assert terminated == (step == groups - 1)
    assert info["macs"] < env.unwrapped.reference.dense.macs
    return dict(info)


@pytest.mark.parametrize("recovery", ["none", "reconstruct", "reconstruct-sequential"])
def test_a_round_on_a_generator_of_transposed_convolutions(recovery: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator().eval()
    z, real = draw(120, 16), model(draw(120, 16, seed=1)).detach()
    distance = FrechetDistance(Flat())
    task = Task(model, (z[:60], real[:60]), (z[60:], real[60:]), metric=distance, loss=distance)
    assert not task.higher_is_better
    info = round_of(task, recovery)
    assert {name: len(entry["keep"]) for name, entry in info["plan"].items()} == {"start": 7, "a": 5}
    evaluator = LiveEvaluator(task, Settings(recovery))
    assert info["metric"] > evaluator.measure(evaluator.dense).metric


def test_a_round_on_an_autoencoder_cuts_its_bottleneck() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder().eval()
    x = draw(120, 16).sigmoid()
    task = Task(model, (x[:60], x[:60]), (x[60:], x[60:]), metric="negative_elbo", loss="negative_elbo")
    assert not task.higher_is_better
    assert list(round_of(task, "reconstruct")["plan"]) == ["encoder", "mean", "decoder"]


def pixels(name: str, count: int) -> Tensor:
    images = torch.from_numpy(read_idx(DATA / "mnist" / f"{name}-images-idx3-ubyte.gz")[:count])
    return images.float().div(255).flatten(1)


def loaded(model: nn.Module, name: str) -> nn.Module:
    model.load_state_dict(load_file(DATA / "checkpoints" / f"{name}.safetensors"))
    return model.eval().requires_grad_(False)


class MnistVae(nn.Module):
    """Decodes the mean of its latent variables; their divergence is worked out inside, so that they can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.fc1(x))
        return self.fc21(hidden), self.fc22(hidden)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(z))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encode(x)
        return self.decode(mean), -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)


class LeNetFeatures(nn.Module):
    """What LeNet-5 makes of images with pixels in [-1, 1]: 84 features."""

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict({"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)})
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate((x.view(-1, 1, 28, 28) + 1) / 2, (32, 32), mode="bilinear")
        for name in ("c1", "c3"):
            x = functional.max_pool2d(torch.relu(self.convnet[name](x)), 2)
        x = torch.relu(self.convnet["c5"](x)).flatten(1)
        return torch.relu(self.fc["f6"](x))


def mlp_generator() -> nn.Module:
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh()]
    return loaded(nn.Sequential(*layers), "mnist_gan_mlp_generator")


@needs_mnist
def test_the_published_bound_of_the_vae() -> None:
    vae, x = loaded(MnistVae(), "mnist_vae"), pixels("t10k", 10_000)
    assert isinstance(vae, MnistVae)
    mean, log_variance = vae.encode(x)
    drawn = mean + draw(*mean.shape) * (log_variance / 2).exp()
    assert float(negative_elbo((vae.decode(drawn), mean, log_variance), x)) == pytest.approx(103.2, abs=0.2)
    # The mean is the best guess: the bound that tasks see is a constant step lower.
    assert float(negative_elbo(vae(x), x)) == pytest.approx(94.92, abs=0.01)


@needs_mnist
def test_a_round_on_the_vae() -> None:
    train, valid = pixels("train", 1000), pixels("t10k", 400)
    vae = loaded(MnistVae(), "mnist_vae")
    task = Task(vae, (train, train), (valid, valid), metric="negative_elbo", loss="negative_elbo")
    info = round_of(task, "reconstruct", rate=0.2)
    assert {name: len(entry["keep"]) for name, entry in info["plan"].items()} == {"fc1": 320, "fc21": 16, "fc3": 320}
    # Units of the encoder and decoder can be spared, once the others have learned to do without.
    losses = {}
    for recovery in ("none", "reconstruct"):
        evaluator = LiveEvaluator(task, Settings(recovery))
        plan = evaluator.cut(evaluator.cut(evaluator.dense, 0, 80), 2, 80)
        losses[recovery] = evaluator.measure(plan).metric - evaluator.measure(evaluator.dense).metric
    assert 0 < losses["reconstruct"] < 0.25 * losses["none"]


@needs_mnist
def test_a_round_on_the_generator_of_a_gan() -> None:
    real, distance = 2 * pixels("train", 1000) - 1, FrechetDistance(loaded(LeNetFeatures(), "mnist_lenet5"))
    generator, z = mlp_generator(), draw(1000, 64)
    made_of_noise = distance(generator(z), real[:500])
    # Half of the real digits are nearer to the other half than what the generator makes, which is nearer than noise.
    assert distance(real[500:], real[:500]) < 0.3 * made_of_noise
    assert made_of_noise < 0.3 * distance(draw(500, 784).tanh(), real[:500])
    task = Task(generator, (z[:500], real[:500]), (z[500:], real[500:]), metric=distance, loss=distance, w=0.9)
    info = round_of(task, "reconstruct")
    assert {name: len(entry["keep"]) for name, entry in info["plan"].items()} == {"0": 154, "2": 154}
    assert float(made_of_noise) < info["metric"] < 3 * float(made_of_noise)
