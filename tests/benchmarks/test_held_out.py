"""What validation measures of the plans that count: on the validation split once more, and on the test split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import validate as validation
from benchmarks.budgets import inner_of
from benchmarks.checks import problems_of
from benchmarks.derived_columns import DERIVED, with_derived
from benchmarks.engine import Lost
from benchmarks.held_out import best_uniform, held_out, return_on_test
from benchmarks.leaderboard import Validated, as_measured, page
from benchmarks.plans import cut_to
from benchmarks.report.cases import by_suite
from benchmarks.report.validation import Validation
from benchmarks.results import Run, best_row, head_of, run_path, write_run
from benchmarks.results_folder import claim
from benchmarks.suites import SUITES, Case, Suite
from reptile_env.actions import uniform_rates
from reptile_env.evaluation.reference import uniform_plan
from reptile_env.rewards import quality
from reptile_env.tasks import registry
from tests.suites import TINY, Here, add_suites, made, main

LIVE = Suite("live", 1, "for tests", (Case("digits-mlp", "digits-mlp", 40),), seeds=2)
COARSE = Suite("coarse", 1, "for tests", (Case("mnist1d-gru", "mnist1d-gru", 20),))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites, and no new process."""
    add_suites(monkeypatch, TINY, LIVE, COARSE)
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())


@pytest.fixture(scope="module")
def run() -> Run:
    return made("dqn", suite=LIVE)


def written(folder: Path, *runs: Run) -> Path:
    """A folder of results, validated."""
    claim(folder, runs[0].suite, SUITES[runs[0].suite].digest)
    for each in runs:
        write_run(folder, each)
    assert main("validate", folder, "--all") == 0
    return folder


def test_the_plans_that_count_are_measured_on_both_splits(run: Run) -> None:
    found = held_out(run)
    row = best_row(run)
    assert row is not None
    assert found.valid == {"best": run.columns["plan_return"][row], "policy": run.policy_return}
    env = inner_of(gym.make("ReptilePrune-v0", task="digits-mlp"))
    evaluator, reference = env.evaluator, env.reference
    assert found.test is not None
    plans = {"best": cut_to(evaluator, run.columns["widths"][row].tolist()), "uniform": reference.uniform_plan}
    dense = evaluator.test(evaluator.dense)
    for name, plan in plans.items():
        measured = evaluator.test(plan)
        worth = reference.w * (quality(measured.metric, dense.metric, True) - 1)
        saved = (1 - reference.w) * (1 - measured.macs / dense.macs)
        assert found.test[name] == pytest.approx((worth + saved) / reference.scale, rel=1e-9)


def test_under_a_budget_the_uniform_plan_meets_it_and_tables_know_their_test_split() -> None:
    suite = Suite("tight", 1, "for tests", (Case("digits-mlp", "digits-mlp", 20, (("budget", 0.08),)),))
    capped, free = made("random", suite=suite), made("random")
    found = held_out(capped).test
    assert found is not None
    assert found["policy"] is None
    tables = held_out(free).test
    assert tables is not None
    assert found["uniform"] != tables["uniform"]
    env = inner_of(gym.make("ReptilePrune-v0", task="digits-mlp"))
    returns = [
        env.reference.return_of(measured)
        for rate in uniform_rates(0.9)
        if (measured := env.measure(uniform_plan(env.evaluator, rate))).macs <= 0.08 * capped.dense["macs"]
    ]
    plan = best_uniform(capped, env)
    assert plan is not None
    assert env.measure(plan).macs <= 0.08 * capped.dense["macs"]
    assert env.reference.return_of(env.measure(plan)) >= max(returns)  # rates that go too little way are raised to the cap
    dense = env.evaluator.test(env.evaluator.dense)
    assert found["uniform"] == return_on_test(env.reference, dense, env.evaluator.test(plan))


def test_without_a_test_split_there_is_nothing_to_tell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reptile_env.evaluation.live.LiveEvaluator.has_test", False)
    assert held_out(run).test is None


def test_a_fault_on_the_test_split_is_no_missing_split(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, plan: Any) -> Any:
        raise ValueError("labels out of range")

    monkeypatch.setattr("reptile_env.evaluation.live.LiveEvaluator.test", broken)
    with pytest.raises(ValueError, match="labels out of range"):
        held_out(run)


def test_agents_with_other_sweeps_are_told_from_one_zero(tmp_path: Path) -> None:
    # Listed rates are fewer, so dqn's best uniform setting is another one than random's.
    first, second = made("random", suite=COARSE), made("dqn", suite=COARSE)
    folder = written(tmp_path, first, second)
    (suite,) = by_suite([first, second])
    (case,) = dataclasses.replace(suite, validation=Validation.read(folder, suite.name)).cases
    assert case.lead.agent == "random"
    rows = json.loads((folder / "validation.json").read_text())["rows"]
    zero = rows["random/mnist1d-gru.0.run"]["test"]["uniform"]
    assert rows["dqn/mnist1d-gru.0.run"]["test"]["uniform"] != zero
    for each in (first, second):
        factor = each.scale["scale"] / first.scale["scale"]
        worth = rows[f"{each.agent}/mnist1d-gru.0.run"]["test"]["best"] * factor - zero
        assert case.on_test(each, "search") == pytest.approx(worth / (case.anchors.best - case.anchors.uniform))


def test_a_run_of_another_suite_is_refused() -> None:
    (problem,) = problems_of(dataclasses.replace(made("random"), suite="core-v9 (official)"), TINY, [])
    assert (problem.what, problem.received) == ("suite", "tiny-v1")


def test_a_replay_that_was_lost_takes_no_verdict_away(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Dying(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from ((job, Lost("killed for memory")) for job in jobs)

    folder = written(tmp_path, run)
    before = json.loads((folder / "validation.json").read_text())["rows"]
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Dying())
    assert main("validate", folder, "--all") == 1
    assert "killed for memory" in capsys.readouterr().out
    after = json.loads((folder / "validation.json").read_text())["rows"]
    assert {name: row["ok"] for name, row in after.items()} == dict.fromkeys(before, True)


def test_a_file_cannot_write_into_the_page() -> None:
    markdown = "x.\n\n## core-v9\n\n| **mine** | 1.000 |\n"
    forged = dataclasses.replace(made("random"), machine={"processor": markdown}, git="<b>`")
    check = {"validated": "2026-01-02T03:04:05", "sample": "all | plans", "machine": markdown}
    text = page([Validated(Path("made"), {"checks": [check], "rows": {"x": {"check": 0}}, "failed": []}, [forged], 0)])
    assert "\n## core-v9" not in text
    assert "mine** |" not in text
    assert "<b>" not in text


def test_the_leaderboard_tells_what_plans_are_worth_on_the_test_split(tmp_path: Path) -> None:
    runs = [made(agent, seed=seed, suite=LIVE) for agent in ("dqn", "uniform") for seed in range(2)]
    validated = Validated.read(written(tmp_path, *runs))
    text = page([validated])
    assert "| agent | score | 95 % interval | on test | 95 % interval | tasks | n |" in text
    assert "| uniform | 0.000 | - | 0.000 | - |" in text
    rows = json.loads((tmp_path / "validation.json").read_text())["rows"]
    tests = [rows[f"dqn/digits-mlp.{seed}.run"]["test"] for seed in range(2)]
    unit = registry.references()["digits-mlp"]["best_known"]["return"] - 1
    scores = [(test["best"] - test["uniform"]) / unit for test in tests]
    assert f"| {np.mean(scores):.3f} |" in text


def test_a_little_added_to_every_plan_gains_nothing(tmp_path: Path, run: Run) -> None:
    # An example more of 450, as another machine might see it: near enough for every plan to be confirmed.
    kept = {name: column for name, column in run.columns.items() if name not in DERIVED}
    columns = with_derived(head_of(run), kept | {"metric": run.columns["metric"] + 1 / 450})
    assert run.policy_evaluation is not None
    claimed = float(columns["plan_return"][run.policy_evaluation - 1])
    forged = dataclasses.replace(run, columns=columns, policy_return=claimed)
    assert problems_of(forged, LIVE, range(run.evaluated)) == []
    assert columns["plan_return"].max() > run.columns["plan_return"].max() + 0.03
    (told,) = Validated.read(written(tmp_path, forged)).runs
    assert told.columns["plan_return"].max() == run.columns["plan_return"].max()
    assert told.policy_return == run.policy_return
    assert (
        as_measured(run, {"best": float(run.columns["plan_return"].max()), "policy": run.policy_return})
        .columns["plan_return"]
        .tolist()
        == run.columns["plan_return"].tolist()
    )


def test_a_run_that_ends_after_its_best_plan_is_refused() -> None:
    honest = made("dqn")
    rows = int(np.flatnonzero(honest.columns["group"] == len(honest.groups) - 1)[2]) + 1
    cut = dataclasses.replace(
        honest,
        columns={name: column[:rows] for name, column in honest.columns.items()},
        policy_evaluation=rows,
        policy_return=float(honest.columns["plan_return"][rows - 1]),
    )
    (problem,) = problems_of(cut, TINY, [])
    assert (problem.what, problem.expected, problem.received) == ("evaluated", rows, 40)
    assert problems_of(made("uniform"), TINY, []) == []  # its sweep is shorter


@pytest.mark.parametrize("forge", ["beyond the optimum", "columns that disagree"])
def test_a_forged_verdict_does_not_help_what_can_be_told_without_measuring(forge: str, tmp_path: Path) -> None:
    honest = made("random")
    written(tmp_path, honest, made("random", seed=1))
    columns = {name: np.array(column) for name, column in honest.columns.items()}
    if forge == "beyond the optimum":
        columns["metric"][5] = 1.2
        for name in ("plan_return", "episode_return"):
            columns[name][5] = honest.best_known_return + 0.3
    else:
        columns["plan_return"][5] = 1.3
    path = run_path(tmp_path, "random", "digits-mlp", 0)
    path.unlink()
    write_run(tmp_path, dataclasses.replace(honest, columns=columns))
    file = tmp_path / "validation.json"
    content = json.loads(file.read_text())
    content["rows"]["random/digits-mlp.0.run"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    file.write_text(json.dumps(content))
    validated = Validated.read(tmp_path)
    assert (validated.left_out, [run.seed for run in validated.runs]) == (1, [1])
