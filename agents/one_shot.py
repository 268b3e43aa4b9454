"""One-shot rules: scores of the dense network's weights alone say how much of each group goes; nothing is searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.base import Recorder, play
from agents.costs import PlanCosts
from agents.tuned import TunedAgent

SHARES = [round(0.05 * k, 2) for k in range(1, 19)]  # of all channels, as many as the uniform sweep has rates


class OneShot(TunedAgent):
    """Channels of all groups are ranked together and the lowest go, so that one threshold sets the rate of every group.

    With the scores ``l2`` this is global magnitude pruning (Han et al., NIPS 2015; norms are taken relative to their layer's mean,
    without which whole layers go first), with ``lamp`` the layer-wise allocation of Lee et al. (ICLR 2021).

    Under a budget the first plan is the one that just meets it, and deeper ones follow; without one it is a sweep over the share of
    channels that go. Then the rule has no more to say, and evaluations are left.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Play one episode for each threshold.

        Raises:
            ValueError: an evaluator that holds no weights, or actions that don't decide on rates.
        """
        if "rate" not in env.inner.components:
            raise ValueError(f"{self.name} decides on rates, which components={list(env.inner.components)} leave out; add 'rate'")
        env.reset(seed=seed)
        scores = env.inner.evaluator.scores(self.hyperparameters["importance"])
        for amounts in _plans(env, scores):
            if env.remaining > 0:
                play(env, amounts.tolist())


def _plans(env: Recorder, scores: tuple[NDArray[np.float64], ...]) -> Iterator[NDArray[np.float64]]:
    group = np.repeat(np.arange(len(scores)), [len(each) for each in scores])
    group = group[np.argsort(np.concatenate(scores), kind="stable")]  # of each channel, the least important first
    costs, counts = PlanCosts(env), [round(share * len(group)) for share in SHARES]
    if costs.budget is not None:
        low, high = 0, len(group)
        while low < high:
            middle = (low + high) // 2
            if costs.cost(_amounts(env, group[:middle]).tolist()) > costs.budget:
                low = middle + 1
            else:
                high = middle
        counts = [low, *(count for count in counts if count > low)]
    for count in counts:
        yield _amounts(env, group[:count])


def _amounts(env: Recorder, gone: NDArray[np.int64]) -> NDArray[np.float64]:
    """Amounts that remove as many channels of each group as it is named in `gone`, in equal rates over the rounds."""
    sizes, components = np.array(env.inner.evaluator.sizes), env.inner.components
    rates = np.minimum(np.bincount(gone, minlength=len(sizes)), sizes - 1) / sizes
    rounds = env.decisions // len(sizes)
    amounts = np.zeros((env.decisions, len(components)))
    amounts[:, components.index("rate")] = np.tile(1 - (1 - rates) ** (1 / rounds), rounds)
    return np.minimum(amounts.ravel(), env.tops)
