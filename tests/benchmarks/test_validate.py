"""How runs are checked: what holds is confirmed, and whatever was tampered with is found, with both numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.checks import problems_of
from benchmarks.results import Run, from_bytes, to_bytes
from benchmarks.suites import Case, Suite
from benchmarks.verdicts import chosen_rows
from tests.suites import BROKEN, TINY, add_suites, changed, made, recomputed

LIVE = Suite("live", 1, "for tests", (Case("digits-mlp", "digits-mlp", 30),), seeds=2)
JOINT = Suite("joint", 1, "for tests", (Case("digits-mlp", "digits-mlp", 12),), env_id="ReptileCompress-v0")


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    add_suites(monkeypatch, TINY, BROKEN, LIVE, JOINT)


@pytest.mark.parametrize("agent", ["random", "dqn", "uniform", "beam-search", "mcts"])
@pytest.mark.parametrize("case", [0, 1])
def test_every_plan_of_an_honest_run_is_confirmed(agent: str, case: int) -> None:
    honest = made(agent, case)
    assert problems_of(honest, TINY, range(honest.evaluated)) == []


@pytest.mark.parametrize("suite", [LIVE, JOINT], ids=lambda suite: suite.name)
@pytest.mark.parametrize("agent", ["random", "ppo"])
def test_running_networks_bits_and_ranks_are_replayed_too(suite: Suite, agent: str) -> None:
    honest = made(agent, suite=suite)
    assert problems_of(honest, suite, range(honest.evaluated)) == []
    assert ("bits" in honest.columns) == (suite is JOINT)


def better(run: Run) -> Run:
    """One example more is classified rightly, and the return says so too."""
    row = int(np.argmax(run.columns["plan_return"]))
    metric = run.columns["metric"][row] + 0.01
    gain = run.scale["w"] * 0.01 / run.dense["metric"] / run.scale["scale"]
    tampered = changed(run, "metric", row, metric)
    return changed(tampered, "plan_return", row, run.columns["plan_return"][row] + gain)


def other(run: Run) -> Run:
    """The decisions are said to be those of another plan."""
    return recomputed(changed(run, "widths", 7, run.columns["widths"][8]))


# name -> what is changed, where it shows, and in which plan
TAMPERED: dict[str, tuple[Callable[[Run], Run], str]] = {
    "a better metric": (better, "metric"),
    "a better metric, carefully": (lambda run: recomputed(changed(run, "metric", 11, 0.99)), "metric"),
    "other decisions, carefully": (other, "metric"),
    "other decisions": (lambda run: changed(run, "widths", (3, 4), 5), "bytes"),
    "a better return": (lambda run: changed(run, "plan_return", 5, 3.0), "plan_return"),
    "less cost": (lambda run: changed(run, "macs", 5, 100), "macs"),
    "a lower loss": (lambda run: changed(run, "loss", 0, 0.01), "loss"),
    "a faster clock": (lambda run: recomputed(changed(run, "measured_seconds", 2, 1e-9)), "measured_seconds"),
    "more evaluations than there were": (lambda run: changed(run, "evaluation", 39, 90), "evaluation"),
    "a finer scale": (lambda run: dataclasses.replace(run, scale=run.scale | {"scale": run.scale["scale"] / 2}), "scale: scale"),
    "a worse dense network": (lambda run: dataclasses.replace(run, dense=run.dense | {"metric": 0.5}), "dense: metric"),
    "a lower optimum": (lambda run: dataclasses.replace(run, best_known_return=1.2), "best_known_return"),
    "a lower uniform": (lambda run: dataclasses.replace(run, uniform_return=0.5), "uniform_return"),
    "other costs": (lambda run: dataclasses.replace(run, cost_model=run.cost_model | {"uncounted": -9999}), "cost_model"),  # type: ignore[operator]
    "a looser budget": (lambda run: dataclasses.replace(run, settings=run.settings | {"budget": 0.9}), "settings"),
    "another environment": (lambda run: dataclasses.replace(run, env_id="CartPole-v1"), "env_id"),
    "a policy it never had": (lambda run: dataclasses.replace(run, policy_return=2.0, policy_evaluation=3), "policy_return"),
    "a policy of no plan": (lambda run: dataclasses.replace(run, policy_return=2.0), "policy_return"),
    "fewer evaluations": (lambda run: dataclasses.replace(run, evaluations=20), "evaluations"),
    "a seed that there is not": (lambda run: dataclasses.replace(run, seed=77), "agent, task, seed"),
    "trained on others": (lambda run: dataclasses.replace(run, training_networks=("digits-cnn",)), "training_networks"),
    "a width that the table has not": (lambda run: recomputed(changed(run, "widths", (9, 0), 3)), "widths"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_found(name: str, run: Run) -> None:
    tamper, shows = TAMPERED[name]
    forged = from_bytes(to_bytes(tamper(run)))  # a file with all its hashes in order
    problems = problems_of(forged, TINY, range(run.evaluated))
    assert shows in [problem.what for problem in problems]
    assert all(problem.expected != problem.received for problem in problems)


def test_widths_above_dense_are_no_decisions(run: Run) -> None:
    (problem,) = problems_of(changed(run, "widths", (0, 0), 10_000), TINY, [0])
    assert (problem.what, problem.expected) == ("widths", "groups or channels that there are not")


def test_a_policys_return_must_be_that_of_its_plan(stepwise: Run) -> None:
    assert problems_of(stepwise, TINY, range(40)) == []
    (problem,) = problems_of(dataclasses.replace(stepwise, policy_return=1.9), TINY, range(40))
    assert (problem.evaluation, problem.what, problem.expected) == (40, "policy_return", 1.9)
    assert problem.received == stepwise.policy_return
    early = dataclasses.replace(stepwise, policy_evaluation=38, policy_return=float(stepwise.columns["plan_return"][37]))
    assert [problem.received for problem in problems_of(early, TINY, range(40))] == ["no complete plan"]
    row = len(stepwise.groups) - 1  # of an episode in which it still explored
    explored = dataclasses.replace(stepwise, policy_evaluation=row + 1, policy_return=float(stepwise.columns["plan_return"][row]))
    (problem,) = problems_of(explored, TINY, range(40))
    assert (problem.what, problem.expected, problem.received) == ("policy_evaluation", row + 1, 40)
    (problem,) = problems_of(dataclasses.replace(stepwise, policy_evaluation=None, policy_return=None), TINY, range(40))
    assert (problem.what, problem.expected) == ("policy_return", None)


def test_an_agent_without_a_policy_claims_none(run: Run) -> None:
    last = float(run.columns["plan_return"][-1])
    forged = dataclasses.replace(run, policy_evaluation=run.evaluated, policy_return=last)
    (problem,) = problems_of(forged, TINY, range(run.evaluated))
    assert (problem.expected, problem.received) == (last, "none, for random has no policy")


def test_other_hyperparameters_are_another_agent(stepwise: Run) -> None:
    tuned = dataclasses.replace(stepwise, agent_settings=stepwise.agent_settings | {"learning_rate": 0.5})
    assert [problem.what for problem in problems_of(tuned, TINY, [0])] == ["agent_settings"]


def test_a_plan_that_the_budget_forbids_is_found(stepwise: Run) -> None:
    forged = recomputed(changed(stepwise, "widths", 39, np.array(stepwise.sizes)))
    forged = dataclasses.replace(forged, policy_return=float(forged.columns["plan_return"][39]))
    (problem,) = problems_of(forged, TINY, [39])
    assert (problem.evaluation, problem.what) == (40, "widths")
    assert problem.received == "no actions of the environment lead there"


def test_a_better_plan_may_have_been_found_since_but_the_claim_may_not_be_above_it() -> None:
    honest = made("random", suite=LIVE)
    older = dataclasses.replace(honest, best_known_return=honest.best_known_return - 0.2)
    assert problems_of(older, LIVE, [0]) == []
    (problem,) = problems_of(dataclasses.replace(honest, best_known_return=honest.best_known_return + 0.2), LIVE, [0])
    assert problem.what == "best_known_return"


def test_another_machine_may_see_one_example_otherwise() -> None:
    honest = made("random", suite=LIVE)
    examples = 450
    row = 4
    for change, fine in ((1 / examples, True), (-1 / examples, True), (3 / examples, False)):
        near = recomputed(changed(honest, "metric", row, honest.columns["metric"][row] + change))
        assert (problems_of(near, LIVE, [row]) == []) is fine


def test_a_sample_holds_the_plans_that_count(stepwise: Run) -> None:
    rows = chosen_rows(stepwise, 10, 0)
    allowed = np.where(stepwise.columns["within_budget"], stepwise.columns["plan_return"], -np.inf)
    assert len(rows) == 10
    assert {int(np.argmax(allowed)), 39} <= set(rows)
    assert chosen_rows(stepwise, 10, 0) == rows != chosen_rows(stepwise, 10, 1)
    assert chosen_rows(stepwise, None, 0) == list(range(40)) == chosen_rows(stepwise, 40, 0)
