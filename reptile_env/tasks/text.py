"""What tasks on sentences share: which examples two splits must not both have, and the order that keeps batches short."""

from __future__ import annotations

import torch
from torch import Tensor

from reptile_env.tasks.splits import Split


def disjoint(splits: dict[str, Split]) -> dict[str, Split]:
    """Splits without the examples that a later one has too: what is for reports is kept whole."""
    seen: set[bytes] = set()
    kept = {}
    for name, split in reversed(splits.items()):
        rows = [row for row in range(len(split)) if not split[row : row + 1].fingerprints() & seen]
        kept[name] = split[torch.tensor(rows, dtype=torch.long)]
        seen |= split.fingerprints()
    return kept


def by_length(split: Split, lengths: Tensor) -> Split:
    """Examples sorted by their lengths ``(n,)``, so that a batch holds little padding; the middle comes first, as costs are its."""
    order = torch.argsort(lengths, stable=True)
    return split[order.roll(-(len(order) // 2))]
