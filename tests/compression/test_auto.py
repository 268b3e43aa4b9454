"""The importance that is chosen for each group leaves the least error of all."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression import auto
from reptile_env.compression.importance import Scorer
from reptile_env.compression.plan import removal_count
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import IMPORTANCE_NAMES, Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from tests.compression.kinds import KINDS
from tests.compression.networks import task_of
from tests.compression.scoring import error_of_cut, scorer_of, task_of_kind, task_on

CANDIDATES = [name for name in IMPORTANCE_NAMES if name not in ("random", "auto")]
RATES = (0.25, 0.5, 0.75)


def first_to_go(scores: Tensor, rate: float) -> list[int]:
    order = np.argsort(scores.flatten().numpy(), kind="stable")
    return order[: removal_count(len(order), rate)].tolist()


def error(scorer: Scorer, importance: str, group: int, refit: bool) -> float:
    scores = scorer.channels(importance, group)
    return sum(error_of_cut(scorer, group, first_to_go(scores, rate), refit) for rate in RATES)


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
def test_no_importance_leaves_less_error_than_the_chosen_one(task: str, refit: bool) -> None:
    scorer = scorer_of(make_task(task), refits=refit, examples=100)
    for group, name in enumerate(scorer.structure.names):
        chosen = error(scorer, "auto", group, refit)
        errors = {importance: error(scorer, importance, group, refit) for importance in CANDIDATES}
        assert all(chosen <= other * (1 + 1e-4) for other in errors.values()), (name, errors)
        assert torch.equal(scorer.channels("auto", group), scorer.channels(scorer.chosen[name], group))


@pytest.mark.parametrize("name", ["transformer", "lstm both ways", "grouped", "generator", "1-d", "residual", "depthwise"])
def test_the_error_is_that_of_the_cut_and_refitted_weights(name: str) -> None:
    scorer = scorer_of(task_of_kind(name) if name in KINDS else task_of(name))
    for group, size in enumerate(scorer.structure.sizes):
        readers = list(scorer.measured_readers(group))
        for gone in ([1], [0, size - 1], list(range(size // 2))):
            for refit in (True, False):
                error = sum(auto.error_of_cut(reader, torch.tensor(gone), refit) for reader in readers)
                assert error == pytest.approx(error_of_cut(scorer, group, gone, refit), rel=0.02, abs=1e-4)


def test_what_suits_depends_on_the_group_and_on_whether_a_refit_follows() -> None:
    task = make_task("digits-cnn")
    engines = [
        LiveEvaluator(task, Settings(recovery, "auto", calibration_examples=64))._engine for recovery in ("none", "reconstruct")
    ]
    without, with_refit = (engine.chosen for engine in engines)
    assert set(without) == set(with_refit) == set(engines[0].names)
    assert len(set(without.values())) > 1
    assert without != with_refit


@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
def test_single_weights_too(task: str) -> None:
    scorer = scorer_of(make_task(task), "unstructured", examples=50)
    for tensor, name in zip(scorer.structure.weights, scorer.structure.names, strict=True):
        layer, x = inputs_of(scorer, tensor)
        errors = {}
        for importance in ("auto", *CANDIDATES):
            if importance != "fpgm":
                scores = scorer.weights(importance, tensor)
                errors[importance] = sum(masked_error(layer, x, first_to_go(scores, rate)) for rate in RATES)
        assert errors["auto"] <= min(errors.values()) * (1 + 1e-4), (name, errors)
        assert torch.equal(scorer.weights("auto", tensor), scorer.weights(scorer.chosen[name], tensor))


def inputs_of(scorer: Scorer, tensor: str) -> tuple[nn.Module, Tensor]:
    layer = scorer.structure.model.get_submodule(tensor.rpartition(".")[0])
    given: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    scorer.task.outputs(scorer.structure.model, scorer.calibration)
    handle.remove()
    return layer, torch.cat(given)


def masked_error(layer: nn.Module, x: Tensor, gone: list[int]) -> float:
    """Mean square of what the layer's outputs lose, by running the layer with the weights that go alone."""
    lost = copy.deepcopy(layer)
    with torch.no_grad():
        keeps = torch.ones(layer.weight.numel(), dtype=torch.bool).index_fill(0, torch.tensor(gone), False)
        lost.weight.masked_fill_(keeps.view_as(layer.weight), 0)
        if lost.bias is not None:
            lost.bias.zero_()
        return float(lost(x).double().square().mean())


def test_the_first_of_equals_is_chosen() -> None:
    # l2 and lamp order single weights as l1 does.
    scorer = scorer_of(make_task("digits-mlp"), "unstructured", examples=50)
    for tensor in scorer.structure.weights:
        scorer.weights("auto", tensor)
    assert not {"l2", "lamp"} & set(scorer.chosen.values())
    # Of three equal channels the first goes first, whatever the importance.
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)).eval()
    for layer in model:
        nn.init.ones_(layer.weight)
    x = torch.arange(1.0, 21.0)[:, None].expand(20, 2)
    scorer = scorer_of(task_on(model, Split(x, torch.zeros(20))))
    scorer.channels("auto", 0)
    assert scorer.chosen == {"0": "l1"}
