"""Memory limits, the cache on disk and threads: none of them changes a measurement."""

from __future__ import annotations

import copy
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reptile_env.compression.bounded import Bounded
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.resources import Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.helpers import make


def crawls(evaluator: LiveEvaluator, count: int = 2, seed: int = 0) -> list[Plan]:
    """Every plan on the way of a few episodes."""
    rng, plans = np.random.default_rng(seed), []
    for _ in range(count):
        plan = evaluator.dense
        for group, size in enumerate(evaluator.sizes):
            plan = evaluator.cut(plan, group, removal_count(size, float(rng.choice([0.2, 0.5, 0.8]))))
            plans.append(plan)
    return plans


@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
@pytest.mark.parametrize("limit", [0, 200_000])
def test_memory_limits_are_kept_and_change_nothing(recovery: str, limit: int) -> None:
    task = make_task("digits-cnn")
    free, bound = LiveEvaluator(task, Settings(recovery)), LiveEvaluator(task, Settings(recovery), Resources(cache_bytes=limit))
    for plan in crawls(free):
        assert bound.measure(plan) == free.measure(plan)
        assert bound.held_bytes <= limit
    assert free.held_bytes > 200_000


def test_what_was_used_last_stays() -> None:
    held: Bounded[str, int] = Bounded(10, lambda _, size: size)
    for name, size in (("a", 4), ("b", 4)):
        held.put(name, size)
    assert held.get("a") == 4
    held.put("c", 4)
    assert (held.get("a"), held.get("b"), held.get("c"), held.bytes) == (4, None, 4, 8)
    held.put("too large", 11)
    assert held.keys() == ["a", "c"]
    held.limit = 4
    assert held.keys() == ["c"]
    assert held.bytes == 4


@pytest.mark.slow
def test_another_process_finds_what_was_measured(tmp_path: Path) -> None:
    code = (
        "import gymnasium as gym, reptile_env, sys\n"
        "env = gym.make('ReptilePrune-v0', task='digits-mlp', disk_cache=sys.argv[1]).unwrapped\n"
        "env.reset(seed=0)\n"
        "print(*[env.step(env.action_for(.4))[4]['loss'] for _ in env.groups], env.evaluator.measured)\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True) for _ in "ab"]
    (*first, measured), (*second, again) = (run.stdout.split() for run in runs)
    assert first == second
    assert int(measured) > 5
    assert int(again) == 0
    assert len(list(tmp_path.glob("*.sqlite"))) == 1


def _fill(folder: str) -> None:
    evaluator = live_evaluator("digits-mlp", Settings(), Resources(disk_cache=folder))
    for plan in crawls(evaluator):
        evaluator.measure(plan)


@pytest.mark.slow
def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    evaluator = LiveEvaluator(make_task("digits-mlp"), Settings(), Resources(disk_cache=str(tmp_path)))
    fresh = LiveEvaluator(make_task("digits-mlp"), Settings())
    assert all(evaluator.measure(plan) == fresh.measure(plan) for plan in crawls(evaluator))
    assert evaluator.measured == 0


def _task(weight: float = 1.0, extra: float = 0.0, **options: Any) -> Task:
    model = user_network()
    with torch.no_grad():
        next(model.parameters()).mul_(weight)
    inputs = torch.randn(64, *user_shape(), generator=torch.Generator().manual_seed(1)) + extra
    with torch.no_grad():
        labels = model.eval()(inputs).argmax(1)
    return Task(model, (inputs[:32], labels[:32]), (inputs[32:], labels[32:]), name="user", **options)


def user_shape() -> tuple[int, ...]:
    """Of one input of `user_network`."""
    return (6,)


def user_network() -> nn.Module:
    """A small network of seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def scaled(outputs: Any, targets: Any) -> float:
    """A user's metric."""
    return float((outputs.argmax(1) == targets).float().mean()) * 2


def test_other_weights_data_settings_or_metrics_meet_other_entries(tmp_path: Path) -> None:
    def file_of(task: Task, settings: Settings = Settings(), threads: int | None = None) -> Path:  # noqa: B008 (immutable)
        evaluator = LiveEvaluator(task, settings, Resources(disk_cache=str(tmp_path), num_threads=threads))
        assert evaluator.disk is not None
        return evaluator.disk.path

    same = [file_of(_task()), file_of(_task())]
    others = [
        file_of(_task(weight=1.001)),
        file_of(_task(extra=0.001)),
        file_of(_task(metric=scaled)),
        file_of(_task(), Settings("none")),
        file_of(_task(), Settings(calibration_examples=16)),
        file_of(_task(), threads=torch.get_num_threads() + 1),
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 1 + len(others)


def test_a_metric_that_can_not_be_told_from_another_is_refused(tmp_path: Path) -> None:
    class Odd:
        def __init__(self) -> None:
            self.state = iter([1])

        def __call__(self, outputs: Any, targets: Any) -> float:
            return 1.0

    with pytest.raises(ValueError, match="can't be told from another"):
        LiveEvaluator(_task(metric=Odd()), Settings(), Resources(disk_cache=str(tmp_path)))


def test_a_damaged_file_is_done_without(tmp_path: Path) -> None:
    task = make_task("digits-mlp")
    first = LiveEvaluator(task, Settings(), Resources(disk_cache=str(tmp_path)))
    assert first.disk is not None
    expected = first.measure(first.dense)
    first.disk.close()
    for extra in tmp_path.glob("*.sqlite-*"):
        extra.unlink()
    first.disk.path.write_bytes(b"no database" * 1000)
    with pytest.warns(UserWarning, match="delete the file"):
        again = LiveEvaluator(task, Settings(), Resources(disk_cache=str(tmp_path)))
    assert again.measure(again.dense) == expected


def test_an_entry_cut_short_is_measured_again(tmp_path: Path) -> None:
    task = make_task("digits-mlp")
    first = LiveEvaluator(task, Settings(), Resources(disk_cache=str(tmp_path)))
    expected = first.measure(first.dense)
    assert first.disk is not None
    with sqlite3.connect(first.disk.path) as connection:
        connection.execute("UPDATE measurements SET value = '{'")
    again = LiveEvaluator(task, Settings(), Resources(disk_cache=str(tmp_path)))
    with pytest.warns(UserWarning, match="delete the file"):
        assert again.measure(again.dense) == expected


def test_threads_are_those_asked_for_while_measuring_and_as_before_afterwards() -> None:
    before, seen = torch.get_num_threads(), []

    def metric(outputs: Any, targets: Any) -> float:
        seen.append(torch.get_num_threads())
        return float((outputs.argmax(1) == targets).float().mean())

    task = _task(metric=metric)
    evaluator = LiveEvaluator(task, Settings(), Resources(num_threads=before + 1))
    seen.clear()
    evaluator.measure(evaluator.dense)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_environments_share_an_evaluator_and_the_limits_asked_for_last() -> None:
    first, second = make("digits-mlp", cache_bytes=10**6), make("digits-mlp", cache_bytes=10**5)
    assert first.evaluator is second.evaluator
    first.reset(seed=0)
    for group in first.groups:
        first.step(first.action_for(0.3 if group else 0.0))
    assert first.evaluator.held_bytes <= 10**5
    assert copy.deepcopy(first).evaluator is first.evaluator
    assert make("digits-mlp", num_threads=1).evaluator is not first.evaluator


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"cache_bytes": -1}, ValueError, "at least 0"),
        ({"cache_bytes": 1.5}, TypeError, "whole number"),
        ({"num_threads": 0}, ValueError, "at least 1"),
        ({"num_threads": True}, TypeError, "whole number"),
        ({"disk_cache": 3}, TypeError, "path of a folder"),
        ({"disk_cache": __file__}, ValueError, "name a folder"),
    ],
)
def test_bad_resources_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make("digits-mlp", **given)
