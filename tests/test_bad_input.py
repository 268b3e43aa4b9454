"""Whatever is handed in wrongly is refused at once, with the mend, and changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import Error, ResetNeeded
from torch import Tensor

import reptile_env
from reptile_env import Plan
from reptile_env.compression.recovery import parse
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.settings import Settings, make_settings
from reptile_env.rewards import Transition
from tests.helpers import classes, make, play, random_actions, small_network, small_task

NAN = float("nan")


@pytest.mark.parametrize(
    ("argument", "given", "what", "known", "nearest"),
    [
        ("task", "digit-cnn", "task", "digits-cnn, digits-mlp", "digits-cnn"),
        ("task", "DIGITS-CNN", "task", "digits-cnn, digits-mlp", "digits-cnn"),
        ("task", "Transfer-MLP-3", "task", "digits-cnn, digits-mlp", "transfer-mlp-3"),
        ("evaluator", "alive", "evaluator", "live", "live"),
        ("action", "discreet", "action", "continuous, discrete", "discrete"),
        ("cost", "mac", "cost", "params, macs, bytes", "macs"),
        ("recovery", "reconstuct", "recovery", "none, recalibrate, reconstruct", "reconstruct"),
        ("recovery", "none+reconstruct", "recovery", "none, recalibrate, reconstruct", "reconstruct"),
        ("recovery", "reconstruct+", "recovery", "none, recalibrate, reconstruct", "reconstruct"),
        ("importance", "l3", "importance", "l1, l2", "l"),
        ("granularity", "structure", "granularity", "structured", "structured"),
        ("reward", "trade-off", "reward", "tradeoff, loss, amc_params, amc_macs, accuracy", "tradeoff"),
        ("observation", "groups", "observation", "network, group", "group"),
        ("measure", "steps", "measure", "step, round", "step"),
        ("render_mode", "rgb", "render_mode", "ansi, rgb_array, human", "rgb_array"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_an_unknown_name_is_answered_with_the_known_and_the_nearest(
    argument: str, given: str, what: str, known: str, nearest: str
) -> None:
    with pytest.raises(ValueError, match=f"unknown {what} {re.escape(repr(given))}; known: {known}.*did you mean '{nearest}"):
        make(**{"task": "digits-mlp", argument: given})
    for other in (None, 3, ["x"]):
        if argument in ("task", "reward", "render_mode", "measure"):
            continue  # these take more than names, or None
        with pytest.raises(ValueError, match=f"unknown {what}.*known: {known}"):
            make(**{"task": "digits-mlp", argument: other})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": None}, TypeError, "a name, a reptile_env.Task or a list of either, got NoneType"),
        ({"task": ["digits-mlp", 3]}, TypeError, "a name, a reptile_env.Task or a list of either, got int"),
        ({"task": []}, ValueError, "give at least one task"),
        ({"reward": None}, TypeError, "a name or a callable"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"w": 0}, ValueError, r"w=0 is outside \(0, 1\)"),
        ({"w": 1.0}, ValueError, r"w=1.0 is outside \(0, 1\)"),
        ({"w": NAN}, ValueError, r"w=nan is outside \(0, 1\)"),
        ({"w": "0.5"}, TypeError, "w must be a number, got str '0.5'"),
        ({"budget": 0}, ValueError, r"budget=0 is outside \(0, 1\]"),
        ({"budget": 1.5}, ValueError, r"budget=1.5 is outside \(0, 1\]"),
        ({"budget": -0.5}, ValueError, r"outside \(0, 1\]"),
        ({"budget": NAN}, ValueError, r"outside \(0, 1\]"),
        ({"budget": "half"}, TypeError, "budget must be a number, got str 'half'"),
        ({"budget": True}, TypeError, "budget must be a number, got bool"),
        ({"max_rate": 0}, ValueError, r"max_rate=0 is outside \(0, 1\)"),
        ({"max_rate": 1}, ValueError, r"max_rate=1 is outside \(0, 1\)"),
        ({"max_rate": NAN}, ValueError, "outside"),
        ({"max_rate": "x"}, TypeError, "max_rate must be a number"),
        ({"rates": [0.1, 0.2]}, ValueError, "ReptilePruneDiscrete-v0"),
        ({"action": "discrete", "max_rate": 0.5}, ValueError, "list the rates="),
        ({"action": "discrete", "rates": []}, ValueError, "at least two rates"),
        ({"action": "discrete", "rates": [0.1]}, ValueError, "at least two rates"),
        ({"action": "discrete", "rates": [0.0, 0.0]}, ValueError, "one of them above 0"),
        ({"action": "discrete", "rates": [0.0, 1.0]}, ValueError, r"rates in \[0, 1\)"),
        ({"action": "discrete", "rates": [0.0, NAN]}, ValueError, r"rates in \[0, 1\)"),
        ({"action": "discrete", "rates": 0.5}, TypeError, "rates must be a list of numbers, got float"),
        ({"action": "discrete", "rates": "ab"}, TypeError, "rates must be a list of numbers, got str"),
        ({"action": "discrete", "rates": [0.0, "a"]}, TypeError, "each of rates must be a number, got str 'a'"),
        ({"rounds": 0}, ValueError, "at least 1 round"),
        ({"rounds": 1.5}, TypeError, "rounds must be a whole number, got float"),
        ({"rounds": True}, TypeError, "rounds must be a whole number, got bool"),
        ({"prune_probability": -0.1}, ValueError, r"outside \[0, 1\]"),
        ({"prune_probability": 1.1}, ValueError, r"outside \[0, 1\]"),
        ({"prune_probability": NAN}, ValueError, r"outside \[0, 1\]"),
        ({"prune_probability": "often"}, TypeError, "prune_probability must be a number"),
        ({"recovery": "recalibrate"}, ValueError, "needs batch normalisation.*use 'reconstruct' or 'none'"),
        ({"task": ["digits-cnn", "digits-mlp"]}, ValueError, "observation='group'"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_when_the_environment_is_made(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**{"task": "digits-mlp", **arguments})


BAD_ACTIONS = [
    (np.array([NAN], np.float32), r"action nan is outside \[-1, 1\]"),
    (np.array([math.inf], np.float32), r"outside \[-1, 1\]; clip it"),
    (np.array([2.0], np.float32), r"action 2.0 is outside \[-1, 1\]; clip it"),
    (np.array([0.5, 0.5], np.float32), r"shape \(1,\), got shape \(2,\)"),
    (np.array([[0.5]], np.float32), r"got shape \(1, 1\)"),
    (np.array([], np.float32), r"got shape \(0,\)"),
    (0.5, r"got shape \(\)"),
    (None, r"got None"),
    ("0.5", r"got '0.5'"),
    (["a"], r"got \['a'\]"),
    ({}, "got {}"),
    (np.array([1j]), "one number"),
    (np.array([True]), "one number"),
]
BAD_CHOICES = [
    (-1, r"action -1 is outside 0\.\.9"),
    (10, r"action 10 is outside 0\.\.9"),
    (1.0, "one integer in 0..9, got 1.0"),
    (True, "one integer"),
    (None, "one integer"),
    (np.array([1]), "one integer"),
    ("1", "one integer"),
    (NAN, "one integer"),
]


@pytest.mark.parametrize(("id", "actions"), [("ReptilePrune-v0", BAD_ACTIONS), ("ReptilePruneDiscrete-v0", BAD_CHOICES)])
def test_a_bad_action_is_refused_and_changes_nothing(id: str, actions: list[tuple[Any, str]]) -> None:
    env, undisturbed = (make("digits-mlp", id, prune_probability=0.5, budget=0.5) for _ in range(2))
    for each in (env, undisturbed):
        each.reset(seed=3)
        each.step(each.action_for(0.2))
    for action, message in actions:
        with pytest.raises(ValueError, match=message):
            env.step(action)
    rest = random_actions(env, len(env.groups) - 1)
    assert play(env, rest) == play(undisturbed, rest)


def test_steps_out_of_turn_are_refused(env: ReptilePruneEnv) -> None:
    new = make("digits-mlp")
    action = new.action_for(0.5)
    for call in (lambda: new.step(action), new.render, new.snapshot, lambda: new.plan, lambda: new.measurement):
        with pytest.raises(ResetNeeded, match=r"reset\(\)"):
            call()
    with pytest.raises(ValueError, match="finish an episode first"):
        _ = new.best
    play(env, [action] * len(env.groups))
    before = (env.plan, env.measurement, env.snapshot())
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step\(\)"):
        env.step(action)
    assert (env.plan, env.measurement, env.snapshot()) == before
    wrapped = gym.make("ReptilePrune-v0", task="digits-mlp")
    with pytest.raises(ResetNeeded):
        wrapped.step(action)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"options": {"tsk": "digits-mlp"}}, ValueError, "unknown reset option 'tsk'; known: task; did you mean 'task'"),
        ({"options": {"task": "digits-cnn"}}, ValueError, "unknown task of this environment 'digits-cnn'; known: digits-mlp"),
        ({"options": {"task": None}}, ValueError, "known: digits-mlp"),
        ({"options": ["task"]}, TypeError, "options must be a dict"),
        ({"seed": -1}, Error, "greater or equal to zero"),
        ({"seed": "a"}, Error, "integer"),
    ],
    ids=str,
)
def test_a_bad_reset_is_refused_and_changes_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str, env: ReptilePruneEnv
) -> None:
    env.step(env.action_for(0.3))
    before = env.snapshot()
    with pytest.raises(error, match=message):
        env.reset(**arguments)
    assert env.snapshot() == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda env: env.measure(None), TypeError, "a reptile_env.Plan is needed, got NoneType"),
        (lambda env: env.measure(env.plan.to_dict()), TypeError, "got dict; Plan.from_dict"),
        (lambda env: env.measure(Plan(["a"], [[0]])), ValueError, r"groups \['a'\] are not those of task 'digits-mlp'"),
        (lambda env: env.measure(env.plan.replace(0, [10_000])), ValueError, "keeps channel 10000 of group"),
        (lambda env: env.restore({}), TypeError, r"takes what snapshot\(\) gave, got dict"),
        (lambda env: env.action_for(-0.1), ValueError, r"rate -0.1 is outside \[0, 0.9\]"),
        (lambda env: env.action_for(0.95), ValueError, r"outside \[0, 0.9\]"),
        (lambda env: env.action_for(NAN), ValueError, r"outside \[0, 0.9\]"),
        (lambda env: env.action_for("x"), TypeError, "rate must be a number"),
        (lambda env: env.evaluator.compressed_model(Plan(["a"], [[0]])), ValueError, "not those of task"),
        (lambda env: env.evaluator.test(Plan(["a"], [[0]])), ValueError, "not those of task"),
    ],
)
def test_a_bad_call_is_refused_and_changes_nothing(
    call: Callable[[ReptilePruneEnv], Any], error: type[Exception], message: str, env: ReptilePruneEnv
) -> None:
    env.step(env.action_for(0.3))
    before = env.snapshot()
    with pytest.raises(error, match=message):
        call(env)
    assert env.snapshot() == before


class _Moody:
    """A reward or metric that fails when told to."""

    def __init__(self) -> None:
        self.answer: Any = None

    def reward(self, transition: Transition) -> Any:
        return transition.utility_after if self.answer is None else self.answer

    def metric(self, outputs: Tensor, targets: Tensor) -> Any:
        return (outputs.argmax(1) == targets).double().mean() if self.answer is None else self.answer


@pytest.mark.parametrize("answer", [NAN, math.inf])
def test_a_reward_that_is_no_number_leaves_the_episode_where_it_was(answer: float) -> None:
    moody = _Moody()
    env, undisturbed = (make("digits-mlp", prune_probability=0.5, reward=moody.reward) for _ in range(2))
    for each in (env, undisturbed):
        each.reset(seed=3)
    action = env.action_for(0.7)
    moody.answer = answer
    with pytest.raises(ValueError, match=r"the reward of group .* is (nan|inf); it must be finite"):
        env.step(action)
    moody.answer = None
    assert play(env, [action] * len(env.groups)) == play(undisturbed, [action] * len(env.groups))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (NAN, "metric 'metric' returned nan; it must be finite"),
        (torch.ones(3), r"one number for the whole split, got a tensor of shape \(3,\)"),
        ("good", "one number, got str 'good'"),
        (torch.tensor(-math.inf), "returned -inf"),
    ],
)
def test_a_metric_that_fails_midway_leaves_the_episode_where_it_was(answer: Any, message: str) -> None:
    moody = _Moody()
    task = small_task("moody", metric=moody.metric, w=0.5)
    env, undisturbed = (make(task, prune_probability=0.5) for _ in range(2))
    for each in (env, undisturbed):
        each.reset(seed=3)
    action = env.action_for(0.37)
    before, moody.answer = env.snapshot(), answer
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.snapshot() == before
    moody.answer = None
    assert play(env, [action, action]) == play(undisturbed, [action, action])


def test_a_dense_metric_of_zero_has_no_scale() -> None:
    task = small_task("zero", metric=lambda outputs, targets: 0.0)
    with pytest.raises(ValueError, match=r"the dense network's metric is 0\.0; a positive one is needed"):
        make(task)


def test_a_w_at_which_no_cut_pays_is_refused() -> None:
    model, (x, _) = small_network(), classes(2000)
    with torch.no_grad():
        own_answers = model(x).argmax(1)  # so that every change of an answer is a loss
    task = reptile_env.Task(model, (x[:20], own_answers[:20]), (x[20:], own_answers[20:]))
    with pytest.raises(ValueError, match=r"no uniform rate is worth its loss of accuracy.*lower w="):
        make(task, w=0.9999, recovery="none")


def test_settings_are_checked_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'recover'; known: recovery.*did you mean 'recovery'"):
        make_settings(recover="none")
    with pytest.raises(ValueError, match="at least 1 is needed"):
        Settings(calibration_examples=0)
    with pytest.raises(ValueError, match="unknown recovery 'magic'"):
        parse("magic")
    for name in ("train_loss", "latency", "residual_width"):
        for value in ("no", 1, None):
            with pytest.raises(TypeError, match=rf"{name} must be True or False, got {type(value).__name__} "):
                make_settings(**{name: value})
    for examples in ("5", 5.5, True, math.inf):
        with pytest.raises(TypeError, match=f"calibration_examples must be a whole number, got {type(examples).__name__} "):
            make_settings(calibration_examples=examples)
