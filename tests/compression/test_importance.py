from __future__ import annotations

import pytest
import torch
from torch import nn

from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.task import Task
from tests.compression.networks import task_of
from tests.helpers import small_network, small_task


@pytest.mark.parametrize(("importance", "order"), [("l1", 1), ("l2", 2)])
def test_the_smallest_filters_go_first(importance: str, order: int, user_task: Task) -> None:
    evaluator = LiveEvaluator(user_task, Settings("none", importance))
    norms = torch.linalg.vector_norm(user_task.model[0].weight, ord=order, dim=1)
    for count in (1, 7, 23):
        kept = evaluator.cut(evaluator.dense, 0, count).keep[0]
        assert kept == tuple(sorted(norms.argsort()[count:].tolist()))


def test_what_is_cut_stays_cut(user_task: Task) -> None:
    evaluator = LiveEvaluator(user_task, Settings("none"))
    at_once = evaluator.cut(evaluator.dense, 0, 12)
    assert evaluator.cut(evaluator.cut(evaluator.dense, 0, 5), 0, 7) == at_once
    assert evaluator.cut(at_once, 0, 0) == at_once


def test_l1_and_l2_disagree_somewhere(user_task: Task) -> None:
    plans = []
    for importance in ("l1", "l2"):
        evaluator = LiveEvaluator(user_task, Settings("none", importance))
        plans += [tuple(evaluator.cut(evaluator.dense, g, size // 2) for g, size in enumerate(evaluator.sizes))]
    assert plans[0] != plans[1]


def test_equal_filters_leave_in_a_fixed_order() -> None:
    model = small_network()
    nn.init.ones_(model[0].weight)
    evaluator = LiveEvaluator(small_task("equal", model=model, w=0.5), Settings("none"))
    assert evaluator.cut(evaluator.dense, 0, 4).keep[0] == tuple(range(4, 24))


def test_coupled_layers_weigh_alike_whatever_their_scale() -> None:
    task = task_of("residual")
    evaluator = LiveEvaluator(task, Settings("none"))
    expected = evaluator.cut(evaluator.dense, 0, 5)
    with torch.no_grad():
        task.model.stem[0].weight.mul_(1000)  # this task is the test's own
    scaled = LiveEvaluator(task, Settings("none"))
    assert scaled.cut(scaled.dense, 0, 5) == expected
