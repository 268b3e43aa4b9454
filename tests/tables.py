"""A small table for the tests: three groups, every level of which is measured in a second."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.table import make_head, measure_rows
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.evaluation.table_file import Columns, write_table
from reptile_env.evaluation.table_head import Head
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import train
from tests.helpers import classes

NAME = "tiny"
RATES = (0.0, 0.3, 0.6, 0.9)


@functools.cache
def tiny_task() -> Task:
    """8 numbers to 4 logits by way of three groups; with a test split."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)]
        model = nn.Sequential(*layers)
    x, y = classes(900)
    train(model, Split(x[:300], y[:300]), epochs=20, loss=nn.functional.cross_entropy, lr=1e-2)
    return Task(model, train=(x[:300], y[:300]), valid=(x[300:600], y[300:600]), test=(x[600:], y[600:]), name=NAME)


@functools.cache
def tiny(**settings: Any) -> tuple[LiveEvaluator, Head, Columns]:
    """The running network, and what a table of it holds."""
    evaluator = live_evaluator(tiny_task(), Settings(**settings))
    head = make_head(evaluator, RATES)
    return evaluator, head, measure_rows(evaluator, head.grid, range(head.grid.rows))


def write_tiny(folder: Path, name: str = NAME, **settings: Any) -> Path:
    """The table as a file in `folder`."""
    _, head, columns = tiny(**settings)
    path = folder / f"{name}.table"
    write_table(path, head.to_json(), columns)
    return path
