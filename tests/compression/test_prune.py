"""The rewarded network is the shrunk one, and it computes what the network with the removed channels zeroed computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator, structure_of
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Inputs, call
from reptile_env.tasks.task import Task
from tests.compression.networks import ALL, CASES, Case, task_of
from tests.helpers import random_plan

# The same description for a built-in network: for each group the layers whose outputs carry its channels.
DIGITS_CNN: dict[str, dict[str, slice]] = {
    "stem.0": {"stem": ALL},
    "wide.0": {"wide": ALL},
    "narrow.0": {"narrow": ALL, "block.norm": ALL},
    "block.first.0": {"block.first": ALL},
    "expand.0": {"expand": ALL, "depthwise": ALL},
    "project.0": {"project": ALL},
    "hidden": {"hidden": ALL},
}


def evaluator_of(task: Task) -> LiveEvaluator:
    return LiveEvaluator(task, Settings(recovery="none"))


def plans_of(evaluator: LiveEvaluator, count: int = 6) -> list[Plan]:
    generator = np.random.default_rng(5)
    names, sizes = evaluator.group_names, evaluator.sizes
    first, last = Plan(names, [[0] for _ in sizes]), Plan(names, [[size - 1] for size in sizes])
    return [evaluator.dense, first, last, *(random_plan(names, sizes, generator) for _ in range(count))]


def run(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = call(model, inputs)
        return outputs


def with_channels_zeroed(model: nn.Module, inputs: Inputs, plan: Plan, groups: Mapping[str, Mapping[str, slice]]) -> Tensor:
    """What the whole network computes when each removed channel is zeroed where its layers put it out."""
    gone: dict[str, list[tuple[slice, list[int]]]] = {}
    for name, keep in zip(plan.names, plan.keep, strict=True):
        for layer, where in groups[name].items():
            gone.setdefault(layer, []).append((where, list(keep)))

    def hook_of(places: list[tuple[slice, list[int]]], last: bool) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            channels_last = output if last else output.transpose(1, -1)
            mask = torch.ones(channels_last.shape[-1])
            for where, keep in places:
                part = torch.zeros_like(mask[where])
                part[keep] = 1
                mask[where] = part
            masked = channels_last * mask
            return masked if last else masked.transpose(1, -1)

        return hook

    model = copy.deepcopy(model)
    for layer, places in gone.items():
        module = model.get_submodule(layer)
        module.register_forward_hook(hook_of(places, isinstance(module, nn.Linear)))
    return run(model, inputs)


@pytest.mark.parametrize("name", CASES)
def test_the_shrunk_network_computes_what_the_zeroed_one_does(name: str) -> None:
    task, case = task_of(name), CASES[name]
    evaluator = evaluator_of(task)
    inputs = task.valid.inputs
    dense = run(task.model, inputs)
    for plan in plans_of(evaluator):
        shrunk = run(evaluator.compressed_model(plan), inputs)
        torch.testing.assert_close(shrunk, with_channels_zeroed(task.model, inputs, plan, case.groups), atol=1e-5, rtol=1e-5)
        assert (plan == evaluator.dense) == torch.equal(shrunk, dense)


def test_so_does_the_built_in_network() -> None:
    task = make_task("digits-cnn")
    evaluator = evaluator_of(task)
    inputs = task.valid.inputs
    for plan in plans_of(evaluator, 10):
        shrunk = run(evaluator.compressed_model(plan), inputs)
        torch.testing.assert_close(shrunk, with_channels_zeroed(task.model, inputs, plan, DIGITS_CNN), atol=1e-5, rtol=1e-5)


def test_zeroed_tensors_say_the_same(builtin: str) -> None:
    task = make_task(builtin)
    evaluator, structure = evaluator_of(task), structure_of(task)
    for plan in plans_of(evaluator, 10):
        masked = copy.deepcopy(task.model)
        prune.install(masked, prune.zeroed(dict(task.model.state_dict()), structure, plan))
        assert [p.shape for p in masked.parameters()] == [p.shape for p in task.model.parameters()]
        shrunk = run(evaluator.compressed_model(plan), task.valid.inputs)
        torch.testing.assert_close(shrunk, run(masked, task.valid.inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*CASES, "digits-cnn", "digits-mlp"])
def test_the_shrunk_network_is_a_plain_smaller_one(name: str) -> None:
    """Layers of exactly these sizes, built anew from their attributes, take the tensors and compute the same."""
    task = task_of(name) if name in CASES else make_task(name)
    evaluator = evaluator_of(task)
    for plan in plans_of(evaluator):
        model = evaluator.compressed_model(plan)
        expected = run(model, task.valid.inputs)
        rebuilt = copy.deepcopy(model)
        for path, layer in list(rebuilt.named_modules()):
            new = _anew(layer)
            if new is not None:
                new.load_state_dict(layer.state_dict())
                parent, _, leaf = path.rpartition(".")
                # Where weights take gradients, torch multiplies a batch in another way, and on some processors to other last bits.
                setattr(rebuilt.get_submodule(parent), leaf, new.eval().requires_grad_(False))
        torch.testing.assert_close(run(rebuilt, task.valid.inputs), expected, atol=0, rtol=0)


def _anew(layer: nn.Module) -> nn.Module | None:
    bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias)
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        shape = {k: getattr(layer, k) for k in ("kernel_size", "stride", "padding", "dilation", "groups")}
        return type(layer)(layer.in_channels, layer.out_channels, bias=bias, **shape)
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(layer.num_features)
    return nn.PReLU(layer.num_parameters) if isinstance(layer, nn.PReLU) else None


@pytest.mark.parametrize("name", [*CASES, "digits-cnn", "digits-mlp"])
def test_what_is_measured_is_the_shrunk_network(name: str) -> None:
    task = task_of(name) if name in CASES else make_task(name)
    evaluator = evaluator_of(task)
    for plan in plans_of(evaluator):
        measured = evaluator.measure(plan)
        expected = task.score(run(evaluator.compressed_model(plan), task.valid.inputs), task.valid)
        assert (measured.metric, measured.loss) == pytest.approx(expected, abs=1e-6)
        assert measured.sparsity == tuple(1 - len(k) / size for k, size in zip(plan.keep, evaluator.sizes, strict=True))


def test_cutting_shares_and_copies_nothing_that_is_written(builtin: str) -> None:
    task = make_task(builtin)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    evaluator = evaluator_of(task)
    model = evaluator.compressed_model(plans_of(evaluator)[-1])
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert evaluator.measure(evaluator.dense).metric > 0.9


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(KeyError, match="no parameter or buffer"):
        prune.install(nn.Linear(2, 2), {"wight": torch.zeros(1)})


def test_every_case_is_described() -> None:
    for case in CASES.values():
        assert isinstance(case, Case)
        assert len(case.groups) == len(case.sizes)
