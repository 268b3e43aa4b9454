"""What matters least and goes first, by the name of a rule: channels of a group, or single weights of a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from reptile_env.compression import auto
from reptile_env.compression.channel_importance import CHANNEL_IMPORTANCES
from reptile_env.compression.evidence import Evidence
from reptile_env.compression.gradients import NoGradientError
from reptile_env.compression.weight_importance import WEIGHT_IMPORTANCES
from reptile_env.errors import unknown

AUTO = "auto"
Importance = TypeVar("Importance")


@dataclass
class Scorer(Evidence):
    """Scores by importance: those of `CHANNEL_IMPORTANCES` and `WEIGHT_IMPORTANCES`, or ``auto``, the one that suits best.

    Attributes:
        chosen: what ``auto`` has chosen so far, by name of the group.
    """

    chosen: dict[str, str] = field(init=False, default_factory=dict)

    def channels(self, name: str, group: int) -> Tensor:
        """Scores ``(channels,)``, float64, of a group; the least important channel has the lowest.

        Raises:
            ValueError: an unknown name, or ``taylor`` with a loss that has no gradient.
        """
        if name != AUTO:
            return _known(CHANNEL_IMPORTANCES, name)(self, group)
        scores = self._candidates(lambda candidate: self.channels(candidate, group), "random")
        best = auto.of_channels(self, group, scores)
        self.chosen[self.structure.names[group]] = best
        return scores[best]

    def weights(self, name: str, tensor: str) -> Tensor:
        """Scores of the shape of a weight, float64; the least important weight has the lowest.

        Args:
            name: of the importance.
            tensor: full name of the weight, ``"conv1.weight"`` or ``"rnn.weight_ih_l0"``.

        Raises:
            ValueError: an unknown name, ``fpgm``, or ``taylor`` with a loss that has no gradient.
        """
        if name != AUTO:
            return _known(WEIGHT_IMPORTANCES, name)(self, tensor)
        scores = self._candidates(lambda candidate: self.weights(candidate, tensor), "random", "fpgm")
        best = auto.of_weights(self, tensor, scores)
        self.chosen[dict(zip(self.structure.weights, self.structure.names, strict=False)).get(tensor, tensor)] = best
        return scores[best]

    def _candidates(self, score: Callable[[str], Tensor], *but: str) -> dict[str, Tensor]:
        scores = {}
        for name in CHANNEL_IMPORTANCES:
            # Without a gradient there is no taylor to choose from.
            with contextlib.suppress(NoGradientError):
                if name not in but:
                    scores[name] = score(name)
        return scores


def _known(importances: Mapping[str, Importance], name: str) -> Importance:
    if name not in importances:
        raise unknown("importance", name, [*importances, AUTO])
    return importances[name]
