"""Quantization: weights on grids, inputs of 8 bits, what is restored, what it costs and exports."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression.groups import tensors_of
from reptile_env.compression.low_rank import can_factor_group
from reptile_env.compression.modules import Factored, Quantized
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task
from tests.compression.kinds import first
from tests.compression.quantizing import COUNT, NETWORKS, ROUNDINGS, evaluator_of, network, uniform
from tests.helpers import generator_states, random_plan


def mixed_plan(evaluator: LiveEvaluator, seed: int, bits: tuple[int, ...] = (2, 3, 4, 6, 8, 32), rank: bool = False) -> Plan:
    """Random channels, bits and, where asked for, ranks."""
    rng = np.random.default_rng(seed)
    plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
    for group in range(len(evaluator.sizes)):
        plan = plan.replace(group, bits=int(rng.choice(bits)), rank=float(rng.choice([0.5, 1.0])) if rank else 1.0)
    return plan


def quantized_of(model: nn.Module) -> dict[str, Quantized]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}


def axis_of(layer: nn.Module) -> int:
    return int(isinstance(layer, nn.modules.conv._ConvTransposeNd))


def weights_of(layer: Quantized) -> list[tuple[str, Tensor, Tensor]]:
    """Name, weight and its steps, shaped to go with it."""
    found = []
    for name in layer.scaled:
        weight, axis = getattr(layer.layer, name), axis_of(layer.layer)
        found.append((name, weight, layer.scale(name).view([-1 if d == axis else 1 for d in range(weight.dim())])))
    return found


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_goes_on_the_grid_of_its_bits_and_no_other_does(name: str, rounding: str) -> None:
    evaluator = evaluator_of(name, rounding)
    owners = evaluator.structure.owners
    for seed in range(3):
        plan = mixed_plan(evaluator, seed)
        model = evaluator.compressed_model(plan)
        plain = evaluator.compressed_model(Plan(plan.names, plan.keep))
        wanted = {
            path: plan.bits[owners[path]]
            for path, layer in plain.named_modules()
            if path in owners and isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase))
        }
        found = quantized_of(model)
        assert {path: layer.bits for path, layer in found.items()} == {path: bits for path, bits in wanted.items() if bits < 32}
        for path, layer in found.items():
            assert set(layer.scaled) == {n for n in dict(layer.layer.named_parameters()) if n.startswith("weight")}
            for weight_name, weight, step in weights_of(layer):
                levels = torch.round(weight / step)
                assert torch.equal(levels * step, weight)
                assert levels.abs().max() <= 2 ** (layer.bits - 1) - 1
                assert layer.scale(weight_name).shape == (weight.shape[axis_of(layer.layer)],)
                if layer.bits > 4:
                    assert (weight - getattr(plain.get_submodule(path), weight_name)).abs().max() < 0.5
        left = dict(model.named_parameters())
        for tensor_name, tensor in plain.named_parameters():
            if tensor_name.rpartition(".")[0] not in found:
                assert torch.equal(left[tensor_name], tensor)
        assert torch.isfinite(first(call(model, evaluator.task.valid.inputs))).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_claimed_bytes_are_those_of_codes_steps_and_all_else(name: str) -> None:
    evaluator = evaluator_of(name, "nearest")
    for seed in range(4):
        plan = mixed_plan(evaluator, seed, rank=seed % 2 == 1)
        model = evaluator.compressed_model(plan)
        stored = {n: t.nbytes for n, t in model.state_dict().items()}
        for path, layer in quantized_of(model).items():
            for weight_name, weight, _ in weights_of(layer):
                stored[f"{path}.layer.{weight_name}"] = math.ceil(weight.numel() * layer.bits / 8)
            stored[path] = 8  # step and zero point of its input
        assert evaluator.costs.all(*plan.levels)["bytes"] == sum(stored.values())


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_both_factors_of_a_layer_are_quantized(rounding: str) -> None:
    evaluator = evaluator_of("transformer", rounding)
    plan = uniform(evaluator, 4, 0.4)
    model = evaluator.compressed_model(plan)
    factored = [path for path, module in model.named_modules() if isinstance(module, Factored)]
    assert any(can_factor_group(evaluator.structure, group) for group in range(len(evaluator.sizes)))
    assert factored
    assert {f"{path}.{part}" for path in factored for part in ("first", "second")} <= quantized_of(model).keys()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ["1-d", "reused"])
def test_inputs_are_rounded_to_256_levels_from_the_smallest_to_the_largest(name: str, rounding: str) -> None:
    evaluator = evaluator_of(name, rounding)
    plan = uniform(evaluator, 8)
    float_model, model = evaluator.compressed_model(evaluator.dense), evaluator.compressed_model(plan)
    seen: dict[str, list[Tensor]] = {path: [] for path in quantized_of(model)}
    for path, found in seen.items():
        float_model.get_submodule(path).register_forward_pre_hook(lambda _, given, found=found: found.append(given[0]))
    call(float_model, evaluator.task.train.inputs)
    assert {len(found) for found in seen.values()} == ({1, 2} if name == "reused" else {1})
    generator = torch.Generator().manual_seed(0)
    for path, layer in quantized_of(model).items():
        every = torch.stack(seen[path])
        low, high = min(float(every.min()), 0.0), max(float(every.max()), 0.0)
        assert layer.input_scale == pytest.approx((high - low) / 255, rel=1e-5)
        assert layer.input_zero_point == round(-low / layer.input_scale)
        # Some beyond the range; none half way between two levels, where either is right.
        level = torch.randint(-20, 276, every[0][:2].shape, generator=generator)
        given = layer.input_scale * (level - layer.input_zero_point + 0.8 * torch.rand(level.shape, generator=generator) - 0.4)
        expected = layer.input_scale * (level.clamp(0, 255) - layer.input_zero_point).float()
        torch.testing.assert_close(layer(given), layer.layer(expected), atol=1e-5, rtol=1e-5)


class TestState:
    """A quantized plan leaves nothing behind."""

    @pytest.mark.parametrize("recovery", ["none", "reconstruct-sequential"])
    @pytest.mark.parametrize("name", ["grouped up", "generator", "residual", "packed", "transformer", "reused"])
    def test_a_float_plan_measures_the_same_before_and_after(self, name: str, recovery: str) -> None:
        evaluator = evaluator_of(name, "data-aware", recovery=recovery)
        dense = copy.deepcopy(tensors_of(evaluator.structure.model))
        before = generator_states()
        rng = np.random.default_rng(5)
        plans = [evaluator.dense, random_plan(evaluator.group_names, evaluator.sizes, rng), mixed_plan(evaluator, 1, rank=True)]
        quantized = [mixed_plan(evaluator, seed, (2, 4), rank=True) for seed in (2, 3)]
        wanted = [state_of(evaluator, plan) for plan in plans]
        wanted_quantized = []
        for plan, want in zip(plans, wanted, strict=True):
            wanted_quantized = [state_of(evaluator, q) for q in quantized]
            assert same(state_of(evaluator, plan), want)
        assert generator_states() == before
        now = tensors_of(evaluator.structure.model)
        assert all(torch.equal(tensor, now[key]) for key, tensor in dense.items())
        fresh = evaluator_of(name, "data-aware", recovery=recovery)
        for plan, want in zip([*reversed(quantized), *plans], [*reversed(wanted_quantized), *wanted], strict=True):
            assert same(state_of(fresh, plan), want)

    def test_measurements_agree_too(self) -> None:
        evaluator = evaluator_of("residual", "data-aware")
        plan = uniform(evaluator, 4)
        model = evaluator.compressed_model(plan)
        measured, dense = evaluator.measure(plan), evaluator.measure(evaluator.dense)
        task = evaluator.task
        assert task.score(task.outputs(model, task.valid), task.valid) == (measured.metric, measured.loss)
        assert measured.loss != dense.loss
        assert (measured.params, measured.macs) == (dense.params, dense.macs)
        assert measured.bytes < 0.4 * dense.bytes


def state_of(evaluator: LiveEvaluator, plan: Plan) -> dict[str, Tensor]:
    model = evaluator.compressed_model(plan)
    grids = {f"{p} grid": torch.tensor([q.input_scale, q.input_zero_point]) for p, q in quantized_of(model).items()}
    return model.state_dict() | grids | {"outputs": first(call(model, evaluator.task.valid.inputs))}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", ["grouped up", "1-d", "lstm both ways", "transformer"])
def test_holes_stay_holes(name: str, granularity: str, rounding: str) -> None:
    evaluator = evaluator_of(name, rounding, granularity=granularity)
    plan = evaluator.dense
    for group, size in enumerate(evaluator.sizes):
        plan = evaluator.cut(plan, group, size // 2)
    holes = {n: p == 0 for n, p in evaluator.compressed_model(plan).named_parameters() if n in evaluator.structure.weights}
    for group in range(len(evaluator.sizes)):
        plan = plan.replace(group, bits=4)
    model = evaluator.compressed_model(plan)
    layers = quantized_of(model)
    for weight_name, hole in holes.items():
        path, _, leaf = weight_name.rpartition(".")
        weight = getattr(layers[path].layer, leaf)
        assert hole.any()
        assert not weight[hole].any()
        assert weight[~hole].any()


def test_outputs_without_weights_and_inputs_without_spread() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).requires_grad_(False)
    model[0].weight[2], model[0].bias[2] = 0, -1
    model[2].weight.zero_()
    model[2].bias.fill_(-1)  # so the last layer reads zeros alone
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    task = Task(model, (x[:30], torch.zeros(30)), (x[30:], torch.zeros(30)), metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    for rounding in ROUNDINGS:
        evaluator = LiveEvaluator(task, Settings("none", rounding=rounding))
        quantized = evaluator.compressed_model(uniform(evaluator, 4))
        torch.testing.assert_close(quantized(x), model(x), atol=1e-5, rtol=0)
        assert not quantized[2].layer.weight.any()
        assert all(tensor.isfinite().all() for tensor in quantized.state_dict().values())


def test_networks_in_double_precision() -> None:
    model, inputs = network("1-d")
    assert isinstance(inputs, Tensor)
    data = Split(inputs.double(), torch.zeros(COUNT))
    task = Task(model.double(), data[:24], data[24:], metric=lambda o, t: 1.0, loss=lambda o, t: 0.0)
    for rounding in ROUNDINGS:
        evaluator = LiveEvaluator(task, Settings("none", rounding=rounding))
        quantized = evaluator.compressed_model(uniform(evaluator, 8))
        assert quantized(data.inputs).dtype == torch.float64
        assert (quantized(data.inputs) - model(data.inputs)).abs().max() < 0.1 * model(data.inputs).std()


@pytest.mark.parametrize("bits", [1, 9, 16, 0, -4, 4.0, True, "4"])
def test_other_bits_are_refused(bits: Any) -> None:
    with pytest.raises(ValueError, match="2 to 8 bits, or 32"):
        Plan(["a"], [[0, 1]], bits=[bits])


@pytest.mark.parametrize("name", ["grouped", "lstm", "transformer"])
def test_the_exported_program_gives_the_same_numbers(name: str) -> None:
    evaluator = evaluator_of(name, "data-aware")
    model, inputs = evaluator.compressed_model(mixed_plan(evaluator, 1, (3, 4, 8))), evaluator.task.valid.inputs
    assert isinstance(inputs, Tensor)
    program = torch.export.export(model, (inputs,))
    torch.testing.assert_close(first(program.module()(inputs)), first(model(inputs)), atol=1e-5, rtol=0)
