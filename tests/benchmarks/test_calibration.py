"""Calibration again: better searches, and a plan that is known is not lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agents.uniform import Uniform
from benchmarks.budgets import best_of, budgeted, known_best, share_best
from benchmarks.calibration import calibrate, check
from reptile_env.compression.plan import Plan
from reptile_env.tasks import registry
from tests.helpers import make

TASK = "digits-mlp"


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return registry.references()[TASK]


def test_a_short_calibration_keeps_the_better_plans_that_are_known(known: dict[str, Any]) -> None:
    before = copy.deepcopy(known)
    marked = copy.deepcopy(known)
    marked["best_known"] |= {"found_by": "a run of before", "command": "a command of before"}
    again = calibrate(TASK, evaluations=30, budgets=(0.25,), known=marked)
    assert marked["best_known"]["plan"] == before["best_known"]["plan"]
    best = again["best_known"]
    assert best["return"] >= known["best_known"]["return"]
    assert (best["found_by"], best["command"]) in (
        ("a run of before", "a command of before"),
        ("the optimum of the task's table", f"python -m benchmarks checkpoints {TASK} --calibrate-only --evaluations 30"),
    )
    assert again["budgets"]["0.25"]["best_known"]["return"] >= known["budgets"]["0.25"]["best_known"]["return"]
    for key in ("w", "scale", "dense", "uniform", "settings"):
        assert again[key] == pytest.approx(known[key]) if key == "scale" else again[key] == known[key]


def test_a_known_plan_is_measured_anew_with_whoever_found_it(known: dict[str, Any]) -> None:
    env = make(TASK, measure="round")
    entry = {"best_known": known["best_known"] | {"return": 99.0, "command": "a command"}}
    (found,) = known_best(env, entry)
    assert found.value == env.reference.return_of(env.measure(found.plan)) < 99
    assert found.plan == Plan.from_dict(known["best_known"]["plan"])
    assert found.origin == {"found_by": known["best_known"]["found_by"], "command": "a command"}
    assert list(known_best(env, None)) == []


def test_a_known_plan_of_another_network_or_beyond_the_cap_is_no_candidate(known: dict[str, Any]) -> None:
    other = registry.references()["digits-cnn"]
    assert list(known_best(make(TASK, measure="round"), other)) == []
    share = known["best_known"]["relative_cost"]
    assert list(known_best(make(TASK, measure="round"), known, share * 0.9)) == []
    assert len(list(known_best(make(TASK, measure="round"), known, share))) == 1


def test_under_a_budget_the_known_plan_stays_where_a_short_search_finds_less(known: dict[str, Any]) -> None:
    capped = known["budgets"]["0.5"]
    short = budgeted(TASK, 0.5, 5, 5, lambda step, done: None, command="made so")
    assert short["best_known"]["command"] == "made so"
    assert short["best_known"]["return"] < capped["best_known"]["return"]
    kept = budgeted(TASK, 0.5, 5, 5, lambda step, done: None, capped)
    assert kept["best_known"]["return"] == pytest.approx(capped["best_known"]["return"], abs=0.05)
    assert Plan.from_dict(kept["best_known"]["plan"]) == Plan.from_dict(capped["best_known"]["plan"])


def test_another_weight_of_the_metric_is_that_of_the_caps_too() -> None:
    for w in (0.5, 0.9):
        uniform = budgeted(TASK, 0.5, 5, 5, lambda step, done: None, w=w)["uniform"]
        best = Uniform("uniform").run(make(TASK, measure="round", budget=0.5, w=w), 18, 0).best
        assert best is not None
        assert uniform == {"rate": best.rate, "return": best.plan_return}


def test_the_best_of_so_many_is_a_mean_over_whole_samples() -> None:
    assert best_of([1.0, 5.0, 2.0, 3.0, 9.0], 2) == 4.0
    assert best_of([1.0, 5.0], 200) == 5.0


@pytest.mark.parametrize(
    ("mean", "best_of_200", "best", "broken"),
    [
        (-0.1, 1.05, 1.2, None),
        (0.0, 1.05, 1.2, r"not mean random \(0\.000\) < 0\. Change"),
        (-0.1, 1.0, 1.2, r"not best of 200 random \(1\.000\) > uniform 1\. Change"),
        (-0.1, 1.15, 1.2, r"not best of 200 random \(1\.150\) \+ 0\.1 <= best known \(1\.200\)\. Change"),
        (-0.1, 1.03, 1.14, r"not best known \(1\.140\) >= 1\.15\. Change"),
    ],
)
def test_what_a_task_has_to_show(mean: float, best_of_200: float, best: float, broken: str | None) -> None:
    entry = {"random": {"mean": mean, "best_of_200": best_of_200}, "best_known": {"return": best}}
    if broken is None:
        check("mine", entry)
    else:
        with pytest.raises(ValueError, match=f"task 'mine' is no benchmark: {broken}"):
            check("mine", entry)


def test_a_calibration_that_shows_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'digits-mlp' is no benchmark: not mean random"):
        calibrate(TASK, evaluations=5, w=0.3, budgets=())


def test_every_cap_has_the_best_plan_that_was_found_under_any_and_meets_it() -> None:
    def found(value: float, share: float) -> dict[str, Any]:
        plan = {"first": {"keep": list(range(round(100 * share)))}}
        return {"return": value, "relative_cost": share, "valid": 0.9, "found_by": f"at {share}", "command": "c", "plan": plan}

    entry: dict[str, Any] = {
        "best_known": found(1.3, 0.6) | {"test": 0.5},
        "budgets": {
            cap: {"best_known": found(*best)} for cap, best in {"0.25": (1.1, 0.2), "0.5": (1.0, 0.4), "0.75": (1.4, 0.7)}.items()
        },
    }
    share_best(entry, lambda plan: len(plan.keep[0]) / 100)
    assert entry["budgets"]["0.25"]["best_known"] == found(1.1, 0.2)
    assert entry["budgets"]["0.5"]["best_known"] == found(1.1, 0.2) | {"found_by": "at 0.2 (with at most 25% of the MACs)"}
    assert entry["budgets"]["0.75"]["best_known"] == found(1.4, 0.7)
    assert entry["best_known"] == found(1.4, 0.7) | {"found_by": "at 0.7 (with at most 75% of the MACs)", "test": 0.7}
    entry["budgets"]["0.75"]["best_known"] = found(1.5, 0.65)
    del entry["budgets"]["0.75"]["best_known"]["command"]
    share_best(entry, lambda plan: 0.0)
    assert "command" not in entry["best_known"]  # that of the plan before would find another one
