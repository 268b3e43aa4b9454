"""``python -m benchmarks validate``: what holds is marked ok, and whatever was tampered with is found, with both numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.cli import run as run_app
from benchmarks import validate as validation
from benchmarks.__main__ import app
from benchmarks.checks import problems_of
from benchmarks.derived_columns import DERIVED, with_derived
from benchmarks.engine import Lost
from benchmarks.results import Run, from_bytes, head_of, run_path, to_bytes, write_run
from benchmarks.results_folder import claim
from benchmarks.suites import SUITES, Case, Suite
from benchmarks.verdicts import chosen_rows
from tests.suites import BROKEN, TINY, Here, changed, made

LIVE = Suite("live", 1, "for tests", (Case("digits-mlp", "digits-mlp", 30),), seeds=2)
JOINT = Suite("joint", 1, "for tests", (Case("digits-mlp", "digits-mlp", 12),), env_id="ReptileCompress-v0")


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in (TINY, BROKEN, LIVE, JOINT):
        monkeypatch.setitem(SUITES, suite.title, suite)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new process, where it is not what is tested."""
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())


@pytest.fixture(scope="module")
def run() -> Run:
    return made("random")


@pytest.fixture(scope="module")
def stepwise() -> Run:
    """An agent with a policy, under a budget that raises what it chooses from a list."""
    return made("dqn", 1)


def main(*arguments: object) -> int:
    return run_app(app, "python -m benchmarks", "a command", [str(argument) for argument in arguments])


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


def recomputed(run: Run) -> Run:
    """What follows from a changed column follows from it: a careful forger."""
    columns = {name: column for name, column in run.columns.items() if name not in DERIVED}
    return dataclasses.replace(run, columns=with_derived(head_of(run), columns))


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


@pytest.fixture
def folder(tmp_path: Path, run: Run, stepwise: Run) -> Path:
    """Results: three honest runs."""
    claim(tmp_path, TINY.title, TINY.digest)
    for each in (run, stepwise, made("uniform")):
        write_run(tmp_path, each)
    return tmp_path


def test_the_command_marks_each_row_and_says_what_it_expected(folder: Path, run: Run, capsys: Any) -> None:
    assert main("validate", folder, "--all", "--workers", 1) == 0
    assert "3 of 3 rows ok" in capsys.readouterr().out
    path = run_path(folder, run.agent, run.task, run.seed)
    path.unlink()
    write_run(folder, TAMPERED["a better metric, carefully"][0](run))
    cut = run_path(folder, "uniform", "digits-mlp", 0)
    cut.write_bytes(cut.read_bytes()[:-3])
    (folder / "notes.txt").write_text("not a run")
    assert main("validate", folder, "--all", "--workers", 1) == 1
    printed = capsys.readouterr().out
    assert "ok  dqn/digits-mlp@0.6.0.run: 40 of 40 plans replayed" in printed
    received = run.columns["metric"][11].item()
    assert "NOT random/digits-mlp.0.run: 40 of 40 plans replayed" in printed
    assert f"\n      plan 12, metric: expected 0.99, received {received}\n" in printed
    assert "NOT uniform/digits-mlp.0.run" in printed
    assert "is damaged" in printed
    assert "NOT notes.txt" in printed
    assert "1 of 4 rows ok" in printed
    rows = json.loads((folder / "validation.json").read_text())["rows"]
    assert {name: row["ok"] for name, row in rows.items()} == {
        "dqn/digits-mlp@0.6.0.run": True,
        "notes.txt": False,
        "random/digits-mlp.0.run": False,
        "uniform/digits-mlp.0.run": False,
    }
    assert rows["random/digits-mlp.0.run"]["problems"][0]["expected"] == 0.99


def test_a_folder_that_may_only_be_read_is_validated_all_the_same(
    folder: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(validation, "write_over", refuse)
    assert main("validate", folder) == 1
    printed = capsys.readouterr()
    assert "3 of 3 rows ok" in printed.out
    assert "validation.json can't be written, so the verdicts are not kept: Permission denied" in printed.err


def test_a_check_that_breaks_off_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Losing(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from ((job, Lost("Traceback:\n  somewhere\nValueError: no shape\n")) for job in jobs)

    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Losing())
    assert main("validate", folder) == 1
    printed = capsys.readouterr().out
    assert "received 'the replay ended without a result: ValueError: no shape'" in printed
    assert "Traceback" not in printed


def test_only_new_and_changed_files_are_checked_where_that_is_asked(folder: Path, run: Run, here: None, capsys: Any) -> None:
    assert main("validate", folder, "--all") == 0
    before = json.loads((folder / "validation.json").read_text())
    assert main("validate", folder, "--all", "--new") == 0
    assert "3 of 3 rows ok, 3 of them checked before" in capsys.readouterr().out
    assert json.loads((folder / "validation.json").read_text())["rows"] == {k: v | {"check": 0} for k, v in before["rows"].items()}
    write_run(folder, made("cma-es"))
    run_path(folder, run.agent, run.task, run.seed).unlink()
    write_run(folder, changed(run, "metric", 11, 0.99))
    assert main("validate", folder, "--all", "--new") == 1
    printed = capsys.readouterr().out
    assert "ok  cma-es/digits-mlp.0.run: 40 of 40" in printed
    assert "NOT random/digits-mlp.0.run" in printed
    assert "dqn" not in printed
    assert "3 of 4 rows ok, 2 of them checked before" in printed
    after = json.loads((folder / "validation.json").read_text())
    assert len(after["checks"]) == 2
    assert {name: row["check"] for name, row in after["rows"].items()} == {
        "cma-es/digits-mlp.0.run": 1,
        "dqn/digits-mlp@0.6.0.run": 0,
        "random/digits-mlp.0.run": 1,
        "uniform/digits-mlp.0.run": 0,
    }
    # It stays refused, though nobody looks at it again.
    assert main("validate", folder, "--new", "--sample", "1") == 1


def test_a_small_sample_leaves_the_verdicts_of_before_and_the_deeper_ones(folder: Path, here: None, capsys: Any) -> None:
    assert main("validate", folder, "--all") == 0
    assert main("validate", folder, "--sample", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].endswith("30 of 40 plans replayed")
    assert printed[-1] == "3 of 3 rows ok, 2 of them checked before"
    found = json.loads((folder / "validation.json").read_text())
    assert {row["checked"] for row in found["rows"].values()} == {row["evaluated"] for row in found["rows"].values()}
    # Thirty plans are not all.
    (folder / "validation.json").unlink()
    assert main("validate", folder, "--sample", "3") == 0
    assert main("validate", folder, "--all", "--new") == 0
    assert "ok  dqn/digits-mlp@0.6.0.run: 40 of 40 plans replayed" in capsys.readouterr().out


def test_a_file_that_is_gone_has_no_verdict(folder: Path, run: Run, here: None, capsys: Any) -> None:
    assert main("validate", folder) == 0
    run_path(folder, run.agent, run.task, run.seed).unlink()
    assert main("validate", folder, "--new") == 0
    assert "2 of 2 rows ok, 2 of them checked before" in capsys.readouterr().out


def test_an_interruption_costs_no_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Interrupted(Here):
        def run(self, work: Any, jobs: Any) -> Any:
            yield from super().run(work, jobs[:2])
            raise KeyboardInterrupt

    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        validation.validate(folder, all_=True, sample=None, seed=0, new=False, workers=1)
    kept = json.loads((folder / "validation.json").read_text())["rows"]
    assert [row["ok"] for row in kept.values()] == [True, True]
    monkeypatch.setattr(validation, "LocalEngine", lambda workers: Here())
    assert main("validate", folder, "--all", "--new") == 0
    assert "3 of 3 rows ok, 2 of them checked before" in capsys.readouterr().out


def test_a_kill_costs_half_a_minute(folder: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(validation, "SAVED", 0.0)
    monkeypatch.setattr(validation._Keeper, "__call__", lambda self, found: counts.append(len(found["rows"])))
    assert main("validate", folder) == 0
    assert counts == [1, 2, 3, 3]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "suite": "tiny-v1", "rows": {}}', "null"])
def test_a_damaged_validation_is_told_of(text: str, folder: Path, capsys: Any) -> None:
    (folder / "validation.json").write_text(text)
    assert main("validate", folder) == 2
    assert "is damaged" in (printed := " ".join(capsys.readouterr().err.split()))
    assert "remove it and run" in printed
    assert (folder / "validation.json").read_text() == text


def test_failed_runs_are_told_of(tmp_path: Path, here: None, capsys: Any) -> None:
    claim(tmp_path, BROKEN.title, BROKEN.digest)
    failed = dataclasses.replace(
        made("random", suite=BROKEN), status="failed", error="oh", columns={}, policy_return=None, policy_evaluation=None
    )
    write_run(tmp_path, failed)
    assert main("validate", tmp_path) == 1  # of nothing, nothing is confirmed
    assert "0 of 0 rows ok; 1 failed runs have nothing to replay: nothing could be confirmed\n" in capsys.readouterr().out
    write_run(tmp_path, made("random", seed=1, suite=BROKEN))
    assert main("validate", tmp_path) == 0
    assert "1 of 1 rows ok; 1 failed runs have nothing to replay\n" in capsys.readouterr().out
    (tmp_path / "random" / "digits-mlp.0.run").unlink()
    (tmp_path / "random" / "digits-mlp.1.run").unlink()
    assert main("validate", tmp_path, "--new") == 1
    assert "0 of 0 rows ok: nothing could be confirmed\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda folder: None, [], "is no folder of results"),
        (lambda folder: claim(folder, "core-v99", "x"), [], "holds results of core-v99, and this version of the program knows"),
        (lambda folder: claim(folder, "tiny-v1", "x"), [], "were others then"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--sample", "0"], "--sample 0: give at least 1"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--workers", "0"], "--workers 0: give at least 1"),
        (lambda folder: claim(folder, TINY.title, TINY.digest), ["--all", "--sample", "5"], "--sample 5 some: give one of them"),
    ],
)
def test_bad_arguments(prepare: Any, arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    prepare(tmp_path)
    assert main("validate", tmp_path, *arguments) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split())
    assert not (tmp_path / "validation.json").exists()
