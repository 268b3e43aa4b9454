"""Importances of single weights against small cases worked out by hand or by another route."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.importance import Scorer
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task
from tests.compression.networks import task_of
from tests.compression.scoring import scorer_of, task_of_kind, task_on

WEIGHT = ((3.0, -1.0), (0.0, 2.0))
EXAMPLES = ((1.0, 1.0), (3.0, -1.0), (0.0, 3.0), (1.0, 1.0))


def linear(bias: bool = False) -> Task:
    model = nn.Sequential(nn.Linear(2, 2, bias=bias))
    model[0].weight = nn.Parameter(torch.tensor(WEIGHT))
    x = torch.tensor(EXAMPLES)
    return task_on(model, Split(torch.cat([x, 9 + x]), torch.zeros(8)))


def scored(importance: str, task: Task | None = None) -> Tensor:
    return scorer_of(task or linear(), "unstructured").weights(importance, "0.weight")


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_magnitudes(importance: str) -> None:
    assert scored(importance).tolist() == [[3, 1], [0, 2]]


def test_lamp_is_the_share_of_the_larger() -> None:
    torch.testing.assert_close(scored("lamp"), torch.tensor([[9 / 9, 1 / 14], [0, 4 / 13]], dtype=torch.float64))


def test_equal_weights_have_equal_shares() -> None:
    task = linear()
    with torch.no_grad():
        task.model[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
    torch.testing.assert_close(scored("lamp", task), torch.tensor([[1 / 7, 1 / 7], [1, 1 / 7]], dtype=torch.float64))


def test_wanda_is_the_magnitude_times_the_norm_of_the_input() -> None:
    # Mean squares of the inputs: (1 + 9 + 0 + 1) / 4 and (1 + 1 + 9 + 1) / 4.
    first, second = (11 / 4) ** 0.5, (12 / 4) ** 0.5
    expected = torch.tensor([[3 * first, second], [0, 2 * second]], dtype=torch.float64)
    torch.testing.assert_close(scored("wanda"), expected)


def test_obs_is_what_the_best_refit_of_the_other_weights_leaves() -> None:
    # G = [[11, -1], [-1, 12]] / 4, whose inverse has the diagonal 4 * (12, 11) / 131.
    first, second = 4 * 12 / 131, 4 * 11 / 131
    expected = torch.tensor([[9 / first, 1 / second], [0, 4 / second]], dtype=torch.float64) / 2
    torch.testing.assert_close(scored("obs"), expected, rtol=1e-5, atol=0)


def test_obs_refits_the_bias_too() -> None:
    x, weight = torch.tensor(EXAMPLES).double(), torch.tensor(WEIGHT).double()
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for column in (0, 1):
        others = torch.cat([x[:, 1 - column :][:, :1], torch.ones(4, 1, dtype=torch.float64)], 1)
        left = x[:, column] - others @ torch.linalg.lstsq(others, x[:, column : column + 1]).solution[:, 0]
        expected[:, column] = weight[:, column] ** 2 * (left**2).mean() / 2
    torch.testing.assert_close(scored("obs", linear(bias=True)), expected, rtol=1e-3, atol=0)


def test_taylor_is_the_squared_product_with_the_gradient_in_every_batch() -> None:
    task = task_of("signal", 40)  # trained on 20: two batches of 10
    task.loss = lambda outputs, targets: outputs.square().mean()
    scorer = scorer_of(task, "unstructured")
    expected = {tensor: torch.zeros(scorer.state[tensor].shape, dtype=torch.float64) for tensor in scorer.structure.weights}
    for batch in (task.train[:10], task.train[10:]):
        model = copy.deepcopy(task.model).requires_grad_(True)
        task.loss(call(model, batch.inputs), batch.targets).backward()
        for name, weight in model.named_parameters():
            if name in expected:
                assert weight.grad is not None
                expected[name] += (weight.detach().double() * weight.grad.double()).square() / 2
    for tensor, scores in expected.items():
        torch.testing.assert_close(scorer.weights("taylor", tensor), scores, rtol=1e-4, atol=1e-12)


def inputs_of(scorer: Scorer, layer: str) -> list[Tensor]:
    seen: list[Tensor] = []
    module = scorer.structure.model.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, given, output: seen.extend([given[0], output[0]]))
    call(scorer.structure.model, scorer.task.train.inputs)
    handle.remove()
    return seen


def test_wanda_of_a_recurrent_layer_knows_inputs_and_states() -> None:
    scorer = scorer_of(task_of_kind("gru"), "unstructured")
    x, states = inputs_of(scorer, "recurrent")
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
    for part, read in (("ih", x), ("hh", before)):
        name = f"recurrent.weight_{part}_l0"
        norms = read.double().square().mean((0, 1)).sqrt()
        torch.testing.assert_close(scorer.weights("wanda", name), scorer.state[name].double().abs() * norms)


@pytest.mark.parametrize(("kind", "layer"), [("generator", "b"), ("grouped", "b"), ("grouped", "wide"), ("1-d", "b")])
def test_wanda_of_convolutions_is_in_the_place_of_each_weight(kind: str, layer: str) -> None:
    # The norm of what one weight multiplies is that of the layer's output when the weight is 1 and the others are 0.
    scorer = scorer_of(task_of_kind(kind), "unstructured")
    x, _ = inputs_of(scorer, layer)
    name = f"{layer}.weight"
    module = copy.deepcopy(scorer.structure.model.get_submodule(layer))
    scores, weight = scorer.weights("wanda", name), scorer.state[name]
    for number in range(0, weight.numel(), max(1, weight.numel() // 11)):
        alone = torch.zeros(weight.numel()).index_fill(0, torch.tensor(number), 1.0).view(weight.shape)
        module.weight, module.bias = nn.Parameter(alone), None
        output = module(x).detach().double()
        # One output channel is not zero.
        norm = (output.square().sum() / (output.numel() / output.shape[1])).sqrt()
        expected = float(weight.flatten()[number].double().abs() * norm)
        assert float(scores.flatten()[number]) == pytest.approx(expected, rel=1e-4)


class OwnGRU(nn.GRU):
    """No plain GRU, so its layers are not taken apart, and the states between them are not seen."""


def test_weights_whose_inputs_are_not_seen_are_scored_by_magnitude() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = task_on(OwnGRU(4, 6, 2, batch_first=True).eval(), Split(torch.randn(20, 5, 4), torch.zeros(20)))
    scorer = scorer_of(task, "unstructured")
    magnitude = scorer.state["weight_ih_l1"].double().abs()
    assert torch.equal(scorer.weights("wanda", "weight_ih_l1"), magnitude)
    assert torch.equal(scorer.weights("obs", "weight_ih_l1"), magnitude.square() / 2)
    assert torch.equal(scorer.weights("auto", "weight_ih_l1"), magnitude)
    assert scorer.chosen == {"weight_ih_l1": "l1"}
    assert not torch.equal(scorer.weights("wanda", "weight_ih_l0"), scorer.state["weight_ih_l0"].double().abs())
