"""Every kind of network: what is cut, that it is cut exactly, that it is counted and that it is refitted."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.rnn import pack_padded_sequence

import reptile_env
from reptile_env.compression import consumers, moments, prune
from reptile_env.compression.groups import find_groups, tensors_of
from reptile_env.compression.layers import Attention, RecurrentStack, prepare
from reptile_env.compression.macs import count_macs
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, first, made
from tests.helpers import random_plan


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[nn.Module, Split, dict[str, int]]:
    return made(request.param)


def test_groups_are_found(kind: tuple[nn.Module, Split, dict[str, int]]) -> None:
    model, data, sizes = kind
    structure = find_groups(model, data[:4])
    assert dict(zip(structure.names, structure.sizes, strict=True)) == sizes
    torch.testing.assert_close(first(structure.model(data.inputs)), first(model(data.inputs)), atol=1e-5, rtol=0)


def test_shrunk_equals_zeroed_and_is_counted(kind: tuple[nn.Module, Split, dict[str, int]]) -> None:
    model, data, _ = kind
    task = Task(model, data[:6], data[6:], metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    evaluator = LiveEvaluator(task, Settings("none"))
    structure = evaluator.structure
    rng = np.random.default_rng(0)
    for _ in range(4):
        plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
        shrunk, zeroed = evaluator.compressed_model(plan), prepare(model)[0]
        prune.install(zeroed, prune.zeroed(tensors_of(structure.model), structure, plan))
        got, expected = shrunk(data.inputs), zeroed(data.inputs)
        torch.testing.assert_close(first(got), first(expected), atol=1e-5, rtol=0)
        costs = evaluator.costs.all(plan.widths)
        assert costs["params"] == sum(p.numel() for p in shrunk.parameters())
        assert costs["macs"] == count_macs(shrunk, task.valid[:1].inputs)
        assert costs["bytes"] == sum(t.nbytes for t in shrunk.state_dict().values())


def test_a_round_of_the_environment_runs(kind: tuple[nn.Module, Split, dict[str, int]]) -> None:
    model, data, sizes = kind
    task = Task(
        model, data[:6], data[6:], metric=lambda o, t: 1 / (1 + (first(o) - 1).abs().mean()), loss=lambda o, t: first(o).mean()
    )
    for recovery in ("reconstruct", "reconstruct-sequential"):
        env = gym.make("ReptilePrune-v0", task=task, recovery=recovery)
        env.reset(seed=0)
        for step in range(len(sizes)):
            _, reward, terminated, _, info = env.step(env.unwrapped.action_for(0.4))  # type: ignore[attr-defined]
            assert np.isfinite(reward)
            assert terminated == (step == len(sizes) - 1)
        assert info["macs"] < env.unwrapped.reference.dense.macs  # type: ignore[attr-defined]
        assert {name: len(entry["keep"]) < sizes[name] for name, entry in info["plan"].items()} == dict.fromkeys(sizes, True)


def test_consumers_are_the_linear_maps_they_are_taken_for(kind: tuple[nn.Module, Split, dict[str, int]]) -> None:
    model, data, _ = kind
    structure = find_groups(model, data[:4])
    found = consumers.find_consumers(structure, data.inputs)
    state = tensors_of(structure.model)
    seen = set()

    def observe(consumer: consumers.Consumer, layer: Any, inputs: Any, output: Any) -> None:
        seen.add(consumer.weight)
        rows = consumers.rows(consumer, layer, inputs, output)
        matrix = consumers.matrix(consumer, layer, state[consumer.weight])
        assert torch.equal(consumers.weight_of(consumer, layer, matrix, state[consumer.weight]), state[consumer.weight])
        assert rows.shape[1] == consumers.row_count(consumer, layer, inputs, output)
        picked = torch.tensor([0, rows.shape[1] - 1])
        torch.testing.assert_close(consumers.rows(consumer, layer, inputs, output, picked), rows[:, picked], atol=0, rtol=0)
        if isinstance(output, Tensor):
            made_of = (rows @ matrix).transpose(0, 1).flatten(1) + (0 if layer.bias is None else layer.bias)
            dim = -1 if isinstance(layer, nn.Linear) else 1
            torch.testing.assert_close(made_of, output.movedim(dim, -1).reshape(made_of.shape), atol=1e-5, rtol=1e-5)

    moments.run_observed(structure.model, found, data, len(data), observe)
    assert seen == {consumer.weight for consumer in found}
    assert seen


@pytest.mark.parametrize("both", [False, True])
def test_states_before_each_step_of_packed_and_padded_sequences(both: bool) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, batch_first=True, bidirectional=both)
    x, lengths = torch.randn(3, 6, 3), torch.tensor([6, 2, 4])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    for direction, suffix in ((0, ""), (1, "_reverse"))[: 1 + both]:
        consumer = consumers.Consumer("", f"weight_hh_l0{suffix}", 1, 0, None, hidden=direction)
        rows = consumers.rows(consumer, layer, packed, layer(packed))[0]
        by_hand = []
        for example, length in enumerate(lengths.tolist()):
            steps = range(length) if direction == 0 else reversed(range(length))
            state, cell, before = torch.zeros(1, 5), torch.zeros(1, 5), {}
            single = nn.LSTMCell(3, 5)
            single.load_state_dict(
                {f"{n}": getattr(layer, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            )
            for step in steps:
                before[step] = state
                state, cell = single(x[example, step][None], (state, cell))
            by_hand += [before[step] for step in range(length)]
        torch.testing.assert_close(rows, torch.cat(by_hand), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
@pytest.mark.parametrize("name", ["grouped", "1-d", "generator", "lstm", "lstm both ways", "packed", "transformer", "option A"])
def test_reconstruction_brings_outputs_nearer_to_dense(name: str, recovery: str) -> None:
    model, _, _ = made(name)
    shape = KINDS[name][1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        x = torch.randn(300, *shape)
    targets = first(model(x))
    task = Task(model, (x[:200], targets[:200]), (x[200:], targets[200:]), metric="mse", loss="mse")
    plain, refitted = (LiveEvaluator(task, Settings(r)) for r in ("none", recovery))
    plan = plain.dense
    for group, size in enumerate(plain.sizes):
        plan = plain.cut(plan, group, size // 4)
    assert refitted.measure(plan).loss < 0.9 * plain.measure(plan).loss


def test_attention_stands_in_for_torchs_own() -> None:
    torch.manual_seed(0)
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    for batch_first in (True, False):
        for own in ({}, {"kdim": 6, "vdim": 7}, {"bias": False}):
            source = nn.MultiheadAttention(8, 2, batch_first=batch_first, **own).eval()  # type: ignore[arg-type]
            q, k, v = torch.randn(2, 5, 8), torch.randn(2, 5, source.kdim), torch.randn(2, 5, source.vdim)
            if not batch_first:
                q, k, v = (t.transpose(0, 1) for t in (q, k, v))
            for given in ({}, {"attn_mask": mask}, {"key_padding_mask": padding}, {"attn_mask": mask, "key_padding_mask": padding}):
                for weights in (True, False):
                    got, expected = (m(q, k, v, need_weights=weights, **given) for m in (Attention(source), source))
                    torch.testing.assert_close(got[0], expected[0], atol=1e-5, rtol=0)
                    if weights:
                        torch.testing.assert_close(got[1], expected[1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="add_zero_attn"):
        Attention(nn.MultiheadAttention(8, 2, add_zero_attn=True))


@pytest.mark.parametrize("kind_", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_stack_stands_in_for_torchs_own(kind_: Any) -> None:
    torch.manual_seed(0)
    source = kind_(3, 5, 3, batch_first=True, bidirectional=True).eval()
    stack, x = RecurrentStack(source), torch.randn(4, 6, 3)
    start = torch.randn(6, 4, 5)
    for state in (None, (start, start.flip(0)) if kind_ is nn.LSTM else start):
        got, expected = stack(x, state), source(x, state)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_projections_are_refused_by_name() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.after, self.head = nn.LSTM(4, 8, proj_size=3, batch_first=True), nn.Linear(3, 6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(relu(self.after(self.lstm(x)[0][:, -1])))

    structure = find_groups(Projected().eval(), Split(torch.randn(4, 7, 4), torch.zeros(4)))
    assert "proj_size" in structure.skipped["lstm"]


def test_saved_networks_of_several_kinds_load_without_their_class(tmp_path: Any) -> None:
    for name in ("option A", "grouped", "generator", "lstm both ways", "transformer"):
        model, data, _ = made(name)
        task = Task(
            model, data[:6], data[6:], metric=lambda o, t: 1 / (1 + first(o).abs().mean()), loss=lambda o, t: first(o).mean()
        )
        evaluator = LiveEvaluator(task, Settings())
        plan = random_plan(evaluator.group_names, evaluator.sizes, np.random.default_rng(1))
        small = reptile_env.compress(task, plan)
        folder = small.save(tmp_path / name.replace(" ", "-"))
        for loaded in (reptile_env.load(folder), reptile_env.load(folder, into=made(name)[0])):
            torch.testing.assert_close(first(loaded.model(data.inputs)), first(small.model(data.inputs)), atol=1e-4, rtol=0)
