"""Scorers for tests, and the error of a cut by an independent route."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from reptile_env.compression import consumers, moments
from reptile_env.compression.granularity import find_structure
from reptile_env.compression.groups import tensors_of
from reptile_env.compression.importance import Scorer
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.compression.kinds import first, made


def task_of_kind(name: str) -> Task:
    """A task on a network of `kinds`, whatever it returns; its loss has a gradient."""
    model, data, _ = made(name)
    return task_on(model, data)


def task_on(model: nn.Module, data: Split, **kwargs: object) -> Task:
    """A task whose loss is the mean square of what the network returns."""
    half = len(data) // 2
    scores = {"metric": lambda o, t: 1 / (1 + first(o).abs().mean()), "loss": lambda o, t: first(o).square().mean()}
    return Task(model, data[:half], data[half:], **(scores | kwargs))  # type: ignore[arg-type]


def scorer_of(task: Task, granularity: str = "structured", refits: bool = True, examples: int | None = None) -> Scorer:
    """A scorer that calibrates on the first training examples, or on all."""
    train = task.train[:examples]
    structure = find_structure(granularity, task.model, task.valid[:4])
    found = consumers.find_consumers(structure, task.valid[:4].inputs)
    cached = moments.collect(structure.model, found, train, 256)
    return Scorer(structure, tensors_of(structure.model), lambda: cached, task, train, refits)


def error_of_cut(scorer: Scorer, group: int, gone: list[int], refit: bool = True) -> float:
    """Relative squared error of what reads a group without some of its channels, by solving for new weights."""
    return sum(float(lost.sum() / whole.sum()) for lost, whole, _ in errors_of_cut(scorer, group, gone, gone, refit))


def errors_of_cut(
    scorer: Scorer, group: int, gone: list[int], silent: list[int], refit: bool = True
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """For each weight that reads a group without some channels: error and energy of its outputs, and the energy of all.

    Outputs that are themselves one of the channels `silent` are left out.
    """
    for consumer, known in scorer.moments().items():
        axis = scorer.structure.axes.get((consumer.weight, consumer.into))
        if axis is None or not (axis.group == group).any():
            continue
        lost = torch.from_numpy(axis.group == group) & torch.isin(torch.from_numpy(axis.channel), torch.tensor(gone))
        kept = torch.nonzero(~lost).flatten()
        weights = torch.zeros_like(known.dense)
        rows = known.features(kept)
        weights[:, rows] = _solved(known, kept) if refit else known.dense[:, rows]
        out = scorer.structure.axes.get((consumer.weight, consumer.out))
        stays = torch.ones(known.dense.shape[0] * known.dense.shape[2], dtype=torch.bool)
        if out is not None:
            stays = ~(torch.from_numpy(out.group == group) & torch.isin(torch.from_numpy(out.channel), torch.tensor(silent)))
        whole = _energy(known.dense, known.gram)
        yield _energy(known.dense - weights, known.gram)[stays], whole[stays], float(whole.sum())


def _solved(known: moments.Moments, kept: Tensor) -> Tensor:
    weights, constants = known.solve(kept)
    return weights if constants is None else torch.cat([weights, constants.view(weights.shape[0], 1, -1)], 1)


def _energy(weights: Tensor, gram: Tensor) -> Tensor:
    return torch.einsum("gio,gij,gjo->go", weights, gram, weights).flatten()
