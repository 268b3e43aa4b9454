"""Groups are accepted only where cutting equals zeroing, to what double precision tells apart; whatever else a network does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import reptile_env
from reptile_env.compression.groups import Structure, find_groups
from reptile_env.compression.low_rank import can_factor_group
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

IMAGES, SEQUENCES, VECTORS = (3, 8, 8), (7, 6), (8,)


def inputs_of(shape: tuple[int, ...], count: int = 40) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


def groups_of(network: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Structure:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return find_groups(network().to(dtype).eval(), Split(inputs_of(shape, 4).to(dtype), torch.zeros(4)))


def task_of(network: Callable[[], nn.Module], shape: tuple[int, ...]) -> Task:
    first = lambda outputs: outputs if isinstance(outputs, Tensor) else outputs[0]  # noqa: E731
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = network().eval(), inputs_of(shape)
    with torch.no_grad():
        y = first(model(x)).argmax(1)
    return Task(
        model,
        (x[:20], y[:20]),
        (x[20:], y[20:]),
        metric=lambda outputs, targets: (first(outputs).argmax(1) == targets).double().mean(),
        loss=lambda outputs, targets: functional.cross_entropy(first(outputs), targets),
    )


class Masked(nn.Module):
    """The mean over channels gates all of them, so that the first layer can't be cut; one logit is filled with a constant."""

    def __init__(self, constant: float, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 5)
        self.constant, self.dtype = constant, dtype

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x if self.dtype is None else x.to(self.dtype)))
        x = x * torch.sigmoid(3 * x.mean(1, keepdim=True))
        y = self.head(torch.relu(self.b(x)).mean((2, 3)))
        return y.masked_fill(torch.arange(5) == 0, self.constant)


class Local(nn.Module):
    """Neighbours normalise each other: by little, where inputs are small."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.LocalResponseNorm(5), nn.Conv2d(16, 6, 3, padding=1)
        self.head, self.scale = nn.Linear(6, 5), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.norm(torch.relu(self.a(self.scale * x))))).mean((2, 3)))


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("constant", [0.0, -1e4, -1e9, float("-inf")])
def test_constants_among_the_outputs_hide_no_difference(constant: float, dtype: torch.dtype | None) -> None:
    structure = groups_of(lambda: Masked(constant, dtype), IMAGES)
    assert structure.names == ("b",)
    assert structure.skipped["a"]


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_small_differences_are_seen(scale: float) -> None:
    structure = groups_of(lambda: Local(scale), IMAGES)
    assert structure.names == ("b",)
    assert structure.skipped["a"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_numbers_changes_no_group(dtype: torch.dtype) -> None:
    build = lambda: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))  # noqa: E731
    assert groups_of(build, VECTORS, dtype).names == ("0", "2")


class Rounding(nn.Module):
    """Some of it in single precision, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(torch.tanh(x.float()).to(x.dtype)) + 100


def test_single_precision_inside_is_no_difference() -> None:
    assert groups_of(Rounding, VECTORS).names == ("a", "b")


class Decided(nn.Module):
    """Returns what it decided as well: a bool or an index."""

    def __init__(self, of_channels: bool) -> None:
        super().__init__()
        self.a, self.b, self.of_channels = nn.Linear(8, 16), nn.Linear(16, 5), of_channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.a(x))
        y = self.b(x)
        return y, y > 0, (x if self.of_channels else y).argmax(1)


def test_outputs_that_are_no_floats() -> None:
    gym.make("ReptilePrune-v0", task=task_of(lambda: Decided(False), VECTORS))
    # The number of the largest channel is another one once others are gone.
    with pytest.raises(ValueError, match="not the same as zeroing"):
        groups_of(lambda: Decided(True), VECTORS)


class States(nn.Module):
    """Final states of both layers are read, as one tensor or one by one."""

    def __init__(self, kind: Any, read: Callable[[Any], Tensor], width: int, both: bool = False) -> None:
        super().__init__()
        self.first, self.recurrent = nn.Linear(6, 8), kind(8, 12, 2, batch_first=True, bidirectional=both)
        self.read, self.head = read, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.recurrent(torch.relu(self.first(x)))
        return self.head(self.read(state[0] if isinstance(state, tuple) else state))


LAYERS = ["recurrent.layers.0", "recurrent.layers.1"]
READS: dict[str, tuple[Callable[[], nn.Module], list[str], int]] = {
    "by index": (lambda: States(nn.LSTM, lambda h: torch.cat([h[0], h[-1]], 1), 24), LAYERS, 6),
    "turned": (lambda: States(nn.LSTM, lambda h: h.transpose(0, 1).reshape(h.shape[1], -1), 24), LAYERS[:1], 6),
    "viewed": (
        lambda: States(nn.GRU, lambda h: h.view(2, 2, h.shape[1], -1)[1].transpose(0, 1).flatten(1), 24, True),
        LAYERS[:1],
        6,
    ),
    "added": (lambda: States(nn.RNN, lambda h: h.sum(0), 12), LAYERS[:1], 6),
}


@pytest.mark.parametrize("name", READS)
def test_final_states_are_one_tensor_where_the_network_needs_one(name: str) -> None:
    network, cut, kept = READS[name]
    task = task_of(network, SEQUENCES)
    evaluator = LiveEvaluator(task, Settings("reconstruct"))
    assert list(evaluator.group_names) == ["first", *cut]
    assert evaluator.sizes == (8, *[12] * len(cut))
    plan = evaluator.dense
    for group in range(1, len(evaluator.sizes)):
        plan = evaluator.cut(plan, group, 12 - kept)
    assert evaluator.measure(plan).params == sum(p.numel() for p in evaluator.compressed_model(plan).parameters())
    _zeroed_equals_cut(task, evaluator.structure, Plan(plan.names, [range(8), *[range(0, 12, 3)] * len(cut)]))


def _zeroed_equals_cut(task: Task, structure: Structure, plan: Plan) -> None:
    """Units of no weight at all, which stay 0, may go."""
    model = task.model
    gone = [unit for unit in range(12) if unit % 3]
    recurrent: Any = model.get_submodule("recurrent")
    for name, tensor in recurrent.named_parameters():
        blocks = tensor.data.view(-1, 12, *tensor.shape[1:])
        blocks[:, gone] = 0
        if "hh" in name and tensor.dim() > 1:
            tensor.data[:, gone] = 0
    again = Task(model, task.train, task.valid, metric=task.metric, loss=task.loss)
    small = reptile_env.compress(again, plan, recovery="none").model
    with torch.no_grad():
        torch.testing.assert_close(small(task.valid.inputs), model(task.valid.inputs), atol=1e-5, rtol=0)


class Translator(nn.Module):
    """What the encoder ends with the decoder starts with."""

    def __init__(self, kind: Any, by_name: bool) -> None:
        super().__init__()
        self.a, self.encoder, self.decoder = nn.Linear(6, 8), kind(8, 12, batch_first=True), kind(6, 12, batch_first=True)
        self.head, self.by_name = nn.Linear(12, 5), by_name

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(torch.relu(self.a(x)))
        y, _ = self.decoder(x, hx=state) if self.by_name else self.decoder(x, state)
        return self.head(y[:, -1])


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("by_name", [False, True])
def test_states_handed_on_are_named(kind: Any, by_name: bool) -> None:
    structure = groups_of(lambda: Translator(kind, by_name), SEQUENCES)
    assert structure.names == ("a",)
    assert structure.skipped["encoder"].startswith("its channels are the first state of decoder")
    assert structure.skipped["decoder"].endswith("leave it out where it is zeros")


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.adaptive_avg_pool2d(torch.relu(self.b(torch.relu(self.a(x)))), 1).squeeze())


def test_a_group_of_which_one_channel_is_not_enough_is_refused_with_the_mend() -> None:
    task = task_of(Squeezed, IMAGES)
    with pytest.warns(UserWarning, match=r"b: with one channel left .*flatten\(1\) instead of squeeze\(\)"):
        env: Any = gym.make("ReptilePrune-v0", task=task, max_rate=0.95).unwrapped
    assert env.groups == ("a",)


class Fussy(nn.Module):
    """Raises an error of its own where its first layer is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        if x.shape[1] != 16 or x.isnan().any():
            raise KeyError(x.shape[1])
        return self.head(torch.relu(self.b(x)))


def test_whatever_a_cut_network_raises_is_a_reason() -> None:
    structure = groups_of(Fussy, VECTORS)
    assert structure.names == ("b",)
    assert structure.skipped["a"] == "the network does not run with its channels marked: KeyError: 16"


class Scaled(nn.Linear):
    """Computes more than a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * 2, self.bias)


class Borrowing(nn.Module):
    """The decoder is the encoder turned round; one layer of a class of its own; one that can be factored."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.scaled, self.encoder = nn.Linear(8, 20), Scaled(20, 8), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.encoder(torch.relu(self.scaled(torch.relu(self.plain(x))))))
        return functional.linear(x, self.encoder.weight.t())


def test_layers_whose_weights_are_read_elsewhere_stay_whole() -> None:
    task = task_of(Borrowing, VECTORS)
    gym.make("ReptileCompress-v0", task=task)
    evaluator = LiveEvaluator(task, Settings("none"))
    structure = evaluator.structure
    assert structure.unfactorable == {"encoder", "scaled"}
    assert [can_factor_group(structure, group) for group in range(2)] == [True, False]
    assert structure.names == ("plain", "encoder")
    plan = evaluator.dense
    for group in range(len(evaluator.sizes)):
        plan = plan.replace(group, rank=0.5)
    assert evaluator.measure(plan).params == sum(p.numel() for p in evaluator.compressed_model(plan).parameters())
