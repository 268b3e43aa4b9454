"""Importances of channels against small cases worked out by hand or by another route."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression import surgeon
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.compression.networks import task_of
from tests.compression.scoring import error_of_cut, errors_of_cut, scorer_of, task_of_kind, task_on

# Three filters of two weights; their norms, distances and shares can be had by hand.
FILTERS = ((3.0, 4.0), (0.0, 1.0), (-2.0, 0.0))
READ = (1.0, -2.0, 0.5)
EXAMPLES = ((1.0, 0.0), (0.0, 1.0), (-1.0, 2.0), (-3.0, 1.0), (2.0, 2.0), (-1.0, -1.0), (0.5, 4.0), (1.0, -3.0))


def three_filters() -> Task:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    model[0].weight, model[2].weight = (nn.Parameter(torch.tensor(w)) for w in (FILTERS, (READ,)))
    x = torch.tensor(EXAMPLES)
    return task_on(model, Split(x, torch.zeros(len(x))))


def scores_of(task: Task, importance: str, group: int = 0) -> list[float]:
    scores: list[float] = scorer_of(task).channels(importance, group).tolist()
    return scores


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        ("l1", (7, 1, 2)),
        ("l2", (5, 1, 2)),
        ("fpgm", (18**0.5 + 41**0.5, 18**0.5 + 5**0.5, 41**0.5 + 5**0.5)),
    ],
)
def test_filters_relative_to_their_mean(importance: str, expected: tuple[float, ...]) -> None:
    mean = sum(expected) / 3
    assert scores_of(three_filters(), importance) == pytest.approx([value / mean for value in expected])


def test_lamp_is_the_share_of_the_larger() -> None:
    assert scores_of(three_filters(), "lamp") == pytest.approx([25 / 25, 1 / 30, 4 / 29])


def test_wanda_weighs_what_is_read_by_how_large_it_is() -> None:
    hidden = torch.tensor(EXAMPLES[:4]) @ torch.tensor(FILTERS).T
    expected = (torch.tensor(READ).abs() * hidden.clamp_min(0).square().mean(0).sqrt()).double()
    assert scores_of(three_filters(), "wanda") == pytest.approx((expected / expected.mean()).tolist(), rel=1e-5)


class Gated(nn.Module):
    """A network and a factor for each channel of one of its layers' outputs."""

    def __init__(self, model: nn.Module, layer: str, size: int) -> None:
        super().__init__()
        self.model, self.gate = copy.deepcopy(model), torch.ones(size, requires_grad=True)
        self.model.get_submodule(layer).register_forward_hook(self._hook)

    def _hook(self, module: nn.Module, given: Any, output: Tensor) -> Tensor:
        return output * self.gate.view(-1, *[1] * (output.dim() - 2))

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


@pytest.mark.parametrize(
    ("name", "layer", "group"), [("residual", "first", 1), ("concatenated", "down", 2), ("depthwise", "depthwise", 0)]
)
def test_taylor_is_the_squared_gradient_of_a_gate_behind_norm_and_activation(name: str, layer: str, group: int) -> None:
    task = task_of(name, 60)  # trained on 30: two batches of 15
    task.loss = lambda outputs, targets: outputs.square().mean()
    scorer = scorer_of(task)
    expected = torch.zeros(scorer.structure.sizes[group], dtype=torch.float64)
    for batch in (task.train[:15], task.train[15:]):
        gated = Gated(task.model, layer, len(expected))
        task.loss(gated(batch.inputs), batch.targets).backward()
        assert gated.gate.grad is not None
        expected += gated.gate.grad.double().square() / 2
    torch.testing.assert_close(scorer.channels("taylor", group), expected, rtol=1e-3, atol=1e-9)


def test_taylor_of_a_relu_network_is_the_papers_sum_over_a_filters_own_weights(user_task: Task) -> None:
    model = copy.deepcopy(user_task.model).requires_grad_(True)
    train = user_task.train[:16]
    nn.functional.cross_entropy(model(train.inputs), train.targets).backward()
    own = (model[0].weight * model[0].weight.grad).sum(1) + model[0].bias * model[0].bias.grad
    task = Task(user_task.model, train, user_task.valid, w=0.5)
    torch.testing.assert_close(scorer_of(task).channels("taylor", 0), own.detach().double().square(), rtol=1e-3, atol=1e-9)


def test_obs_removes_what_costs_least_after_what_is_gone_already(user_task: Task) -> None:
    scorer = scorer_of(user_task)
    for group, size in enumerate(scorer.structure.sizes):
        order = scorer.channels("obs", group).argsort().tolist()
        for count in (0, 1, 5, size - 3):
            gone, rest = order[:count], order[count:]
            errors = {channel: error_of_cut(scorer, group, [*gone, channel]) for channel in rest}
            assert errors[rest[0]] == pytest.approx(min(errors.values()), rel=1e-4)
            assert float(scorer.channels("obs", group)[rest[0]]) == pytest.approx(errors[rest[0]], rel=1e-3)


def test_what_a_channel_is_made_of_goes_with_it_at_no_cost() -> None:
    # The trunk's channels are made of one another.
    scorer = scorer_of(task_of("residual"))
    scores = scorer.channels("obs", 0)
    order, size = scores.argsort().tolist(), scorer.structure.sizes[0]

    def cost(gone: list[int], channel: int) -> float:
        silent = [*gone, channel]
        parts = zip(errors_of_cut(scorer, 0, silent, silent), errors_of_cut(scorer, 0, gone, silent), strict=True)
        return sum(float(after.sum() - before.sum()) / whole for (after, _, whole), (before, _, _) in parts)

    for count in range(1, size - 1):
        costs = {channel: cost(order[:count], channel) for channel in order[count:]}
        assert costs[order[count]] == pytest.approx(min(costs.values()), rel=1e-4)
        step = float(scores[order[count]] - scores[order[count - 1]])
        assert step == pytest.approx(costs[order[count]], rel=1e-3)


def test_obs_removes_several_channels_a_round_from_big_groups(monkeypatch: pytest.MonkeyPatch, user_task: Task) -> None:
    scorer = scorer_of(user_task)
    one_by_one = scorer.channels("obs", 0)
    monkeypatch.setattr(surgeon, "ROUNDS", 6)
    by_fours = scorer.channels("obs", 0)
    assert by_fours.argmin() == one_by_one.argmin()
    assert not torch.equal(by_fours, one_by_one)
    kept = {name: scores.argsort()[:12].tolist() for name, scores in (("one", one_by_one), ("four", by_fours))}
    assert error_of_cut(scorer, 0, kept["four"]) < 1.5 * error_of_cut(scorer, 0, kept["one"])


def redundant() -> Task:
    """Channel 0 is dead, 1 and 2 are the same, 3 is small and the only one of its kind, 4 to 7 are large."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
        model[0].weight[4:] *= 4
        model[0].weight[:3] *= 9
        model[0].bias[0] = -1e4
        model[0].weight[2], model[0].bias[2] = model[0].weight[1], model[0].bias[1]
        model[0].weight[3] *= 0.3
        x = torch.randn(200, 6)
    return task_on(model.eval(), Split(x, torch.zeros(200)))


def test_obs_finds_dead_and_duplicated_channels_which_magnitude_keeps() -> None:
    task = redundant()
    scorer = scorer_of(task)
    obs, l1 = scorer.channels("obs", 0), scorer.channels("l1", 0)
    assert {0} < set(obs.argsort()[:2].tolist()) < {0, 1, 2}
    assert l1.argmin() == 3
    # Without its twin the other one is worth something: it stays when half of the channels go.
    assert len({1, 2} & set(obs.argsort()[4:].tolist())) == 1
    assert error_of_cut(scorer, 0, obs.argsort()[:2].tolist()) < 1e-4 < error_of_cut(scorer, 0, l1.argsort()[:2].tolist())


def test_depthwise_filters_count_whichever_way_they_convolve() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 1), nn.Flatten())
        model = nn.Sequential(*layers).requires_grad_(False).eval()
        x = torch.randn(20, 2, 6, 6)
    model[2].weight[4] *= 50
    scorer = scorer_of(task_on(model, Split(x, torch.zeros(20))))
    assert set(scorer.structure.groups[0].producers) == {"0", "2"}
    for importance in ("l1", "l2", "fpgm", "lamp"):
        assert scorer.channels(importance, 0).argmax() == 4


def test_dead_channels_cost_taylor_and_wanda_nothing() -> None:
    scorer = scorer_of(redundant())
    for importance in ("taylor", "wanda"):
        assert scorer.channels(importance, 0)[0] == 0
        assert scorer.channels(importance, 0).argmin() == 0


def test_fpgm_finds_the_same_heads_and_units() -> None:
    task = task_of_kind("transformer")
    attention = task.model.encoder.layers[0].self_attn
    width = attention.head_dim
    with torch.no_grad():
        for block in range(3):  # query, key and value of the first two heads become those of the third
            rows = attention.in_proj_weight[block * 16 : (block + 1) * 16]
            rows[:width] = rows[width : 2 * width] = rows[2 * width : 3 * width]
    scorer = scorer_of(task)
    assert scorer.channels("fpgm", 0).argmax() == 3


def test_channels_that_nothing_measured_reads_are_scored_by_their_own_weights() -> None:
    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(6, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden(x).square().sum(1, keepdim=True)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = task_on(Averaged().eval(), Split(torch.randn(40, 6) * torch.arange(6), torch.zeros(40)))
    scorer = scorer_of(task)
    assert scorer.structure.sizes == (8,)
    norms = task.train.inputs.double().square().mean(0).sqrt()  # type: ignore[union-attr]
    own = (task.model.hidden.weight.double().abs() * norms).sum(1)
    torch.testing.assert_close(scorer.channels("wanda", 0), own / own.mean())
    torch.testing.assert_close(scorer.channels("obs", 0), scorer.channels("wanda", 0))
    torch.testing.assert_close(scorer.channels("auto", 0), scorer.channels("l1", 0))
    assert scorer.chosen == {"hidden": "l1"}
    assert scorer.channels("taylor", 0).min() > 0
