from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.groups import find_groups
from reptile_env.evaluation.live import structure_of
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from tests.compression.networks import CASES, task_of

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize("name", CASES)
def test_groups_are_found_in_network_order(name: str) -> None:
    structure = structure_of(task_of(name))
    assert structure.names == tuple(CASES[name].groups)
    assert structure.sizes == CASES[name].sizes


def test_coupled_layers_are_one_group() -> None:
    groups = {g.name: g for g in structure_of(task_of("residual")).groups}
    assert set(groups["stem.0"].producers) == {"stem.0", "second.0", "third.0"}
    assert set(groups["stem.0"].consumers) == {"first.0", "third.0", "head"}
    assert groups["stem.0"].kind == "conv"
    groups = {g.name: g for g in structure_of(task_of("depthwise")).groups}
    assert groups["expand.0"].kind == "depthwise"
    assert set(groups["expand.0"].producers) == {"expand.0", "depthwise.0"}
    assert groups["expand.0"].consumers == ("project.0",)


def test_the_output_is_never_cut(builtin: str) -> None:
    structure = structure_of(make_task(builtin))
    assert set(structure.skipped.values()) == {"its channels are the network's output"}
    assert len(structure.skipped) == 1


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.lstm, self.head = nn.Linear(8, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(torch.relu(self.before(x))[:, None])[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.head = (
            nn.Linear(8, 16),
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)[:, None])[:, 0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.a, self.b, self.head = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 4)
        self.after, self.twin = nn.Linear(6, 6), nn.Linear(6, 6)
        self.twin.weight = self.after.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(torch.relu(self.before(x))))
        return self.head(torch.relu(self.twin(torch.relu(self.after(torch.relu(self.b(x)))))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped, self.last = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 8, 1, groups=2), nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.grouped(torch.relu(self.first(x[:, None]))))).mean(2)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.ones(6) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x) * self.scale))))


@pytest.mark.parametrize(
    ("network", "cut", "left"),
    [
        (Attention, ["layer.self_attn", "layer.linear1"], {"layer.norm1": "LayerNorm", "layer.norm2": "LayerNorm"}),
        (Tied, ["before", "a"], {"after": "shares a tensor", "b": "shares a tensor"}),
        (Bare, ["second"], {"first": ""}),
    ],
)
def test_what_cant_be_cut_is_left_whole_and_named(network: type[nn.Module], cut: list[str], left: dict[str, str]) -> None:
    structure = find_groups(network().eval(), Split(X, TARGETS))
    assert list(structure.names) == cut
    for name, reason in left.items():
        assert reason in structure.skipped[name]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: nn.Sequential(nn.Linear(8, 4)), "network's output"),
        (lambda: nn.Linear(8, 4), "in this network: the network itself: "),
        (lambda: nn.Sequential(nn.Flatten()), "no convolution, linear or recurrent layer"),
        (lambda: nn.Sequential(nn.Linear(8, 1), nn.ReLU(), nn.Linear(1, 4)), "single channel"),
        (lambda: nn.Sequential(nn.Linear(8, 6), nn.Softmax(1), nn.Linear(6, 4)), "0: its channels arrive mixed at 2"),
    ],
)
def test_a_network_with_nothing_to_cut_is_refused_with_the_reasons(network: type[nn.Module], reason: str) -> None:
    with pytest.raises(ValueError, match=f"nothing can be cut.*{reason}"):
        find_groups(network().eval(), Split(X, TARGETS))


def test_grouped_convolutions_lose_the_same_channels_of_every_group() -> None:
    structure = find_groups(Grouped().eval(), Split(X, TARGETS))
    assert dict(zip(structure.names, structure.sizes, strict=True)) == {"first": 3, "grouped": 4}


def test_finding_groups_alters_nothing() -> None:
    model = Attention().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    find_groups(model, Split(X, TARGETS))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())
