"""Hyperparameters that an agent can't run with are refused before anything is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.__main__ import main
from agents.bounds import BOUNDS, LIBRARY
from agents.registry import AGENTS, make_agent
from agents.sb3 import ALGORITHMS
from agents.tuned import HYPERPARAMETERS

BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("greedy", {"steps": 0}, ValueError, "steps=0 must be at least 1"),  # ran for ever
    ("greedy", {"patience": 0}, ValueError, "patience=0 must be at least 1"),  # ran for ever
    ("greedy", {"share": 0}, ValueError, "share=0 must be above 0 and at most 1"),
    ("evolution", {"population": 4}, ValueError, "sample=8 members can't be drawn from a population of 4"),
    ("evolution", {"population": 9.5}, TypeError, "population must be a whole number, got float 9.5"),
    ("evolution", {"step": "a"}, TypeError, "step must be a number, got str 'a'"),
    ("evolution", {"step": -1}, ValueError, "step=-1 must be at least 0"),
    ("simulated-annealing", {"hottest": 0}, ValueError, "hottest=0 must be above 0"),
    ("simulated-annealing", {"coolest": float("nan")}, ValueError, "coolest=nan must be above 0"),
    ("mcts", {"temperature": 0}, ValueError, "temperature=0 must be above 0"),
    ("mcts", {"floor": float("inf")}, ValueError, "floor=inf must be finite"),
    ("tpe", {"candidates": 0}, ValueError, "candidates=0 must be at least 1"),
    ("tpe", {"multivariate": 1}, TypeError, "multivariate must be true or false, got int 1"),
    ("q-learning", {"epsilon": 0.1}, TypeError, "epsilon must be a mapping such as .*, got 0.1"),
    ("q-learning", {"epsilon": {"first": 1.0}}, TypeError, "epsilon must be a mapping"),
    ("q-learning", {"epsilon": {"first": 1, "last": 0, "until": 0}}, ValueError, "epsilon.until=0 must be above 0"),
    ("q-learning", {"step_size": {"frist": 1, "last": 0}}, TypeError, "step_size must be a mapping"),
    ("double-q-learning", {"costs": 0}, ValueError, "costs=0 must be at least 1"),
    ("sarsa", {"trace_decay": 2}, ValueError, "trace_decay=2 must be from 0 to 1"),
    ("sarsa-lambda", {"metric_edges": ["a"]}, TypeError, "metric_edges must be a number, got str 'a'"),
    ("sarsa-lambda", {"table": 3}, TypeError, "table must be text, got int 3"),
    ("amc", {"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
    ("amc", {"hidden": 3}, TypeError, "hidden must be a list such as"),
    ("amc", {"hidden": [300]}, TypeError, "hidden must be a list such as"),
    ("lamp", {"importance": 3}, TypeError, "importance must be text, got int 3"),
    ("ars", {"n_delta": 0}, ValueError, "n_delta=0 must be at least 1"),  # ran for ever
    ("sac", {"batch_size": 1.5}, TypeError, "batch_size must be a whole number, got float 1.5"),  # failed when it began to learn
    ("sac", {"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
    ("sac", {"tau": "x"}, TypeError, "tau must be a number, got str 'x'$"),
    ("sac", {"learning_rate": "1e-3"}, TypeError, "must be a number, got str '1e-3'; for YAML 1e-3 is text: .* as 1.0e-3"),
    ("sac", {"gradient_steps": 0}, ValueError, "gradient_steps=0 must be at least 1, or -1"),
    ("td3", {"action_noise": -1}, ValueError, "action_noise=-1 must be at least 0"),
    ("ppo", {"n_epochs": 0}, ValueError, "n_epochs=0 must be at least 1"),
    ("ppo", {"ent_coef": "x"}, TypeError, "ent_coef must be a number, got str 'x'"),
    ("ppo", {"gae_lambda": 7}, ValueError, "gae_lambda=7 must be from 0 to 1"),
    ("dqn", {"exploration_fraction": 0}, ValueError, "exploration_fraction=0 must be above 0 and at most 1"),
    ("ppo", {"target_kl": 0}, ValueError, "target_kl=0 must be above 0"),
    ("sac", {"batch_size": None}, TypeError, "batch_size must be a whole number, got NoneType None"),
    ("a2c", {"normalize_advantage": 1}, TypeError, "normalize_advantage must be true or false, got int 1"),
]


@pytest.mark.parametrize(("name", "given", "error", "message"), BAD, ids=str)
def test_what_an_agent_cannot_run_with_is_refused(name: str, given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"{name}: .*{message}"):
        make_agent(name, given)


def test_what_the_files_hold_and_what_lies_on_a_bound_is_taken() -> None:
    for name in AGENTS:
        shipped = make_agent(name).settings if (HYPERPARAMETERS / f"{name}.yaml").exists() else {}
        assert make_agent(name, shipped).settings == make_agent(name).settings
    assert make_agent("evolution", {"population": 8}).settings["population"] == 8
    taken = {"epsilon": {"first": 1, "last": 0, "until": 2}, "step_size": {"first": 1, "last": 0, "until": 0.5}, "metric_edges": []}
    assert make_agent("q-learning", taken).settings["epsilon"]["until"] == 2
    also = {"train_freq": [1, "episode"], "gradient_steps": -1, "target_entropy": "auto", "ent_coef": 0.1, "learning_starts": 0}
    assert make_agent("sac", also).settings["train_freq"] == [1, "episode"]
    assert make_agent("ddpg", {"action_noise": None}).settings["action_noise"] is None


def test_a_library_s_algorithm_takes_all_arguments_of_its_constructor() -> None:
    given = {"max_grad_norm": 0.3, "target_kl": 0.1}  # the file has neither
    assert make_agent("ppo", given).settings == make_agent("ppo").settings | given
    with pytest.raises(ValueError, match=r"unknown hyperparameter of ppo 'max_grad_nrom'.* did you mean 'max_grad_norm'"):
        make_agent("ppo", {"max_grad_nrom": 1})
    with pytest.raises(ValueError, match="unknown hyperparameter of ppo 'device'"):
        make_agent("ppo", {"device": "cuda"})


def test_every_agent_of_our_own_is_bounded_and_every_bound_is_of_a_hyperparameter() -> None:
    tuned = {path.stem for path in HYPERPARAMETERS.glob("*.yaml")} - {"spaces"}
    assert set(BOUNDS) == tuned - set(ALGORITHMS)
    for name, bounds in BOUNDS.items():
        known = set(make_agent(name).settings) | {"trace_decay"}
        assert {key.partition(".")[0] for key in bounds} <= known, name
    assert set(LIBRARY) <= {key for name in ALGORITHMS for key in make_agent(name).settings}


def test_on_the_command_line_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"epsilon": 0.1}))
    arguments = ["train", "q-learning", "--task", "digits-mlp", "--evaluator", "table", "--steps", "12"]
    assert main([*arguments, "--hyperparameters", "mine.yaml"]) == 2
    told = capsys.readouterr().err
    assert "--hyperparameters: q-learning: epsilon must be a mapping" in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
