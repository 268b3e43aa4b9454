"""Metrics of networks that make examples: the Frechet distance of generators, the evidence bound of variational autoencoders."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_BATCH = 256
_NO_SPREAD = 1e-12  # eigenvalues that are rounding errors, relative to the largest


class FrechetDistance:
    """The Frechet distance between Gaussians fitted to features of what a generator makes and of real examples.

    Heusel et al., NeurIPS 2017, with the features of any network, a classifier of the data say: the squared distance of the means
    plus ``tr(S + R - 2 (S R)^1/2)`` of the covariances, in float64; 0 where both are alike, lower is better. It depends on the
    number of examples: compare values of splits of the same size, of several times as many examples as features.

    As a loss it has a gradient, from the same number of examples.

    Args:
        features: a network that maps both the generator's outputs and a task's targets, which are real examples of the same form,
            to ``(n, features)``. It is copied, put in evaluation mode and frozen.
    """

    higher_is_better = False

    def __init__(self, features: nn.Module) -> None:
        if not isinstance(features, nn.Module):
            raise TypeError(f"features must be a torch.nn.Module, got {type(features).__name__}")
        self.features = copy.deepcopy(features).eval().requires_grad_(False)
        self.__name__ = "frechet_distance"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The distance between generated and real examples, ``(n, ...)`` each.

        Raises:
            ValueError: fewer than two examples, or features that are not ``(n, features)`` or not finite.
        """
        made_mean, made = self.gaussian(outputs, "outputs")
        real_mean, real = self.gaussian(targets, "targets")
        powers, directions = torch.linalg.eigh(real)
        root = directions * powers.clamp_min(0).sqrt() @ directions.T
        # The eigenvalues of S R are those of R^1/2 S R^1/2, which is symmetric.
        shared = torch.linalg.eigvalsh(root @ made @ root)
        # No root of what is zero but for rounding: it has no gradient.
        shared = shared[shared > _NO_SPREAD * shared.max().clamp_min(0)]
        distance: Tensor = (made_mean - real_mean).square().sum() + made.trace() + real.trace() - 2 * shared.sqrt().sum()
        return distance

    def gaussian(self, examples: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Mean ``(features,)`` and covariance ``(features, features)`` of the features of examples, which messages call `what`."""
        if not isinstance(examples, Tensor):
            raise ValueError(f"{what} must be one tensor of examples, got {type(examples).__name__}")
        if len(examples) < 2:
            raise ValueError(f"a covariance needs at least 2 examples, {what} have {len(examples)}")
        found: Any = torch.cat([self.features(batch) for batch in torch.split(examples, _BATCH)]).double()
        if found.dim() != 2:
            raise ValueError(f"features of {what} have shape {tuple(found.shape)}; flatten them to (examples, features)")
        if not torch.isfinite(found).all():
            raise ValueError(f"features of {what} hold NaN or infinity")
        centred = found - found.mean(0)
        return found.mean(0), centred.T @ centred / (len(found) - 1)


class FrechetScore:
    """The Frechet distance on a scale on which higher is better: 1 for examples like the real ones, 0 for no variety.

    ``1 - distance / v``, at least 0, where v is the variance of the real examples' features, summed: the distance of a generator
    that always makes the same example, the one whose features are the real ones' mean. So it is the part of the real variety that
    is reached. A ratio of distances alone says little of a good generator, whose distance is near 0.

    Args:
        features: see `FrechetDistance`.
    """

    higher_is_better = True

    def __init__(self, features: nn.Module) -> None:
        self.distance = FrechetDistance(features)
        self.__name__ = "frechet_score"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The score of generated beside real examples, ``(n, ...)`` each, in [0, 1].

        Raises:
            ValueError: see `FrechetDistance`.
        """
        _, real = self.distance.gaussian(targets, "targets")
        return (1 - self.distance(outputs, targets) / real.trace()).clamp_min(0)


def negative_elbo(outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """Negative evidence lower bound of a variational autoencoder in nats, mean over examples; lower is better.

    Kingma and Welling, ICLR 2014: the binary cross-entropy of the reconstruction, summed over pixels, plus the divergence of the
    latent distribution from the standard normal one. Measurements must not be random, so the network must not draw its latent
    variables: let it decode their mean. That gives a lower value than drawn ones do. A network that returns the divergence, not
    mean and log-variance, has its latent variables inside, so that they can be cut as well.

    Args:
        outputs: ``(reconstruction, divergence)`` with a divergence for each example (and latent variable, if there are more
            dimensions), or ``(reconstruction, mean, log_variance)`` of the latent variables, ``(n, latents)``. Reconstructions are
            probabilities in [0, 1] of the shape of the targets.
        targets: in [0, 1].

    Raises:
        ValueError: other outputs, shapes or ranges.
    """
    reconstruction, divergence = _parts(outputs, targets)
    _check_range("reconstructions", reconstruction, "; where they are logits use negative_elbo_with_logits")
    error = functional.binary_cross_entropy(reconstruction, targets, reduction="none")
    return (error.flatten(1).sum(1) + divergence).mean()


def negative_elbo_with_logits(outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """As `negative_elbo`, for reconstructions that are logits."""
    reconstruction, divergence = _parts(outputs, targets)
    error = functional.binary_cross_entropy_with_logits(reconstruction, targets, reduction="none")
    return (error.flatten(1).sum(1) + divergence).mean()


def _parts(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruction, and the divergence of each example."""
    if not isinstance(outputs, (tuple, list)) or len(outputs) not in (2, 3) or not all(isinstance(o, Tensor) for o in outputs):
        raise ValueError(
            "the network must return (reconstruction, divergence) or (reconstruction, mean, log_variance), "
            f"got {type(outputs).__name__}" + (f" of {len(outputs)}" if isinstance(outputs, (tuple, list)) else "")
        )
    reconstruction, *latent = outputs
    if reconstruction.shape != targets.shape:
        raise ValueError(
            f"reconstructions {tuple(reconstruction.shape)} and targets {tuple(targets.shape)} differ in shape; reshape the targets"
        )
    _check_range("targets", targets, "")
    if any(part.dim() == 0 or len(part) != len(targets) for part in latent) or latent[0].shape != latent[-1].shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in latent)
        raise ValueError(f"the divergence, or mean and log-variance, must be alike and one for each example, got {shapes}")
    if len(latent) == 1:
        return reconstruction, latent[0].reshape(len(targets), -1).sum(1)
    mean, log_variance = latent
    return reconstruction, -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).flatten(1).sum(1)


def _check_range(what: str, values: Tensor, mend: str) -> None:
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{what} must be in [0, 1], got {values.min().item():.3g} to {values.max().item():.3g}{mend}")
