"""Refits of weights with holes: the least-squares fit of every output, and the holes stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression import masked
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task
from tests.compression.holes import mixed, uniform
from tests.compression.kinds import KINDS, first, made

REFITS = pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])


def data_of(name: str, examples: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, correlated inputs and what it makes of them."""
    model = mixed()[0] if name == "mixed" else made(name)[0]
    shape = (3, 6, 6) if name == "mixed" else KINDS[name][1]
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(examples, *shape, generator=generator) + torch.randn(examples, *[1] * len(shape), generator=generator)
    return model, x, first(model(x))


def evaluator_of(name: str, recovery: str, granularity: str = "unstructured", examples: int = 200) -> LiveEvaluator:
    model, x, y = data_of(name, examples + 50)
    task = Task(model, (x[:examples], y[:examples]), (x[examples:], y[examples:]), metric="mse", loss="mse")
    return LiveEvaluator(task, Settings(recovery, granularity=granularity))


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("constant", [False, True])
def test_each_output_has_its_own_least_squares_fit(density: float, constant: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    groups, rows, features, outputs = 2, 200, 13, 7
    x = torch.randn(groups, rows, features, generator=generator, dtype=torch.float64)
    x = x @ (torch.eye(features) + 0.1 * torch.randn(groups, features, features, generator=generator)).double()
    if constant:
        x[..., -1] = 1
    y = torch.randn(groups, rows, outputs, generator=generator, dtype=torch.float64)
    free = torch.rand(groups, features, outputs, generator=generator) < density
    free[:, -1] |= constant
    gram, cross = x.transpose(1, 2) @ x / rows, x.transpose(1, 2) @ y / rows
    found = masked.solve(gram, cross, torch.zeros_like(cross), free)
    assert not found[~free].any()
    for group in range(groups):
        for column in range(outputs):
            kept = torch.nonzero(free[group, :, column]).flatten()
            if len(kept):
                wanted = torch.linalg.lstsq(x[group][:, kept], y[group, :, column, None]).solution[:, 0]
                assert (found[group, kept, column] - wanted).norm() <= 1e-5 * wanted.norm() + 1e-7


def test_where_the_data_says_nothing_the_weights_stay() -> None:
    gram = torch.zeros(1, 4, 4, dtype=torch.float64)
    gram[0, 0, 0] = 1
    prior = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]], dtype=torch.float64)
    free = torch.tensor([[[True], [True], [False], [True]]])
    found = masked.solve(gram, torch.zeros_like(prior), prior, free).flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 2.0, 0.0, 4.0], dtype=torch.float64), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
def test_refitted_layers_are_the_least_squares_fits_of_what_they_read(granularity: str) -> None:
    """From dense inputs, and in sequence from what the layers before, refitted themselves, make of them.

    Few enough examples that the refit in sequence looks at all of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, 12), nn.LeakyReLU(0.2), nn.Linear(12, 16, bias=False), nn.LeakyReLU(0.2), nn.Linear(16, 4)
        )
        x = torch.randn(260, 8) @ (torch.eye(8) + 0.2 * torch.randn(8, 8))
    model.eval().requires_grad_(False)
    task = Task(model, (x[:60], model(x[:60])), (x[60:], model(x[60:])), metric="mse", loss="mse")
    for recovery in ("reconstruct", "reconstruct-sequential"):
        evaluator = LiveEvaluator(task, Settings(recovery, granularity=granularity))
        fitted = evaluator.compressed_model(uniform(evaluator, 0.5))
        masks = {
            n: p != 0
            for n, p in LiveEvaluator(task, Settings("none", granularity=granularity))
            .compressed_model(uniform(evaluator, 0.5))
            .named_parameters()
        }
        inputs, dense = x[:60].double(), x[:60].double()
        for index in range(len(model)):
            layer, was = copy.deepcopy(fitted[index]).double(), copy.deepcopy(model[index]).double()
            if isinstance(layer, nn.Linear):
                read = dense if recovery == "reconstruct" else inputs
                wanted = was(dense)
                for output, weights in enumerate(layer.weight):
                    kept = torch.nonzero(masks[f"{index}.weight"][output]).flatten()
                    a = torch.cat([read[:, kept], torch.ones(60, int(layer.bias is not None), dtype=torch.float64)], 1)
                    solution = torch.linalg.lstsq(a, wanted[:, output, None]).solution[:, 0]
                    got = weights[kept] if layer.bias is None else torch.cat([weights[kept], layer.bias[output, None]])
                    assert (got - solution).norm() < 1e-3 * solution.norm()
                    plain = was.weight[output, kept]
                    assert (weights[kept] - plain).norm() > 0.02 * plain.norm() or len(kept) == len(weights)
            inputs, dense = layer(inputs), was(dense)


@REFITS
@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", [*KINDS, "mixed"])
def test_holes_stay_holes(name: str, granularity: str, recovery: str) -> None:
    model, x, _ = data_of(name, 40)
    task = Task(
        model, (x[:20], first(model(x[:20]))), (x[20:], first(model(x[20:]))), metric=lambda o, t: 1.0, loss=lambda o, t: 0.0
    )
    plain, refitted = (LiveEvaluator(task, Settings(r, granularity=granularity)) for r in ("none", recovery))
    plan = uniform(plain, 0.6)
    holes = {n: p == 0 for n, p in plain.compressed_model(plan).named_parameters()}
    dense, changed = dict(plain.structure.model.named_parameters()), set()
    for weight, tensor in refitted.compressed_model(plan).named_parameters():
        assert weight not in plain.structure.weights or not tensor[holes[weight]].any()
        if not torch.equal(tensor, dense[weight].masked_fill(holes[weight], 0)):
            changed.add(weight)
    wanted = set(plain.structure.weights) - {"grouped_up.weight"}  # a transposed convolution in groups is no plain linear map
    assert wanted <= changed


@REFITS
@pytest.mark.parametrize("name", ["mixed", "grouped", "1-d", "generator", "lstm", "lstm both ways", "packed", "transformer"])
def test_outputs_come_nearer_to_dense(name: str, recovery: str) -> None:
    plain, refitted = evaluator_of(name, "none"), evaluator_of(name, recovery)
    plan = uniform(plain, 0.4)
    assert refitted.measure(plan).loss < 0.9 * plain.measure(plan).loss


def test_refits_in_sequence_win_back_more_of_a_trained_network() -> None:
    task = make_task("digits-mlp")
    losses = []
    for recovery in ("none", "reconstruct", "reconstruct-sequential"):
        evaluator = LiveEvaluator(task, Settings(recovery, granularity="unstructured"))
        losses.append(evaluator.measure(uniform(evaluator, 0.8)).loss)
    none, dense_inputs, sequence = losses
    assert sequence < 0.7 * dense_inputs < 0.25 * none


@REFITS
def test_a_refit_does_not_depend_on_the_plans_before_it(recovery: str) -> None:
    generator = np.random.default_rng(0)
    evaluators = [evaluator_of("lstm", recovery) for _ in range(2)]
    sizes, names = evaluators[0].sizes, evaluators[0].group_names
    plans = [Plan(names, [int(generator.integers(1, size + 1)) for size in sizes]) for _ in range(4)]
    # Plans that share some masks with the one before, as those of an episode do.
    plans += [plans[-1].replace(0, 5), plans[-1].replace(0, 5).replace(2, 7), evaluators[0].dense]
    there = [evaluators[0].measure(plan) for plan in plans]
    back = [evaluators[1].measure(plan) for plan in reversed(plans)]
    assert there == back[::-1]
    assert evaluators[0].measure(evaluators[0].dense).loss < 1e-12


@REFITS
def test_the_dense_network_is_left_alone(recovery: str) -> None:
    task = make_task("digits-cnn")
    before = copy.deepcopy(task.model.state_dict())
    evaluator = LiveEvaluator(task, Settings(recovery, granularity="unstructured"))
    structure = copy.deepcopy(evaluator.structure.model.state_dict())
    evaluator.measure(evaluator.dense.replace(1, removal_count(evaluator.sizes[1], 0.5)))
    for state, model in ((before, task.model), (structure, evaluator.structure.model)):
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    whole = evaluator.compressed_model(evaluator.dense).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in before.items())


def test_recalibration_goes_with_holes() -> None:
    task = make_task("digits-cnn")
    measured = {}
    for recovery in ("none", "recalibrate", "reconstruct", "reconstruct+recalibrate"):
        evaluator = LiveEvaluator(task, Settings(recovery, granularity="2:4"))
        measured[recovery] = evaluator.measure(uniform(evaluator, 0.5))
    assert len({m.loss for m in measured.values()}) == 4
    assert len({m.bytes for m in measured.values()}) == 1
    assert measured["recalibrate"].loss < measured["none"].loss
