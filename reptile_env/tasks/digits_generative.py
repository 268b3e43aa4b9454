"""Networks that make digits of 8x8: a variational autoencoder and the generator of a generative adversarial network.

Kingma and Welling (Auto-Encoding Variational Bayes, ICLR 2014); Goodfellow et al. (Generative Adversarial Nets, NeurIPS 2014), with
the gradient penalty of Mescheder et al. (Which Training Methods for GANs do actually Converge?, ICML 2018) and an average of the
generator's weights over training. No published numbers are for these 8x8 images: both metrics depend on data and size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.digits import TRAIN, VALID, splits
from reptile_env.tasks.digits_networks import conv
from reptile_env.tasks.generative import FrechetDistance, FrechetScore, negative_elbo_with_logits
from reptile_env.tasks.recipe import Progress, Recipe
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import shift, train

LATENTS = 24
GAN_W = 0.8  # calibrated weight of the generator's metric
STEPS, BATCH, LEARNING_RATE, PENALTY, KEPT = 2500, 64, 1e-3, 1.0, 0.998


class DigitsVAE(nn.Module):
    """Convolutional encoder, 10 latent variables, decoder of transposed convolutions.

    It decodes drawn latent variables while it is trained, and their mean afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 40, 3, 2, 1), nn.Conv2d(40, 20, 3, 2, 1)]
        relus = [nn.Sequential(layer, nn.ReLU()) for layer in convolutions]
        self.encoder = nn.Sequential(*relus, nn.Flatten(), nn.Linear(20 * 4, 48), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(48, 10), nn.Linear(48, 10)
        self.decoder = nn.Sequential(
            nn.Sequential(nn.Linear(10, 40), nn.ReLU()),
            nn.Sequential(nn.Linear(40, 24 * 16), nn.Unflatten(1, (24, 4, 4)), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.ReLU()),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(n, 1, 8, 8)`` to logits of the reconstruction, of the same shape, and the divergence ``(n,)`` in nats."""
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return self.decoder(latent), divergence


class Generator(nn.Module):
    """Latent variables to images by way of 2x2 and 4x4, with a bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(LATENTS, 64), nn.ReLU())
        self.grid = nn.Sequential(nn.Linear(64, 32 * 4), nn.Unflatten(1, (32, 2, 2)), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 80, 4, 2, 1, bias=False), nn.BatchNorm2d(80), nn.ReLU())
        self.narrow = conv(80, 24, 1)
        self.image = nn.Sequential(nn.ConvTranspose2d(24, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.out = nn.Conv2d(48, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Latent variables ``(n, 24)`` to images ``(n, 1, 8, 8)`` in [0, 1]."""
        return torch.sigmoid(self.out(self.image(self.narrow(self.up(self.grid(self.start(z)))))))


class DigitsGAN(nn.Module):
    """What ships under ``digits-gan``: the generator, and a classifier whose 32 features judge it."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        layers = [conv(1, 12, 3, stride=2), conv(12, 24, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24 * 4, 32), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(32, 10)

    @property
    def classifier(self) -> nn.Module:
        """Images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        return nn.Sequential(self.features, self.head)


VAE = Recipe("vae", DigitsVAE, 0.93, {"epochs": 200, "lr": 2e-3, "weight_decay": 1e-3}, negative_elbo_with_logits)
EPOCHS = 120  # of the classifier
CLASSIFIER: dict[str, Any] = {"epochs": EPOCHS, "lr": 3e-3, "augment": shift}


def latents() -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal latent variables for train, valid and test, as many as there are images: float32 ``(n, 24)``."""
    images = sum(map(len, splits()))
    drawn = np.random.default_rng(1).standard_normal((images, LATENTS)).astype(np.float32)
    train, valid, test = np.split(drawn, [TRAIN, TRAIN + VALID])
    return torch.from_numpy(train), torch.from_numpy(valid), torch.from_numpy(test)


def train_vae(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train the autoencoder; `progress` is told the fraction done."""
    return VAE.trained(_images_alone(splits()[0]), progress)


def vae_task(name: str) -> Task:
    """The autoencoder, measured by its negative evidence lower bound in nats, that of the mean of its latent variables."""
    train, valid, test = map(_images_alone, splits())
    return VAE.task(name, (train, valid, test), metric="negative_elbo_with_logits", loss="negative_elbo_with_logits")


def train_gan(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train classifier and generator; `progress` is told the fraction done."""
    real, loss = splits()[0], functional.cross_entropy
    assert isinstance(real.inputs, Tensor)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = DigitsGAN()
        train(model.classifier, real, loss=loss, progress=lambda epoch, _: progress(0.1 * (epoch + 1) / EPOCHS), **CLASSIFIER)
        model.generator = adversarial(model.generator, real.inputs, STEPS, lambda done: progress(0.1 + 0.9 * done))
    return model.eval()


def gan_task(name: str) -> Task:
    """The generator, measured by its Frechet score, in the features of the classifier that ships with it; lost is the distance."""
    with torch.random.fork_rng(devices=[]):
        model = DigitsGAN().eval()
    model.load_state_dict(load_checkpoint(name))
    score, distance = FrechetScore(model.features), FrechetDistance(model.features)
    train, valid, test = (Split(z, _images_alone(real).targets) for z, real in zip(latents(), splits(), strict=True))
    return Task(model.generator, train, valid, test, metric=score, loss=distance, name=name, family="gan", w=GAN_W)


def adversarial(generator: Generator, images: Tensor, steps: int, progress: Progress) -> Generator:
    """Train a generator against a discriminator of real images; the average of its weights, in evaluation mode.

    Args:
        generator: latent variables ``(n, 24)`` to images; trained in place.
        images: real ones, ``(n, 1, 8, 8)``.
        steps: of each of the two networks.
        progress: told the fraction done.
    """
    discriminator = _discriminator()
    ema = get_ema_multi_avg_fn(KEPT)  # type: ignore[no-untyped-call]
    average = AveragedModel(generator, multi_avg_fn=ema, use_buffers=True)
    theirs, ours = (
        torch.optim.Adam(network.parameters(), LEARNING_RATE, betas=(0.0, 0.99)) for network in (discriminator, generator)
    )
    for step in range(steps):
        real = images[torch.randint(len(images), (BATCH,))].requires_grad_()
        with torch.no_grad():
            made = generator(torch.randn(BATCH, LATENTS))
        judged = discriminator(real)
        (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
        penalty = PENALTY / 2 * slope.square().sum((1, 2, 3)).mean()
        _step(theirs, functional.softplus(-judged).mean() + functional.softplus(discriminator(made)).mean() + penalty)
        _step(ours, functional.softplus(-discriminator(generator(torch.randn(BATCH, LATENTS)))).mean())
        average.update_parameters(generator)
        progress((step + 1) / steps)
    trained = average.module.eval()
    assert isinstance(trained, Generator)
    return trained


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _discriminator() -> nn.Module:
    leak = nn.LeakyReLU(0.2)
    layers = [nn.Conv2d(1, 32, 3, padding=1), leak, nn.Conv2d(32, 64, 3, 2, 1), leak, nn.Conv2d(64, 96, 3, 2, 1), leak]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 4, 1))


def _images_alone(split: Split) -> Split:
    """Images as their own targets."""
    assert isinstance(split.inputs, Tensor)
    return Split(split.inputs, split.inputs)
