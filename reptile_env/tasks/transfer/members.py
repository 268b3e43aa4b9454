"""The 64 networks of the transfer family, as plain data: imports no torch, reads no file.

Eight of each kind. The last two of each are the networks that agents are scored on: no network of their kind that agents train on
has their layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SUITE = "transfer"
TRAIN_PER_KIND = 6


@dataclass(frozen=True)
class Member:
    """A network of the family.

    Attributes:
        data: set that it is trained on (a key of `data.SETS`).
        view: arrangement of its examples (a key of `data.VIEWS`).
        layers: arguments of its kind's network (see `networks.KINDS`).
        longer: how much longer it trains than others of its kind on its set.
        seed: of its first weights and of the order of its examples; given by its place.
        kind: of network; given by its place.
        split: ``train`` or ``test``: whether agents may train on it; given by its place.
    """

    data: str
    view: str
    layers: Mapping[str, Any]
    longer: float = 1.0
    seed: int = 0
    kind: str = ""
    split: str = ""


_MLP = (
    Member("digits", "plain", {"widths": (96, 24, 160, 16, 48)}),
    Member("mnist1d", "plain", {"widths": (192, 64, 96, 32)}),
    Member("hastie", "plain", {"widths": (48, 96, 16, 64)}),
    Member("clusters", "plain", {"widths": (40, 120, 16, 80, 24), "activation": "gelu"}),
    Member("hastie", "plain", {"widths": (64, 32, 96, 16), "norm": True}),
    Member("digits-noisy", "plain", {"widths": (128, 16, 64, 32), "activation": "silu", "norm": True}),
    Member("digits", "plain", {"widths": (32, 200, 20, 64, 12, 40)}),
    Member("clusters", "plain", {"widths": (160, 48, 24, 72), "activation": "tanh"}),
)
_CNN = (
    Member("digits", "plain", {"layers": ((12, 5, 1), (32, 3, 2), (16, 3, 1), (48, 3, 2)), "hidden": 32}),
    Member("digits", "plain", {"layers": ((8, 3, 1), (24, 3, 2), (40, 3, 1), (20, 1, 1), (32, 3, 2))}),
    Member("digits-pairs", "plain", {"layers": ((8, 3, 2), (24, 3, 1), (16, 3, 2), (48, 3, 1)), "hidden": 24}),
    Member("digits-parity", "plain", {"layers": ((16, 3, 2), (36, 3, 1), (12, 5, 1), (28, 3, 2)), "hidden": 16}),
    Member("digits-noisy", "plain", {"layers": ((10, 5, 1), (20, 5, 2), (40, 3, 2)), "hidden": 48, "activation": "gelu"}),
    Member("digits-pairs", "plain", {"layers": ((16, 5, 2), (12, 3, 1), (40, 3, 2), (24, 3, 1), (40, 1, 1))}),
    Member("digits-noisy", "plain", {"layers": ((6, 3, 1), (28, 3, 1), (14, 3, 2), (56, 3, 2)), "hidden": 20}),
    Member("digits-pairs", "plain", {"layers": ((12, 5, 2), (20, 3, 1), (36, 3, 2), (20, 3, 1), (60, 3, 1)), "activation": "silu"}),
)
_RESNET = (
    Member("digits", "plain", {"stem": (10, 3, 1), "blocks": ((24, 14, 3, 2), (24, 32, 3, 1))}),
    Member("digits", "plain", {"stem": (16, 5, 2), "blocks": ((20, 12, 3, 1), (36, 16, 3, 2), (36, 40, 3, 1))}),
    Member("digits-pairs", "plain", {"stem": (8, 3, 2), "blocks": ((16, 12, 3, 1), (40, 20, 3, 2))}),
    Member("digits-parity", "plain", {"stem": (12, 3, 2), "blocks": ((28, 10, 5, 1), (16, 24, 3, 2))}),
    Member("digits-noisy", "plain", {"stem": (8, 5, 2), "blocks": ((8, 24, 3, 1), (32, 12, 3, 1), (32, 20, 3, 2))}, 1.5),
    Member("digits-pairs", "plain", {"stem": (12, 5, 2), "blocks": ((12, 16, 3, 1), (32, 10, 3, 2), (32, 24, 3, 1))}),
    Member("digits-noisy", "plain", {"stem": (14, 3, 2), "blocks": ((18, 8, 3, 1), (18, 40, 3, 1), (30, 10, 3, 2))}),
    Member("digits-pairs", "plain", {"stem": (10, 3, 2), "blocks": ((20, 24, 3, 1), (28, 12, 3, 2))}),
)
_MOBILENET = (
    Member("digits", "plain", {"stem": (8, 3, 1), "blocks": ((12, 32, 3, 2), (16, 48, 5, 1)), "last": 40}),
    Member("digits", "plain", {"stem": (16, 3, 2), "blocks": ((32, 0, 3, 1), (24, 0, 3, 2), (64, 0, 3, 1))}),
    Member("digits-pairs", "plain", {"stem": (8, 3, 2), "blocks": ((16, 24, 3, 1), (24, 56, 3, 2)), "last": 48}),
    Member("digits-parity", "plain", {"stem": (12, 5, 2), "blocks": ((20, 40, 3, 1), (20, 60, 3, 1))}),
    Member("digits-noisy", "plain", {"stem": (10, 3, 2), "blocks": ((10, 24, 3, 1), (28, 64, 3, 2)), "last": 40}),
    Member("digits-pairs", "plain", {"stem": (20, 5, 2), "blocks": ((28, 0, 3, 1), (48, 0, 3, 2), (32, 0, 3, 1))}),
    Member("digits-noisy", "plain", {"stem": (14, 3, 2), "blocks": ((24, 0, 5, 1), (48, 0, 3, 1), (20, 0, 3, 2)), "last": 56}),
    Member("digits-pairs", "plain", {"stem": (12, 5, 2), "blocks": ((20, 30, 3, 1), (32, 64, 5, 2)), "last": 56}),
)
_CNN_1D = (
    Member("mnist1d", "plain", {"layers": ((16, 5, 1), (48, 3, 2), (24, 3, 1), (32, 3, 2)), "hidden": 48}),
    Member("mnist1d", "plain", {"layers": ((12, 7, 1), (40, 5, 2), (20, 3, 1), (64, 3, 2), (32, 3, 1))}),
    Member("digits", "raster", {"layers": ((16, 9, 2), (32, 5, 1), (12, 5, 2), (48, 5, 2)), "hidden": 32}),
    Member("digits", "lines", {"layers": ((24, 3, 1), (64, 3, 2), (16, 3, 1), (48, 3, 2)), "hidden": 24}),
    Member("mnist1d", "plain", {"layers": ((32, 3, 2), (16, 5, 1), (56, 3, 2), (24, 3, 1)), "hidden": 32, "activation": "gelu"}),
    Member("breast-cancer", "statistics", {"layers": ((16, 3, 1), (40, 1, 1), (12, 3, 1), (32, 3, 1)), "hidden": 12}),
    Member("mnist1d", "plain", {"layers": ((20, 9, 2), (48, 3, 1), (14, 5, 1), (36, 3, 2), (56, 3, 1)), "activation": "silu"}),
    Member("digits-noisy", "raster", {"layers": ((12, 5, 1), (28, 7, 2), (44, 3, 2), (20, 3, 1)), "hidden": 40}),
)
_LSTM = (
    Member("digits", "rows", {"cell": "lstm", "widths": (24, 40), "project": 16, "hidden": 32}),
    Member("mnist1d", "fours", {"cell": "lstm", "widths": (32, 20), "project": 24, "hidden": 40}),
    Member("digits", "columns", {"cell": "lstm", "widths": (48, 24, 40), "hidden": 24}),
    Member("digits-pairs", "columns", {"cell": "lstm", "widths": (32, 16), "project": 20, "hidden": 28}, 2),
    Member("digits", "rows", {"cell": "lstm", "widths": (12, 28), "both": True, "hidden": 40}),
    Member("digits-noisy", "rows", {"cell": "lstm", "widths": (64, 32), "project": 24, "hidden": 48, "mean": True}),
    Member("mnist1d", "fives", {"cell": "lstm", "widths": (20, 12), "project": 12, "both": True, "hidden": 32}),
    Member("digits-noisy", "columns", {"cell": "lstm", "widths": (36, 16, 28), "project": 10, "hidden": 20}, 2),
)
_GRU = (
    Member("digits", "rows", {"cell": "gru", "widths": (32, 24), "project": 12, "hidden": 40}),
    Member("mnist1d", "fours", {"cell": "gru", "widths": (24, 48), "project": 32, "hidden": 24}),
    Member("mnist1d", "fives", {"cell": "gru", "widths": (20, 32), "both": True, "hidden": 24}),
    Member("digits-pairs", "columns", {"cell": "gru", "widths": (24, 40), "project": 16, "hidden": 32}),
    Member("digits", "patches", {"cell": "gru", "widths": (40, 16), "project": 20, "hidden": 48}),
    Member("digits-noisy", "rows", {"cell": "gru", "widths": (56, 12, 24), "project": 28, "hidden": 16}),
    Member("mnist1d", "fours", {"cell": "gru", "widths": (36, 14, 28), "project": 18, "hidden": 48}),
    Member("digits-noisy", "columns", {"cell": "gru", "widths": (16, 28), "both": True, "project": 24, "hidden": 20}),
)
_TRANSFORMER = (
    Member("digits", "rows", {"width": 32, "layers": ((4, 64), (8, 32)), "hidden": 48}),
    Member("mnist1d", "fours", {"width": 32, "layers": ((8, 48), (4, 96)), "embed": 48, "hidden": 32, "norm_first": True}),
    Member("digits", "patches", {"width": 24, "layers": ((6, 64), (3, 24)), "embed": 16, "hidden": 32, "activation": "gelu"}),
    Member("mnist1d", "fives", {"width": 40, "layers": ((5, 40), (8, 80)), "hidden": 24}),
    Member("digits-noisy", "columns", {"width": 24, "layers": ((4, 48), (6, 24), (3, 72)), "norm_first": True}),
    Member("digits-pairs", "columns", {"width": 24, "layers": ((4, 32), (6, 56)), "embed": 20, "hidden": 28}),
    Member("digits-noisy", "rows", {"width": 28, "layers": ((7, 36), (4, 60), (2, 28)), "hidden": 40, "activation": "gelu"}),
    Member("mnist1d", "fours", {"width": 36, "layers": ((6, 72), (9, 28)), "embed": 64, "hidden": 20, "norm_first": True}),
)
_KINDS = {
    "mlp": _MLP,
    "cnn": _CNN,
    "resnet": _RESNET,
    "mobilenet": _MOBILENET,
    "cnn-1d": _CNN_1D,
    "lstm": _LSTM,
    "gru": _GRU,
    "transformer": _TRANSFORMER,
}


def _placed() -> dict[str, Member]:
    placed: dict[str, Member] = {}
    for kind, members in _KINDS.items():
        for number, member in enumerate(members, 1):
            split = "train" if number <= TRAIN_PER_KIND else "test"
            placed[f"{SUITE}-{kind}-{number}"] = replace(member, kind=kind, split=split, seed=len(placed))
    return placed


# name -> network
MEMBERS = _placed()
