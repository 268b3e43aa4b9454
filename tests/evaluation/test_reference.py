from __future__ import annotations

import pytest

from reptile_env.actions import uniform_rates
from reptile_env.compression.plan import removal_count
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.reference import MARGIN, W_CHOICES, make_reference
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.task import Task
from tests.helpers import small_task


def gains(evaluator: LiveEvaluator, cost: str, w: float, max_rate: float) -> dict[float, float]:
    """Utility above the dense network's of each uniform rate, from the design's formula."""
    dense = evaluator.measure(evaluator.dense)
    found = {}
    for percent in range(5, round(100 * max_rate) + 1, 5):
        plan = evaluator.dense
        for group, size in enumerate(evaluator.sizes):
            plan = evaluator.cut(plan, group, removal_count(size, percent / 100))
        m = evaluator.measure(plan)
        found[percent / 100] = w * (m.metric / dense.metric - 1) + (1 - w) * (1 - getattr(m, cost) / getattr(dense, cost))
    return found


@pytest.mark.parametrize("cost", ["macs", "params", "bytes"])
@pytest.mark.parametrize("max_rate", [0.9, 0.5])
def test_the_best_uniform_rate_is_the_best(builtin: str, cost: str, max_rate: float) -> None:
    evaluator = live_evaluator(builtin, Settings())
    reference = make_reference(evaluator, cost, uniform_rates(max_rate), None)
    found = gains(evaluator, cost, reference.w, max_rate)
    assert reference.w == evaluator.w
    assert reference.uniform_rate == max(found, key=found.__getitem__)
    assert reference.scale == pytest.approx(max(found.values()), abs=1e-12)
    assert reference.return_of(evaluator.measure(reference.uniform_plan)) == pytest.approx(1, abs=1e-12)
    assert reference.return_of(reference.dense) == 0


def test_w_is_the_largest_at_which_cutting_pays() -> None:
    evaluator = live_evaluator(small_task("choose-w"), Settings("none"))
    reference = make_reference(evaluator, "macs", uniform_rates(0.9), None)
    paying = [w for w in W_CHOICES if max(gains(evaluator, "macs", w, 0.9).values()) > MARGIN]
    assert reference.w == max(paying)
    assert reference.scale > MARGIN


def test_the_sweep_goes_up_to_the_largest_rate() -> None:
    assert uniform_rates(0.9)[-1] == 0.9
    assert len(uniform_rates(0.9)) == 18
    assert uniform_rates(0.32) == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert uniform_rates(0.03) == [0.03]


def test_wall_time_is_no_part_of_a_measurement() -> None:
    fast, slow = (Measurement(0.5, 1.0, 1, 2, 3, (0.0,), seconds=s) for s in (0.1, 9.0))
    assert fast == slow
    assert fast != Measurement(0.5, 1.1, 1, 2, 3, (0.0,))
    assert [fast.cost(name) for name in ("params", "macs", "bytes")] == [1, 2, 3]


def test_environments_share_one_evaluator(user_task: Task) -> None:
    shared = live_evaluator(user_task, Settings())
    assert live_evaluator(user_task, Settings()) is shared
    assert live_evaluator(user_task, Settings("none")) is not shared
    assert live_evaluator("digits-mlp", Settings()) is live_evaluator("digits-mlp", Settings())
    plan = shared.cut(shared.dense, 0, 3)
    assert shared.measure(plan) is shared.measure(plan)
