from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

import reptile_env
from benchmarks.budgets import budgeted, table_optimum
from benchmarks.plans import cut_to, random_plans
from benchmarks.weights import Choice, choose, survey
from tests.helpers import make
from tests.suites import main


@pytest.fixture(scope="module")
def choices() -> list[Choice]:
    return survey(make("digits-mlp").evaluator, 40, weights=(0.95, 0.8, 0.05))


def test_a_survey_says_what_the_environment_would_pay(choices: list[Choice]) -> None:
    for choice in choices:
        env = make("digits-mlp", measure="round", w=choice.w)
        assert choice.uniform_rate == env.reference.uniform_rate
        assert choice.scale == pytest.approx(env.reference.scale, rel=1e-9)
        returns = [env.reference.return_of(env.measure(plan)) for plan in random_plans(env.evaluator, 40)]
        assert choice.mean == pytest.approx(np.mean(returns), rel=1e-9)
        assert choice.best == pytest.approx(max(returns), rel=1e-9)


def test_the_choice_separates_and_puts_random_as_far_below_as_uniform_is_above() -> None:
    def choice(w: float, mean: float, best_of_200: float) -> Choice:
        return Choice(w, 0.3, 0.1, mean, best_of_200, 2.0)

    given = [choice(0.95, -5.0, 1.4), choice(0.9, -1.2, 1.3), choice(0.8, -0.1, 1.2), choice(0.7, -1.0, 0.9)]
    assert choose(given).w == 0.9
    with pytest.raises(ValueError, match="unequal widths"):
        choose(given[3:])


def test_no_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="plans=0; give at least 1"):
        survey(make("digits-mlp").evaluator, 0)


@pytest.mark.parametrize("cost", ["mac", "latency"])
def test_a_cost_that_cannot_be_weighed_is_refused(cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("choose-w", "digits-mlp", "--cost", cost) == 2
    assert f"unknown cost '{cost}'; known: params, macs, bytes" in capsys.readouterr().err


def test_a_network_with_nothing_to_cut_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
        import reptile_env
        from tests.helpers import classes
        from torch import nn

        def alone():
            x, y = classes(40)
            return reptile_env.Task(nn.Sequential(nn.Linear(8, 4)), (x[:20], y[:20]), (x[20:], y[20:]))
    """
    (tmp_path / "uncuttable.py").write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert main("choose-w", "uncuttable:alone") == 2
    assert "nothing can be cut in this network" in capsys.readouterr().err


def test_random_plans_are_those_of_their_widths() -> None:
    evaluator = make("digits-mlp").evaluator
    for plan in random_plans(evaluator, 3, seed=5):
        assert cut_to(evaluator, list(plan.widths)) == plan
        assert evaluator.measure(plan).params < evaluator.measure(evaluator.dense).params


def test_references_under_a_budget_keep_it_and_are_on_the_scale_of_the_task() -> None:
    env = make("digits-mlp", measure="round", budget=0.4)
    found = budgeted("digits-mlp", 0.4, 20, 30, lambda step, done: None)
    best = found["best_known"]
    assert best["relative_cost"] <= 0.4
    measured = env.measure(reptile_env.Plan.from_dict(best["plan"]))
    assert best["return"] == env.reference.return_of(measured)
    assert best["return"] >= max(found["uniform"]["return"], found["random"]["best_of_200"])
    assert 0.3 < found["random"]["mean_relative_cost"] <= 0.4  # random search fills its budget
    tight = budgeted("digits-mlp", 0.15, 20, 5, lambda step, done: None)
    assert 0.12 < tight["random"]["mean_relative_cost"] <= 0.15
    assert tight["best_known"]["relative_cost"] <= 0.15


def test_the_table_knows_an_optimum_as_the_network_measures_it() -> None:
    made = make("digits-mlp", measure="round")
    (found,) = table_optimum(made, "digits-mlp")
    assert found.value == made.reference.return_of(made.measure(found.plan))
    exact = make("digits-mlp", evaluator="table", measure="round")
    assert exact.optimum()[0] == found.plan
    assert list(table_optimum(made, "no-table")) == []
