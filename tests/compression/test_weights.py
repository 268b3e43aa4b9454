"""Single weights and two of every four: which go, what can't, and what is counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import reptile_env
from reptile_env.compression.cost import WeightCosts, packed_bytes
from reptile_env.compression.groups import find_groups
from reptile_env.compression.macs import count_macs
from reptile_env.compression.plan import Plan
from reptile_env.compression.weights import find_blocks, find_weights
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.compression.holes import BOTH, mixed, network
from tests.compression.kinds import KINDS, first, made
from tests.helpers import make

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
CONVS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def evaluator_of(model: nn.Module, data: Split, granularity: str, recovery: str = "none") -> LiveEvaluator:
    task = Task(
        model, data[:6], data[6:], metric=lambda o, t: 1 / (1 + (first(o) - 1).abs().mean()), loss=lambda o, t: first(o).mean()
    )
    return LiveEvaluator(task, Settings(recovery, granularity=granularity))


def random_counts(evaluator: LiveEvaluator, generator: np.random.Generator) -> Plan:
    return Plan(evaluator.group_names, [int(generator.integers(1, size + 1)) for size in evaluator.sizes])


def positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """How often one example uses each weight, from the shapes that layers see."""
    found: dict[str, int] = {}

    def hook(name: str) -> Any:
        def see(layer: nn.Module, given: Any, output: Any) -> None:
            if isinstance(layer, RECURRENT):
                data = given[0] if isinstance(given[0], Tensor) else given[0].data
                found.update({f"{name}.{n}": math.prod(data.shape[:-1]) for n in layer._flat_weights_names if "weight" in n})
            elif isinstance(layer, CONVS):
                found[f"{name}.weight"] = math.prod((given[0] if layer.transposed else output).shape[2:])
            else:
                found[f"{name}.weight"] = math.prod(output.shape[:-1])

        return see

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, *CONVS, *RECURRENT))]
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    model(example)
    for handle in handles:
        handle.remove()
    return found


@BOTH
@pytest.mark.parametrize("name", [*KINDS, "mixed"])
def test_costs_are_those_of_the_weights_that_are_not_zero(name: str, granularity: str) -> None:
    model, data = network(name)
    evaluator = evaluator_of(model, data, granularity)
    uses = positions(evaluator.structure.model, data.inputs[6:7])
    dense = dict(evaluator.structure.model.named_parameters())
    total = count_macs(evaluator.structure.model, data.inputs[6:7])
    assert evaluator.costs.all(evaluator.sizes)["macs"] == total
    for seed in range(3):
        plan = random_counts(evaluator, np.random.default_rng(seed)).replace(seed % len(evaluator.sizes), 1)
        weights = dict(evaluator.compressed_model(plan).named_parameters())
        costs = evaluator.costs.all(plan.widths)
        gone = {n: int((dense[n] != 0).sum() - (w != 0).sum()) for n, w in weights.items()}
        assert sum(gone.values()) > 0
        assert costs["params"] == sum(w.numel() for w in dense.values()) - sum(gone.values())
        assert costs["macs"] == total - sum(count * uses.get(n, 0) for n, count in gone.items())


def test_the_largest_weights_stay_and_ties_go_in_order() -> None:
    layer = nn.Linear(4, 2).requires_grad_(False)
    layer.weight[:] = torch.tensor([[1.0, -4.0, 3.0, 2.0], [-1.0, 0.5, 1.0, 6.0]])
    evaluator = evaluator_of(layer, Split(torch.randn(12, 4), torch.zeros(12)), "unstructured")
    assert (evaluator.group_names, evaluator.sizes, evaluator.dense.keep) == (("weight",), (8,), (8,))
    kept = {count: evaluator.compressed_model(Plan(["weight"], [count])).weight for count in (8, 6, 5, 3, 1)}
    assert torch.equal(kept[8], layer.weight)
    assert torch.equal(kept[6], torch.tensor([[0.0, -4.0, 3.0, 2.0], [-1.0, 0.0, 1.0, 6.0]]))
    assert torch.equal(kept[5], torch.tensor([[0.0, -4.0, 3.0, 2.0], [0.0, 0.0, 1.0, 6.0]]))
    assert torch.equal(kept[3], torch.tensor([[0.0, -4.0, 3.0, 0.0], [0.0, 0.0, 0.0, 6.0]]))
    assert torch.equal(kept[1], torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 6.0]]))
    alike = nn.Linear(40, 30, bias=False).requires_grad_(False)
    order = torch.arange(1200)
    alike.weight[:] = (1.0 + order % 2).view(30, 40)
    evaluator = evaluator_of(alike, Split(torch.randn(12, 40), torch.zeros(12)), "unstructured")
    left = evaluator.compressed_model(Plan(["weight"], [700])).weight
    assert torch.equal(left == 0, ((order < 1000) & (order % 2 == 0)).view(30, 40))


def test_every_weight_is_a_group_in_the_order_in_which_it_runs() -> None:
    model, data = mixed()
    structure = find_weights(model, data[:4])
    assert structure.names == ("stem", "depthwise", "grouped", "up", "grouped_up", "head")
    assert [group.kind for group in structure.groups] == ["conv", "depthwise", "conv", "conv", "conv", "linear"]
    assert structure.sizes == (216, 72, 64, 512, 96, 30)
    assert structure.owners == {name: index for index, name in enumerate(structure.names)}
    model, data, _ = made("lstm both ways")
    names = find_weights(model, data[:4]).names
    assert names[:3] == tuple(f"recurrent.layers.0.weight_{part}" for part in ("ih_l0", "hh_l0", "ih_l0_reverse"))
    assert names[-1] == "head"
    model, data, _ = made("transformer")
    structure = find_weights(model, data[:4])
    kinds = {group.name: group.kind for group in structure.groups}
    assert {n.rpartition(".")[2] for n, kind in kinds.items() if kind == "attention"} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert not structure.skipped


@pytest.mark.parametrize("layer", ["grouped", "up", "head"])
def test_two_of_every_four_inputs_stay(layer: str) -> None:
    model, data = mixed()
    model.head = nn.Linear(8, 5)
    model.grouped_up = nn.ConvTranspose2d(8, 8, 2, groups=2)
    evaluator = evaluator_of(model.requires_grad_(False), data, "2:4")
    weight = model.get_submodule(layer).weight
    kept = evaluator.compressed_model(Plan(evaluator.group_names, [1] * len(evaluator.sizes))).get_submodule(layer).weight
    inputs = 0 if layer == "up" else 1
    by_input, was = (w.movedim(inputs, 0).flatten(1).T.tolist() for w in (kept, weight))
    assert len(was[0]) % 4 == 0
    for now, before in zip(by_input, was, strict=True):
        for start in range(0, len(before), 4):
            block = before[start : start + 4]
            largest = sorted(block, key=abs)[2:]
            assert now[start : start + 4] == [value if value in largest else 0 for value in block]


def test_what_does_not_come_in_fours_is_named() -> None:
    model, data = mixed()
    structure = find_blocks(model, data[:4])
    assert structure.names == ("grouped", "up", "grouped_up")
    assert set(structure.sizes) == {2}
    assert structure.skipped == {
        "stem": "each output reads 3 inputs, no multiple of 4",
        "depthwise": "each output reads 1 inputs, no multiple of 4",
        "head": "each output reads 6 inputs, no multiple of 4",
    }
    # Twice two inputs: no block reaches from one group of channels into the next.
    up = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 2, groups=2))
    structure = find_blocks(up, Split(torch.randn(4, 4, 3, 3), torch.zeros(4)))
    assert structure.skipped == {"1": "each output reads 2 inputs, no multiple of 4"}
    gru = nn.Sequential(nn.GRU(6, 8))
    structure = find_blocks(gru, Split(torch.randn(4, 3, 6), torch.zeros(4)))
    assert structure.names == ("0.weight_hh_l0",)
    assert structure.skipped == {"0.weight_ih_l0": "each output reads 6 inputs, no multiple of 4"}


@pytest.mark.parametrize(("rate", "width"), [(0.0, 2), (0.2, 2), (0.249, 2), (0.25, 1), (0.5, 1), (0.9, 1)])
def test_a_quarter_makes_a_layer_two_of_four(rate: float, width: int) -> None:
    env = make("digits-mlp", granularity="2:4", recovery="none", w=0.2)
    env.reset(seed=0)
    _, _, _, _, info = env.step(env.action_for(rate))
    assert env.plan.widths[0] == width
    assert info["rate"] == 1 - width / 2
    assert env.measurement.sparsity[0] == 1 - width / 2


class Odd(nn.Module):
    """Layers whose weights are not theirs alone, not parameters, or not read by them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.normed = nn.Embedding(6, 8), nn.Linear(8, 8), weight_norm(nn.Linear(8, 8))
        self.attention, self.unused, self.last = nn.MultiheadAttention(8, 2, add_bias_kv=True), nn.Linear(8, 8), nn.Linear(8, 6)
        self.projected, self.last.weight = nn.LSTM(8, 6, proj_size=4), self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.normed(torch.relu(self.first(self.words(x)))))
        x = x + self.attention(x, x, x)[0]
        return self.last(x) + self.projected(x)[0].sum(-1, keepdim=True)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_can_not_be_pruned_is_named_with_the_reason() -> None:
    structure = find_weights(Odd().eval(), Split(torch.randint(0, 6, (4, 3)), torch.zeros(4)))
    assert structure.names == ("first",)
    assert {name: reason.partition(" (")[0] for name, reason in structure.skipped.items()} == {
        "words": "Embedding is no linear, convolutional or recurrent layer",
        "normed": "normed.weight is not a plain parameter",
        "attention": "attention with add_bias_kv or add_zero_attn can't be cut",
        "unused": "it does not run on the examples",
        "last": "last.weight is shared with another layer",
        "projected": "LSTM with projections",
    }


def test_a_network_without_channels_to_cut_can_lose_weights() -> None:
    x, y = torch.randn(60, 8), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(8, 3)).eval()
    task = Task(model, (x[:30], y[:30]), (x[30:], y[30:]), w=0.5)
    with pytest.raises(ValueError, match="nothing can be cut"):
        find_groups(model, task.valid[:4])
    small = reptile_env.compress(task, Plan(["0"], [10]), granularity="unstructured")
    assert int((small.model[0].weight != 0).sum()) == 10
    assert small.measurement.params == 13
    assert small.measurement.sparsity == (1 - 10 / 24,)
    with pytest.raises(ValueError, match="nothing can be cut in this network: no convolution, linear or recurrent layer"):
        find_weights(nn.ReLU(), task.valid[:4])


@BOTH
def test_what_does_not_go_with_holes_is_refused_with_the_mend(granularity: str) -> None:
    task = make_task("digits-mlp")
    evaluator = LiveEvaluator(task, Settings("none", granularity=granularity))
    with pytest.raises(ValueError, match=r"ranks below 1 do not go with .* leave rank at 1, or use granularity='structured'"):
        evaluator.measure(evaluator.dense.replace(0, rank=0.5))
    with pytest.raises(ValueError, match="a count of weights"):
        evaluator.measure(Plan.dense(evaluator.group_names, evaluator.sizes))
    with pytest.raises(ValueError, match=rf"keeps {evaluator.sizes[0] + 1} weights of group .* which has {evaluator.sizes[0]}"):
        evaluator.measure(evaluator.dense.replace(0, evaluator.sizes[0] + 1))
    with pytest.raises(ValueError, match="use granularity='structured'"):
        evaluator.costs.cost("latency", evaluator.sizes)


@BOTH
@given(data=st.data())
def test_no_removal_makes_the_network_larger(granularity: str, data: st.DataObject) -> None:
    costs = LiveEvaluator(make_task("digits-mlp"), Settings("none", granularity=granularity)).costs
    assert isinstance(costs, WeightCosts)
    sizes = costs.sizes.tolist()
    widths = [data.draw(st.integers(1, size)) for size in sizes]
    fewer = [data.draw(st.integers(1, width)) for width in widths]
    bits = [data.draw(st.sampled_from([2, 4, 8, 32])) for _ in sizes]
    for name in ("params", "macs", "bytes"):
        assert costs.cost(name, fewer, bits) <= costs.cost(name, widths, bits) <= costs.cost(name, sizes, bits)
        both = costs.cost(name, [fewer, widths], [bits, bits])
        assert both.tolist() == [costs.cost(name, fewer, bits), costs.cost(name, widths, bits)]


def test_bytes_are_bitmap_and_values_or_the_whole_whichever_is_less() -> None:
    layer = nn.Linear(10, 9)
    evaluator = evaluator_of(layer, Split(torch.randn(12, 10), torch.zeros(12)), "unstructured")
    bias = 9 * 4
    assert evaluator.measure(Plan(["weight"], [90])).bytes == bias + 90 * 4
    assert evaluator.measure(Plan(["weight"], [88])).bytes == bias + 90 * 4  # 88 * 4 + 12 of the bitmap would be more
    assert evaluator.measure(Plan(["weight"], [30])).bytes == bias + 30 * 4 + 12
    quantized = evaluator.costs.all([30], [4])["bytes"]
    assert quantized == bias + packed_bytes(30, 4) + 12 + 9 * 4 + 8
    assert evaluator.costs.all([88], [4])["bytes"] == bias + packed_bytes(90, 4) + 9 * 4 + 8


def test_bits_of_a_recurrent_layer_are_those_of_its_first_weight() -> None:
    model, data = nn.Sequential(nn.LSTM(6, 8)), Split(torch.randn(12, 3, 6), torch.zeros(12))
    for granularity, names in (("unstructured", ["ih", "hh"]), ("2:4", ["hh"])):
        costs = (evaluator := evaluator_of(model, data, granularity)).costs
        assert list(evaluator.group_names) == [f"0.weight_{name}_l0" for name in names]
        assert evaluator.structure.owners == {"0": 0}
        bits = [4] + [32] * (len(names) - 1)
        # Both weights have codes and 32 scales each; biases stay float; the input's grid is kept once.
        assert costs.all(evaluator.sizes, bits)["bytes"] == (32 * 6 + 32 * 8) // 2 + 2 * 32 * 4 + 8 + 2 * 32 * 4
