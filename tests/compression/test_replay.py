"""Networks run from the middle: the same outputs to the last bit, or the whole network and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from reptile_env.compression.layers import prepare
from reptile_env.compression.nested import tensors_in
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.compression.replay import Held, Replay, ReplayError
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.resnet import ResNet
from reptile_env.tasks.splits import call
from reptile_env.tasks.task import Task

LEAVES = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.LSTM, nn.GRU)


class InPlace(nn.Module):
    """One ReLU for all, in place, and a sum in place: what was returned changes afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.act, self.head = nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.a(x)))
        z = self.c(self.act(self.b(y)))
        z += y
        return self.head(self.act(z).mean((2, 3)))  # type: ignore[no-any-return]


class Packed(nn.Module):
    """Two recurrent layers over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])  # type: ignore[no-any-return]


class Names(nn.Module):
    """Arguments by name, a dict of results, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        a, b = torch.tanh(self.one(left)), torch.tanh(self.one(input=right))
        c = functional.relu(self.two(a - b))
        return {"logits": self.three(input=c), "between": a * c}


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 8, 8)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 3)


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "in place": (InPlace, images),
    "residual": (lambda: ResNet(14, channels=1), images),
    "transformer": (encoder, lambda n: torch.randn(n, 5, 16)),
    "packed": (Packed, lambda n: (torch.randn(n, 5, 4), torch.randint(1, 6, (n,)))),
    "names": (Names, lambda n: {"left": torch.randn(n, 5), "right": torch.randn(n, 5)}),
    "attention batch second": (lambda: nn.TransformerEncoderLayer(16, 4, 32), lambda n: torch.randn(5, n, 16)),
}


def replayed(kind: str) -> tuple[nn.Module, Replay, Any]:
    torch.manual_seed(0)
    build, data = KINDS[kind]
    network = prepare(build().eval(), False)[0]
    with torch.no_grad():
        return network, Replay(network, data(3)), data(20)


@pytest.mark.parametrize("kind", KINDS)
def test_from_every_layer_on_the_outputs_are_the_same(kind: str) -> None:
    network, replay, inputs = replayed(kind)
    boundaries = sorted({replay.first_call(name) for name, module in network.named_modules() if isinstance(module, LEAVES)})
    with torch.inference_mode():
        expected = tensors_in(call(network, inputs))
        held = replay.run(network, inputs, hold=boundaries)[1]
        assert sum(replay.usable(b) for b in boundaries) >= len(boundaries) - 1  # not where a layer is called twice
        assert set(held) == {b for b in boundaries if replay.usable(b)}
        for start in [None, *held.values(), *held.values()]:  # twice: what is held was not spoilt by the first time
            again, later = replay.run(network, inputs, start, [b for b in held if start is None or b > start.boundary])
            assert all(torch.equal(a, b) for a, b in zip(tensors_in(again), expected, strict=True))
            for b, one in later.items():
                last, _ = replay.run(network, inputs, one)
                assert all(torch.equal(a, b) for a, b in zip(tensors_in(last), expected, strict=True)), b
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_what_lies_before_a_boundary_does_not_run() -> None:
    network, replay, inputs = replayed("residual")
    assert isinstance(network, ResNet)
    boundary = replay.first_call("layer2.1.conv2")
    held = replay.run(network, inputs, hold=[boundary])[1][boundary]
    ran = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name) if isinstance(_[0], nn.Conv2d) else None)
    full = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.forward = _counting(module, counted := getattr(network, "counted", []))  # type: ignore[method-assign]
            network.counted = counted  # type: ignore[assignment]
    replay.run(network, inputs, held)
    assert 0 < len(network.counted) < full // 2  # type: ignore[arg-type]


def _counting(module: nn.Module, counted: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    original = module.forward

    def forward(x: Tensor) -> Tensor:
        counted.append(module)
        return original(x)  # type: ignore[no-any-return]

    return forward


def test_results_that_nothing_reads_are_not_held() -> None:
    _, replay, inputs = replayed("residual")
    boundary = replay.first_call("layer3.0.conv1")
    held = replay.run(replay._model, inputs, hold=[boundary])[1][boundary]
    block = 20 * 32 * 4 * 4 * 4  # bytes of the second stage's result
    assert block <= sum(held.storages().values()) < 2 * block


class Fickle(nn.Module):
    """Calls its activations in an order that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.one, self.two) if len(x) < 5 else (self.two, self.one)
        return self.head(second(self.b(first(self.a(x)))))  # type: ignore[no-any-return]


def test_another_order_of_calls_is_an_error() -> None:
    network = Fickle().eval()
    replay = Replay(network, torch.randn(3, 6))
    with pytest.raises(ReplayError, match="was called where"):
        replay.run(network, torch.randn(20, 6), hold=[replay.first_call("b"), replay.first_call("head")])
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_a_network_that_can_not_be_replayed_runs_whole_and_says_so() -> None:
    torch.manual_seed(0)
    network = Fickle().eval()
    inputs = torch.randn(60, 6)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    task = Task(network, (inputs[:20], labels[:20]), (inputs[20:], labels[20:]))
    evaluator, whole = LiveEvaluator(task, Settings()), LiveEvaluator(task, Settings())
    whole._engine.prefixes = None
    plans = crawl(evaluator, np.random.default_rng(0))
    with pytest.warns(UserWarning, match="the whole network runs") as caught:
        measured = [evaluator.measure(plan) for plan in plans]
    assert sum("whole network" in str(w.message) for w in caught) == 1
    assert measured == [whole.measure(plan) for plan in plans]


def crawl(evaluator: LiveEvaluator, rng: np.random.Generator, plan: Plan | None = None) -> list[Plan]:
    """Plans on the way of an episode."""
    plan, plans = plan or evaluator.dense, []
    for group, size in enumerate(evaluator.sizes):
        levels = {} if not evaluator.lists or rng.random() < 0.7 else {"bits": int(rng.choice([4, 8]))}
        plan = evaluator.cut(plan, group, removal_count(size, float(rng.choice([0.0, 0.3, 0.7])))).replace(group, **levels)
        plans.append(plan)
    return plans


CASES = [
    ("digits-cnn", {"recovery": "none"}),
    ("digits-cnn", {"recovery": "reconstruct"}),
    ("digits-cnn", {"recovery": "reconstruct-sequential"}),
    ("digits-cnn", {"recovery": "recalibrate"}),
    ("digits-cnn", {"recovery": "recalibrate+reconstruct"}),
    ("digits-cnn", {"recovery": "reconstruct", "granularity": "unstructured"}),
    ("digits-mlp", {"recovery": "reconstruct-sequential", "granularity": "2:4"}),
]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_cached_or_not_in_any_order_the_floats_are_the_same(name: str, settings: dict[str, Any]) -> None:
    task, rng = make_task(name), np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers without holes, of 2:4
        cached, whole = (LiveEvaluator(task, Settings(**settings)) for _ in range(2))
    whole._engine.prefixes = None
    plans = [plan for _ in range(2) for plan in crawl(cached, rng)]
    expected = {plan: whole.measure(plan) for plan in plans}
    for plan in [plans[i] for i in rng.permutation(len(plans))]:
        assert cached.measure(plan) == expected[plan]
        if rng.random() < 0.3:  # something else in between, its activations on the test split among them
            cached.test(plans[int(rng.integers(len(plans)))])
            cached.compressed_model(plan)


def test_what_is_held_has_the_bytes_that_it_says() -> None:
    held = Held(1, ((torch.zeros(10),), {}), {0: torch.zeros(4), 1: (torch.ones(3), None)})
    assert sum(held.storages().values()) == 4 * 17
