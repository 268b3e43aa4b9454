from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.helpers import random_plan, small_task


def test_calibration_examples_are_spread_over_the_split() -> None:
    seen: list[torch.Tensor] = []
    task = small_task("spread-out")
    task.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    LiveEvaluator(task, Settings("reconstruct", calibration_examples=10))
    rows = [int(k) for k in np.linspace(0, 299, 10).round()]
    assert any(x.shape == (10, 8) and torch.equal(x, task.train.inputs[rows]) for x in seen)
    assert not any(torch.equal(x, task.valid.inputs[: len(x)]) for x in seen if len(x) > 4)


def test_the_train_loss_is_measured_on_request(user_task: Task) -> None:
    asked = LiveEvaluator(user_task, Settings("none", train_loss=True, calibration_examples=1000))
    measured = asked.measure(asked.dense)
    with torch.no_grad():
        expected = user_task.score(user_task.model(user_task.train.inputs), user_task.train)[1]
    assert measured.train_loss == pytest.approx(expected, rel=1e-5)
    plain = LiveEvaluator(user_task, Settings("none"))
    assert plain.measure(plain.dense).train_loss is None


def test_threads_may_share_an_evaluator() -> None:
    task = make_task("digits-mlp")
    shared, alone = LiveEvaluator(task, Settings()), LiveEvaluator(task, Settings())
    plans = [random_plan(shared.group_names, shared.sizes, np.random.default_rng(seed)) for seed in range(24)]
    found: dict[int, list[object]] = {}
    workers = [threading.Thread(target=lambda k=k: found.update({k: [shared.measure(p) for p in plans[k::3]]})) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k in range(3):
        assert found[k] == [alone.measure(p) for p in plans[k::3]]


def test_a_task_that_is_dropped_leaves_no_evaluator_behind() -> None:
    task = small_task("dropped")
    live_evaluator(task, Settings())
    gone = weakref.ref(task)
    del task
    gc.collect()
    assert gone() is None


def test_scores_order_channels_as_the_importance_cuts_them(user_task: Task) -> None:
    evaluator = LiveEvaluator(user_task, Settings("none", importance="l2"))
    for group, scores in enumerate(evaluator.scores("l2")):
        assert scores.shape == (evaluator.sizes[group],)
        assert scores.dtype == np.float64
        least = evaluator.cut(evaluator.dense, group, 5).keep[group]
        assert set(np.argsort(scores)[5:].tolist()) == set(least)  # type: ignore[arg-type]
    assert [len(scores) for scores in evaluator.scores("lamp")] == list(evaluator.sizes)
    with pytest.raises(ValueError, match="'auto' chooses another rule for each group"):
        evaluator.scores("auto")
    with pytest.raises(ValueError, match="unknown importance 'l3'"):
        evaluator.scores("l3")
