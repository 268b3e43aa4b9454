"""Suites: frozen under their version, complete, and such that every agent can run them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import reptile_env
from agents.registry import AGENTS, AgentSpec
from benchmarks.suites import SUITES, Case, Suite, agents_of, check_agent, env_of, find_suite
from reptile_env.evaluation.table import found
from reptile_env.tasks.registry import references
from reptile_env.tasks.transfer.members import MEMBERS
from tests.helpers import ROOT
from tests.suites import TINY

# A suite that changes needs a new version, and a new line here; the old line stays as it is.
DIGESTS = {
    "smoke-v1": "f2d78f7dc9672652",
    "core-v1": "18753f18f36e10a7",
    "budget-v1": "143ec9ef0c7641c8",
    "budget-v2": "c5f52a57763461e5",
    "joint-v1": "318c1d7dafd8b1f2",
    "table-v1": "b1b7c269ece14cc0",
    "transfer-v1": "8f399763171e161e",
    "real-v1": "0572771145ba2f28",
}


def test_no_suite_changes_under_its_version() -> None:
    assert {title: suite.digest[:16] for title, suite in SUITES.items()} == DIGESTS


def test_every_change_of_a_suite_shows_in_its_digest() -> None:
    cases = TINY.cases
    others = [
        dataclasses.replace(TINY, seeds=4),
        dataclasses.replace(TINY, cases=cases[:1]),
        dataclasses.replace(TINY, settings=(("recovery", "none"),)),
        dataclasses.replace(TINY, cases=(dataclasses.replace(cases[0], evaluations=41), *cases[1:])),
        dataclasses.replace(TINY, cases=(dataclasses.replace(cases[0], settings=()), *cases[1:])),
        dataclasses.replace(TINY, threads=2),
    ]
    assert len({suite.digest for suite in [TINY, *others]}) == 1 + len(others)
    assert dataclasses.replace(TINY, summary="worded anew").digest == TINY.digest
    assert Suite(**{field.name: getattr(TINY, field.name) for field in dataclasses.fields(TINY)}).digest == TINY.digest


@pytest.mark.parametrize("title", SUITES)
def test_cases_are_of_tasks_that_there_are(title: str) -> None:
    known = {row["name"]: row for row in reptile_env.tasks()}
    for case in SUITES[title].cases:
        assert case.task in known
        assert case.evaluations > 0
        if title.startswith("transfer"):
            assert known[case.task]["split"] == "test"
    assert all(known[name]["split"] == "train" for name in SUITES[title].training_networks)


@pytest.mark.parametrize("title", ["core-v1", "budget-v1", "budget-v2", "joint-v1", "table-v1"])
def test_an_agent_that_measures_every_decision_plays_300_episodes(title: str) -> None:
    groups = {name: entry["groups"] for name, entry in references().items()}
    for case in SUITES[title].cases:
        assert case.evaluations == 300 * groups[case.task]


def test_the_core_suite_is_eleven_core_tasks_of_all_kinds() -> None:
    core = {row["name"]: row["family"] for row in reptile_env.tasks() if row["suite"] == "core"}
    tasks = {case.task for case in SUITES["core-v1"].cases}
    assert len(tasks) == len(SUITES["core-v1"].cases) == 11
    assert tasks <= core.keys()
    assert len({core[name] for name in tasks}) == 11


def test_the_table_suite_is_all_core_tasks_with_a_table() -> None:
    table, core = SUITES["table-v1"], {case.task for case in SUITES["core-v1"].cases}
    assert {case.task for case in table.cases} == {name for name in core if next(found(name), None) is not None}
    assert all(dict(case.settings) == {"evaluator": "table"} for case in table.cases)


def test_the_transfer_suite_trains_on_some_networks_and_scores_on_all_others() -> None:
    transfer = SUITES["transfer-v1"]
    assert {case.task for case in transfer.cases} == {name for name, member in MEMBERS.items() if member.split == "test"}
    assert set(transfer.training_networks) == {name for name, member in MEMBERS.items() if member.split == "train"}


def test_a_suite_without_a_version_is_its_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = dataclasses.replace(SUITES["core-v1"], version=2, seeds=3)
    monkeypatch.setitem(SUITES, "core-v2", newer)
    assert find_suite("core") is newer
    assert find_suite("core-v1") is SUITES["core-v1"]
    with pytest.raises(ValueError, match=r"unknown suite 'cor'.*did you mean 'core'"):
        find_suite("cor")


def test_settings_that_no_replay_can_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown setting of a suite 'prune_probability'"):
        dataclasses.replace(TINY, settings=(("prune_probability", 0.5),))
    with pytest.raises(ValueError, match="unknown setting of a suite 'rounds'"):
        dataclasses.replace(TINY, cases=(Case("a", "digits-mlp", 3, (("rounds", 2),)),))
    with pytest.raises(ValueError, match="two cases of one name"):
        dataclasses.replace(TINY, cases=TINY.cases[:1] * 2)


def test_an_agent_meets_its_own_environment_and_the_suite_decides_the_rest() -> None:
    case = Case("a", "digits-mlp", 3, (("budget", 0.5),))
    suite = dataclasses.replace(TINY, settings=(("recovery", "none"), ("budget", 0.25)), cases=(case,))
    env_id, settings = env_of(suite, case, AgentSpec("a:B", "", "round", "ReptilePruneDiscrete-v0"))
    assert env_id == "ReptilePruneDiscrete-v0"
    assert settings.items() >= {"task": "digits-mlp", "budget": 0.5, "recovery": "none", "measure": "round"}.items()
    coarse = dataclasses.replace(suite, settings=(("measure", "round"),), env_id="ReptileCompress-v0")
    env_id, settings = env_of(coarse, case, AgentSpec("a:B", "", "step"))
    assert env_id == "ReptileCompress-v0"
    assert settings["measure"] == "round"


def test_agents_that_choose_from_a_list_cant_decide_on_bits() -> None:
    joint = SUITES["joint-v1"]
    assert "dqn" in agents_of(SUITES["core-v1"])
    assert "dqn" not in agents_of(joint)
    assert {"random", "sac"} <= set(agents_of(joint))
    with pytest.raises(ValueError, match=r"agent 'dqn' can't run joint-v1: it chooses from a list of actions"):
        check_agent(joint, "dqn")
    with pytest.raises(ValueError, match=r"unknown agent 'dqm'.*did you mean 'dqn'"):
        check_agent(joint, "dqm")
    assert set(agents_of(SUITES["core-v1"])) == set(AGENTS)
    with pytest.raises(ValueError, match=r"agent 'pretrained' can't run joint-v1: its policy decides on rates alone"):
        check_agent(joint, "pretrained")


def test_agents_that_read_weights_cant_run_on_tables() -> None:
    assert set(AGENTS) - set(agents_of(SUITES["table-v1"])) == {name for name, spec in AGENTS.items() if spec.weights}
    with pytest.raises(ValueError, match=r"agent 'lamp' can't run table-v1: it reads the network's weights"):
        check_agent(SUITES["table-v1"], "lamp")


def test_suites_are_read_without_torch() -> None:
    code = "import sys, benchmarks.suites; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
