"""Observations and info of many episodes on a table, by row what `observations` and `showing` make of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reptile_env import observations
from reptile_env.batch import Batch, Episodes
from reptile_env.observations import GROUP_FEATURES, KINDS, View
from reptile_env.worth import Ints

Seen = NDArray[np.float32]
Observe = Callable[[Episodes], Seen]


class Network:
    """`observations.network` of many episodes."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self._groups = batch, len(batch.evaluator.sizes)
        # All that the row says; the current group, the progress and, where plans go unmeasured, the quality are filled in.
        self._by_row = np.zeros((len(batch.levels), 2 * self._groups + 4), np.float32)
        for group, (size, widths) in enumerate(zip(batch.evaluator.sizes, batch.evaluator.grid.levels, strict=True)):
            self._by_row[:, group] = (1 - np.array(widths) / size)[batch.levels[:, group]]
        self._by_row[:, -4] = batch.worth.quality
        self._by_row[:, -3] = batch.worth.relative_cost
        self._by_row[:, -1] = batch.worth.budget_left
        np.clip(self._by_row, 0, 1, out=self._by_row)
        self._quality = self._by_row[:, -4].copy()
        self._progress = batch.progress.astype(np.float32)

    def __call__(self, at: Episodes) -> Seen:
        """The observations, ``(episodes, 2 * groups + 4)``."""
        out = self._by_row.take(at.row, axis=0)
        out[np.arange(len(out)), self._groups + self._batch.group[at.made]] = 1
        out[:, -2] = self._progress[at.made]
        if self._batch.rules.measure != "step":
            out[:, -4] = self._quality[at.seen]
        return out


class Group:
    """`observations.group` of many episodes."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        evaluator, groups = batch.evaluator, range(len(batch.evaluator.sizes))
        components, w = batch.rules.components, batch.scene.reference.w
        views = [View(evaluator, evaluator.dense, group, 0.0, 0.0, 0.0, 0.0, 0.0, components, w) for group in groups]
        self._still = np.stack([observations.group(view) for view in views])
        self._sparsity = 1 - batch.widths / np.array(evaluator.sizes)[:, None]

    def __call__(self, at: Episodes) -> Seen:
        """The observations, ``(episodes, 23)``."""
        batch, group = self._batch, self._batch.group[at.made]
        out: Seen = self._still.take(group, axis=0)
        cost = batch.worth.relative_cost[at.row]
        moving = {
            "share removed": 1 - cost,
            "sparsity": self._sparsity[group, batch.levels[at.row, group]],
            "previous rate": at.rate,
            "metric": batch.worth.quality[at.seen],
            "cost": cost,
            "progress": batch.progress[at.made],
            "budget left": batch.worth.budget_left[at.row],
        }
        for name, values in moving.items():
            out[:, len(KINDS) + GROUP_FEATURES.index(name)] = values
        np.clip(out, 0, 1, out=out)
        return out


OBSERVERS: dict[Callable[[View], Seen], Callable[[Batch], Observe]] = {observations.network: Network, observations.group: Group}


class Infos:
    """`showing.info` of many episodes, in Gymnasium's vector form: an array for each key, and a mask of who has it."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self._columns = batch, {name: batch.worth.column(name) for name in ("metric", "loss", "seconds")}
        self._costs = {name: batch.evaluator.columns[name] for name in batch.evaluator.costs.weights}
        self._task: NDArray[Any] = np.array([batch.evaluator.name], object)
        names = batch.evaluator.group_names
        self._names: NDArray[Any] = np.array(["", *(names[group] for group in batch.group[:-1])], object)

    def __call__(self, at: Episodes) -> dict[str, Any]:
        """The infos of episodes that stand at `at`."""
        batch, everyone = self._batch, np.ones(len(at.row), bool)
        data: dict[str, Any] = {
            "task": self._task.repeat(len(at.row)),
            "group": self._names[at.made],
            "rate_requested": at.requested.copy(),
            "rate": at.rate.copy(),
            "measured": at.measured.copy(),
            "budget_bit": at.bit.copy(),
            "metric": self._columns["metric"][at.seen],
            "loss": self._columns["loss"][at.seen],
            **{name: column[at.row] for name, column in self._costs.items()},
            "utility": batch.worth.utility[at.seen],
            "seconds": np.where(at.measured, self._columns["seconds"][at.seen], 0.0),
            "row": at.row.copy(),
        }
        infos = {entry: value for name, array in data.items() for entry, value in ((name, array), (f"_{name}", everyone))}
        ended = at.made == batch.steps
        if ended.any():
            total = np.where(ended, at.total, 0.0)
            score = np.where(ended, batch.scene.anchors.score(at.total), 0.0)
            infos |= {"return": total, "_return": ended, "score": score, "_score": ended}
        return infos


def spread(infos: dict[str, Any], which: Ints, count: int) -> dict[str, Any]:
    """The infos of some of `count` episodes as those of all, of which the others have none."""
    whole = {}
    for name, values in infos.items():
        whole[name] = np.full(count, None, object) if values.dtype == object else np.zeros(count, values.dtype)
        whole[name][which] = values
    return whole
