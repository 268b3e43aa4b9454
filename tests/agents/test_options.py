"""Options of ``python -m agents`` that choose the environment and the hyperparameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.__main__ import main
from agents.registry import make_agent
from agents.trace import Trace

QUICK = ["--task", "digits-mlp", "--steps", "12"]


def trained(agent: str, folder: Path, *more: str) -> Trace:
    assert main(["train", agent, *QUICK, *more, "--out", str(folder)]) == 0
    return Trace.load(folder / f"trace-{agent}.jsonl")


def test_the_environment_can_be_another_one(tmp_path: Path) -> None:
    more = ["--env", "ReptileCompress-v0", "--recovery", "none", "--budget", "0.2", "--set", "components=[rate, bits]"]
    trace = trained("random", tmp_path / "run", *more)
    assert trace.env_id == "ReptileCompress-v0"
    assert trace.env_settings["components"] == ["rate", "bits"]
    assert trace.env_settings["cost"] == "bytes"
    assert len({bits for row in trace.rows for bits in row.plan.bits}) > 2
    assert all(row.within_budget for row in trace.rows)


def test_what_an_agent_sees_and_maximises_can_be_chosen(tmp_path: Path) -> None:
    table = ["--evaluator", "table"]
    own = trained("amc", tmp_path / "own", *table).env_settings
    assert (own["observation"], own["reward"], own["measure"]) == ("group", "tradeoff", "round")
    more = ["--observation", "network", "--reward", "amc_macs", "--measure", "step", "--set", "max_rate=0.5"]
    chosen = trained("amc", tmp_path / "chosen", *table, *more).env_settings
    assert (chosen["observation"], chosen["reward"], chosen["measure"]) == ("network", "amc_macs", "step")
    assert chosen["max_rate"] == 0.5
    assert trained("purl", tmp_path / "purl", *table).env_settings["reward"] == "purl"


def test_hyperparameters_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("n_steps: 6\nbatch_size: 6\n")
    trace = trained("ppo", tmp_path / "run", "--evaluator", "table", "--hyperparameters", str(tmp_path / "mine.yaml"))
    assert (trace.agent_settings["n_steps"], trace.agent_settings["gamma"]) == (6, 1.0)


@pytest.mark.slow
def test_compress_finds_bits_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more = ["--env", "ReptileCompress-v0", "--set", "components=[rate, bits]", "--set", "rounding=nearest", "--budget", "0.2"]
    assert main(["compress", "--agent", "random", *QUICK, *more, "--out", str(tmp_path / "run")]) == 0
    printed = capfd.readouterr().out
    assert "compressed for bytes" in printed
    assert "the same as in the table" in printed


@pytest.mark.parametrize("network", ["transfer-mlp-3", "transfer-mlp-7"])
def test_a_network_of_either_split_is_drawn_where_it_is_named(network: str, tmp_path: Path) -> None:
    arguments = ["train", "random", "--env", "ReptilePruneTransfer-v0", "--task", network, "--observation", "group", "--steps", "2"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert Trace.load(tmp_path / "run" / "trace-random.jsonl").task == network


BAD: dict[str, tuple[list[str], str]] = {
    "environment": (["--env", "ReptileCompres-v0"], "did you mean 'ReptileCompress-v0'"),
    "another's environment": (["--env", "CartPole-v1"], "unknown environment 'CartPole-v1'"),
    "observation": (["--observation", "grp"], "did you mean 'group'"),
    "reward": (["--reward", "tradeof"], "did you mean 'tradeoff'"),
    "argument": (["--set", "max_rat=0.5"], "did you mean 'max_rate'"),
    "argument with an option": (["--set", "budget=0.5"], "unknown argument 'budget'"),
    "no value": (["--set", "max_rate"], "write NAME=VALUE"),
    "value": (["--set", "max_rate=high"], "max_rate must be a number"),
    "value out of range": (["--set", "max_rate=2"], "outside (0, 1)"),
    "value twice": (["--set", "max_rate=0.5", "--set", "max_rate=0.6"], "max_rate is given twice; give it once"),
    "no YAML": (["--set", "components=[rate"], "is not YAML"),
    "no file": (["--hyperparameters", "nowhere.yaml"], "can't be read"),
    "no mapping": (["--hyperparameters", "list.yaml"], "must hold lines such as"),
    "hyperparameter": (["--hyperparameters", "wrong.yaml"], "did you mean 'learning_rate'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "wrong.yaml").write_text("lerning_rate: 1\n")
    more, message = BAD[name]
    assert main(["train", "sac", *QUICK, *more]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert "raised from" not in told  # Gymnasium's, with all arguments
    assert {path.name for path in tmp_path.iterdir()} == {"list.yaml", "wrong.yaml"}


@pytest.mark.parametrize(
    ("agent", "env", "message"),
    [
        ("sac", "ReptilePruneDiscrete-v0", "the agent chooses numbers, the actions there are Discrete(10); use ReptilePrune-v0"),
        ("dqn", "ReptilePrune-v0", "the agent chooses from a list"),
        ("amc", "ReptilePruneDiscrete-v0", "use ReptilePrune-v0"),
    ],
)
def test_an_agent_that_cannot_act_there_is_refused(
    agent: str, env: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", agent, *QUICK, "--env", env]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("agent", ["ppo", "a2c", "trpo", "ars", "random"])
def test_agents_that_take_any_action_act_on_lists_too(agent: str, tmp_path: Path) -> None:
    trace: Any = trained(agent, tmp_path / "run", "--env", "ReptilePruneDiscrete-v0", "--evaluator", "table")
    assert len(trace.rows) == 12


REFUSED: dict[str, tuple[list[str], str]] = {
    "no weights": (["lamp", "--evaluator", "table"], "no weights to score; use evaluator='live'"),
    "no half-finished plans": (["beam-search", "--measure", "round"], "make the environment with measure='step'"),
    "another observation": (["pretrained", "--observation", "network"], "the policy reads observation='group'"),
    "too few for a pass": (["pretrained", "--measure", "step", "--steps", "3"], "one pass evaluates 5 plans; 3 are allowed"),
    "nothing learnt of many": (["cma-es", "--env", "ReptilePruneTransfer-v0", "--observation", "group"], "learns no policy"),
    "a library's own": (["ppo", "--evaluator", "table", "--hyperparameters", "ppo.yaml"], "n_steps"),
    "no table": (
        ["q-learning", "--evaluator", "table", "--hyperparameters", "table.yaml"],
        "is no table that a tabular agent saved",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_agent_refuses_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo.yaml").write_text("n_steps: 0\n")
    (tmp_path / "table.yaml").write_text("table: nowhere.npz\n")
    more, message = REFUSED[name]
    task = [] if "ReptilePruneTransfer-v0" in more else QUICK[:2]
    assert main(["train", more[0], *task, *QUICK[2:], *more[1:]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert "raised from" not in told  # Gymnasium's, with all arguments
    assert {path.name for path in tmp_path.iterdir()} == {"ppo.yaml", "table.yaml"}


@pytest.mark.parametrize("agent", ["sac", "dqn", "mcts", "random"])
def test_what_finds_refusals_changes_nothing(agent: str, tmp_path: Path) -> None:
    """The command lets an agent begin once before its run; an agent that is run at once does the same."""
    ours = trained(agent, tmp_path / "run", "--evaluator", "table", "--seed", "7")
    env = gym.make(ours.env_id, task="digits-mlp", **ours.env_settings)
    alone = make_agent(agent).run(env, 12, 7)
    assert [(row.plan, row.plan_return) for row in alone.rows] == [(row.plan, row.plan_return) for row in ours.rows]


@pytest.mark.slow
def test_compress_compares_over_the_same_listed_rates(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["compress", "--agent", "dqn", *QUICK, "--set", "rates=[0, 0.5]", "--out", str(out)]) == 0
    assert "the same as in the table" in capfd.readouterr().out
    rows = Trace.load(out / "trace-random.jsonl").rows
    for group in range(len(rows[0].plan.widths)):
        assert len({row.plan.widths[group] for row in rows}) <= 2
    assert len(Trace.load(out / "trace-uniform.jsonl").rows) == 1


@pytest.mark.slow
def test_one_pass_under_a_budget_says_of_which_uniform_rate_the_table_tells(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for agent in ("pretrained", "random"):
        arguments = ["compress", "--agent", agent, *QUICK, "--budget", "0.2", "--out", str(tmp_path / agent)]
        assert main(arguments) == 0
        said[agent] = capfd.readouterr().out
    # digits-mlp has 27,968 MACs; the best uniform rate without a budget leaves more than a fifth of them.
    meets = {name: "the table's best uniform meets it" in text for name, text in said.items()}
    for agent in said:
        rows = json.loads((tmp_path / agent / "table.json").read_text())["rows"]
        assert meets[agent] == (rows[1]["macs"] <= 0.2 * 27968)
    assert meets == {"pretrained": False, "random": True}
