"""What every importance holds to: names, shapes on every kind of network, order, determinism, refusals."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.channel_importance import CHANNEL_IMPORTANCES
from reptile_env.compression.weight_importance import WEIGHT_IMPORTANCES
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import IMPORTANCE_NAMES, Settings
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS
from tests.compression.networks import CASES, task_of
from tests.compression.scoring import scorer_of, task_of_kind
from tests.helpers import classes, episode, generator_states, make, run_python, small_network, small_task

WHOLE_FILTERS = ("fpgm",)
EVERY = pytest.mark.parametrize("importance", IMPORTANCE_NAMES)


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) != targets).double().mean())


def through_numpy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.numpy() ** 2).mean())


def test_every_name_of_the_settings_is_known() -> None:
    assert (*CHANNEL_IMPORTANCES, "auto") == IMPORTANCE_NAMES
    assert CHANNEL_IMPORTANCES.keys() == WEIGHT_IMPORTANCES.keys()


@pytest.mark.parametrize("name", [*KINDS, *CASES])
def test_channels_of_every_kind_of_network_are_scored(name: str) -> None:
    scorer = scorer_of(task_of_kind(name) if name in KINDS else task_of(name))
    for group, size in enumerate(scorer.structure.sizes):
        for importance in IMPORTANCE_NAMES:
            scores = scorer.channels(importance, group)
            assert scores.shape == (size,), importance
            assert scores.dtype == torch.float64, importance
            assert torch.isfinite(scores).all(), importance
            assert (scores >= 0).all(), importance
            assert len(scores.unique()) > 1, importance
    assert scorer.chosen.keys() == set(scorer.structure.names)


@pytest.mark.parametrize("name", [*KINDS, *CASES])
def test_weights_of_every_kind_of_network_are_scored(name: str) -> None:
    scorer = scorer_of(task_of_kind(name) if name in KINDS else task_of(name), "unstructured")
    for tensor in scorer.structure.weights:
        for importance in IMPORTANCE_NAMES:
            if importance in WHOLE_FILTERS:
                continue
            scores = scorer.weights(importance, tensor)
            assert scores.shape == scorer.state[tensor].shape, importance
            assert scores.dtype == torch.float64, importance
            assert torch.isfinite(scores).all(), importance
            assert (scores >= 0).all(), importance
    assert scorer.chosen.keys() == set(scorer.structure.names)
    assert set(scorer.chosen.values()) < set(IMPORTANCE_NAMES) - {"random", "auto"}


@EVERY
def test_a_round_of_every_importance(importance: str, user_task: Task) -> None:
    _, info = episode(make(user_task, importance=importance), 0.4)
    assert 0.25 < info["metric"] <= 1
    for granularity in ("unstructured", "2:4"):
        if importance not in WHOLE_FILTERS:
            _, info = episode(make(user_task, importance=importance, granularity=granularity), 0.4)
            assert 0.25 < info["metric"] <= 1


@EVERY
def test_scores_depend_on_nothing_but_their_arguments(importance: str) -> None:
    model = small_network()
    model.insert(2, nn.Dropout(0.5))
    task = small_task("pure", model=model.eval(), w=0.5)
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    torch.manual_seed(1)
    states = generator_states()
    found = [scorer_of(task).channels(importance, group) for group in (0, 1)]
    assert generator_states() == states
    torch.manual_seed(2)
    scorer = scorer_of(task)
    assert all(torch.equal(scorer.channels(importance, group), found[group]) for group in (1, 0, 1))
    assert all(torch.equal(t, before[name]) for name, t in task.model.state_dict().items())
    assert not any(p.requires_grad for model in (task.model, scorer.structure.model) for p in model.parameters())
    if importance not in WHOLE_FILTERS:
        tensors = ("0.weight", "3.weight", "5.weight")
        scorer = scorer_of(task, "unstructured")
        there = {tensor: scorer.weights(importance, tensor) for tensor in tensors}
        again = scorer_of(task, "unstructured")
        assert all(torch.equal(again.weights(importance, tensor), there[tensor]) for tensor in reversed(tensors))


def test_random_scores_are_those_of_any_other_process(user_task: Task) -> None:
    code = """
        from tests.compression.scoring import scorer_of
        from tests.helpers import small_task
        task = small_task("small")
        print(scorer_of(task).channels("random", 1).tolist())
        print(scorer_of(task, "unstructured").weights("random", "4.weight").flatten().tolist())
    """
    ran = run_python(code)
    channels, weights = ran.stdout.splitlines()
    assert channels == str(scorer_of(user_task).channels("random", 1).tolist()), ran.stderr
    assert weights == str(scorer_of(user_task, "unstructured").weights("random", "4.weight").flatten().tolist())


def test_random_differs_from_group_to_group() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    scorer = scorer_of(small_task("twice", model=model.eval().requires_grad_(False), w=0.5))
    assert not torch.equal(scorer.channels("random", 0), scorer.channels("random", 1))


@pytest.mark.parametrize("loss", [error_rate, through_numpy])
def test_taylor_without_a_gradient_is_refused_and_auto_does_without(loss: object, user_task: Task) -> None:
    task = small_task("flat", model=user_task.model, w=0.5, loss=loss)
    for granularity in ("structured", "unstructured"):
        with pytest.raises(ValueError, match=r"importance 'taylor' needs the gradient .*'flat' has none .*give Task a loss"):
            LiveEvaluator(task, Settings("none", "taylor", granularity))
        scorer = scorer_of(task, granularity)
        for group, weight in enumerate(("0.weight", "2.weight")):
            scores = scorer.channels("auto", group) if granularity == "structured" else scorer.weights("auto", weight)
            assert torch.isfinite(scores).all()
        assert "taylor" not in scorer.chosen.values()


def test_a_gradient_that_is_not_finite_is_refused(user_task: Task) -> None:
    task = small_task("steep", model=user_task.model, w=0.5, loss=lambda o, t: (o - o).abs().sqrt().sum() + o.square().mean())
    with pytest.raises(ValueError, match=r"'steep' has none \(by 0\.weight it is NaN or infinite\)"):
        LiveEvaluator(task, Settings("none", "taylor"))


def test_a_label_out_of_range_is_named(user_task: Task) -> None:
    x, y = classes(40)
    loss = functools.partial(nn.functional.cross_entropy, label_smoothing=0.1)  # not one whose labels a task checks itself
    task = Task(user_task.model, (x[:20], y[:20] + 5), (x[20:], y[20:]), name="relabelled", loss=loss)
    with pytest.raises(ValueError, match=r"'relabelled' has none \(Target \d is out of bounds"):
        LiveEvaluator(task, Settings("none", "taylor"))


@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
def test_fpgm_is_for_channels(granularity: str, user_task: Task) -> None:
    with pytest.raises(ValueError, match="'fpgm' compares whole filters; use it with granularity='structured'"):
        LiveEvaluator(user_task, Settings("none", "fpgm", granularity))


def test_an_unknown_importance_answers_with_the_known(user_task: Task) -> None:
    with pytest.raises(ValueError, match=r"unknown importance 'tailor'; known: l1, .*auto; did you mean 'taylor'"):
        scorer_of(user_task).channels("tailor", 0)
    with pytest.raises(ValueError, match="did you mean 'wanda'"):
        scorer_of(user_task, "unstructured").weights("wandas", "0.weight")


@pytest.mark.parametrize(("importance", "order"), [("l1", 1), ("l2", 2)])
def test_the_smallest_filters_go_first(importance: str, order: int, user_task: Task) -> None:
    evaluator = LiveEvaluator(user_task, Settings("none", importance))
    norms = torch.linalg.vector_norm(user_task.model[0].weight, ord=order, dim=1)
    for count in (1, 7, 23):
        kept = evaluator.cut(evaluator.dense, 0, count).keep[0]
        assert kept == tuple(sorted(norms.argsort()[count:].tolist()))


@EVERY
def test_what_is_cut_stays_cut(importance: str, user_task: Task) -> None:
    evaluator = LiveEvaluator(user_task, Settings("none", importance))
    at_once = evaluator.cut(evaluator.dense, 0, 12)
    assert evaluator.cut(evaluator.cut(evaluator.dense, 0, 5), 0, 7) == at_once
    assert evaluator.cut(at_once, 0, 0) == at_once


def test_importances_disagree(user_task: Task) -> None:
    plans = {}
    for importance in IMPORTANCE_NAMES:
        evaluator = LiveEvaluator(user_task, Settings("none", importance))
        plans[importance] = tuple(evaluator.cut(evaluator.dense, g, size // 2) for g, size in enumerate(evaluator.sizes))
    assert plans["lamp"] == plans["l2"]
    assert len({plans[name] for name in IMPORTANCE_NAMES if name not in ("lamp", "auto")}) == len(IMPORTANCE_NAMES) - 2


def test_equal_filters_leave_in_a_fixed_order() -> None:
    model = small_network()
    nn.init.ones_(model[0].weight)
    for importance in ("l1", "l2", "fpgm", "lamp"):
        evaluator = LiveEvaluator(small_task("equal", model=model, w=0.5), Settings("none", importance))
        assert evaluator.cut(evaluator.dense, 0, 4).keep[0] == tuple(range(4, 24))


@pytest.mark.parametrize("importance", ["l1", "l2", "fpgm", "lamp"])
def test_coupled_layers_weigh_alike_whatever_their_scale(importance: str) -> None:
    task = task_of("residual")
    expected = scorer_of(task).channels(importance, 0)
    with torch.no_grad():
        task.model.stem[0].weight.mul_(1000)  # this task is the test's own
    torch.testing.assert_close(scorer_of(task).channels(importance, 0), expected)


def test_whatever_is_read_by_a_scaled_layer_weighs_alike() -> None:
    task = task_of("residual")
    expected = {importance: scorer_of(task).channels(importance, 1) for importance in ("wanda", "obs")}
    with torch.no_grad():
        task.model.second[0].weight.mul_(1000)
        task.model.second[0].bias.mul_(1000)
    for importance, scores in expected.items():
        torch.testing.assert_close(scorer_of(task).channels(importance, 1), scores)
