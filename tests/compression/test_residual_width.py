"""The width of embeddings and of a residual stream as a group."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reptile_env
from reptile_env.compression import prune
from reptile_env.compression.groups import find_groups, tensors_of
from reptile_env.compression.layers import WidthNorm
from reptile_env.compression.macs import count_macs
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator, structure_of
from reptile_env.evaluation.settings import IMPORTANCE_NAMES, Settings
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task
from tests.compression import kinds
from tests.helpers import classes, random_plan, small_network


class Tokens(nn.Module):
    """Tokens and their places, embedded, through norm-first layers and a last norm without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30, 16), nn.Embedding(6, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16, elementwise_affine=False), enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(ids) + self.places(torch.arange(ids.shape[1]))).mean(1))


def network(name: str) -> tuple[nn.Module, Split]:
    if name.startswith("bert"):
        bert = pytest.importorskip("tests.compression.test_bert", reason="needs transformers")
        model, data = bert.made(name.removeprefix("bert "), 240)
        return model, Split(data.inputs, data.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "tokens":
            model, inputs = Tokens().eval().requires_grad_(False), torch.randint(0, 30, (240, 6))
        else:
            model, inputs = kinds.made(name)[0], torch.randn(240, 7, 4)
        for norm in (module for module in model.modules() if isinstance(module, nn.LayerNorm) and module.elementwise_affine):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
        return model, Split(inputs, model(inputs))


STREAM = {
    "transformer": "embed",
    "transformer norm first": "embed",
    "tokens": "words",
    "bert eager": "bert.embeddings.word_embeddings",
    "bert sdpa": "bert.embeddings.word_embeddings",
}


@pytest.fixture(params=STREAM)
def task(request: pytest.FixtureRequest) -> Task:
    return task_of(request.param)


def task_of(name: str) -> Task:
    model, data = network(name)
    nearness = lambda outputs, targets: 1 / (1 + (outputs - targets).square().mean())  # noqa: E731
    return Task(model, data[:160], data[160:], metric=nearness, loss="mse", name=name)


def uniform(evaluator: LiveEvaluator, part: int) -> Plan:
    plan = evaluator.dense
    for group, size in enumerate(evaluator.sizes):
        plan = evaluator.cut(plan, group, size // part)
    return plan


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
def test_the_norm_of_fewer_features_is_that_of_zeroed_ones(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dense = nn.LayerNorm(12).requires_grad_(False)
    nn.init.normal_(dense.weight)
    nn.init.normal_(dense.bias)
    x, kept = torch.randn(shape), torch.tensor([0, 2, 3, 7, 11])
    stand_in = WidthNorm(dense)
    assert torch.equal(stand_in(x), dense(x))
    zeroed = torch.zeros(shape).index_copy(-1, kept, x[..., kept])
    model = nn.ModuleDict({"norm": stand_in})
    prune.install(model, {"norm.weight": dense.weight[kept], "norm.bias": dense.bias[kept]})
    torch.testing.assert_close(stand_in(x[..., kept]), dense(zeroed)[..., kept], atol=1e-6, rtol=1e-5)


def test_the_stream_is_cut_exactly_and_counted(task: Task) -> None:
    evaluator = LiveEvaluator(task, Settings("none", residual_width=True))
    without = LiveEvaluator(task, Settings("none"))
    assert evaluator.group_names == (STREAM[task.name], *without.group_names)
    assert evaluator.sizes[0] == (32 if "bert" in task.name else 16)
    assert any("residual_width=True" in reason for reason in without.structure.skipped.values())
    assert structure_of(task, residual_width=True) is evaluator.structure
    assert set(task.skipped) <= {"head"}
    rng, inputs = np.random.default_rng(0), task.valid.inputs
    for _ in range(4):
        plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
        cut, zeroed = evaluator.compressed_model(plan), copy.deepcopy(evaluator.structure.model)
        prune.install(zeroed, prune.zeroed(tensors_of(zeroed), evaluator.structure, plan))
        torch.testing.assert_close(call(cut, inputs), call(zeroed, inputs), atol=1e-5, rtol=0)
        costs = evaluator.costs.all(plan.widths)
        assert costs["params"] == sum(p.numel() for p in cut.parameters())
        assert costs["macs"] == count_macs(cut, task.valid[:1].inputs)
        assert costs["bytes"] == sum(t.nbytes for t in cut.state_dict().values())


def test_zeroing_the_stream_of_the_users_own_network_gives_the_same() -> None:
    task = task_of("tokens")
    evaluator = LiveEvaluator(task, Settings("none", residual_width=True))
    gone = [1, 4, 15]
    cut = evaluator.compressed_model(evaluator.dense.replace(0, [c for c in range(16) if c not in gone]))
    own = copy.deepcopy(task.model)

    def silence(module: nn.Module, inputs: object, output: Any) -> Any:
        zeroed = [t.index_fill(-1, torch.tensor(gone), 0.0) if t is not None else t for t in _listed(output)]
        return zeroed[0] if isinstance(output, Tensor) else tuple(zeroed)

    for name, module in own.named_modules():
        if isinstance(module, (nn.Embedding, nn.LayerNorm)) or name.endswith(("linear2", "self_attn")):
            module.register_forward_hook(silence)
    torch.testing.assert_close(call(cut, task.valid.inputs), call(own, task.valid.inputs), atol=1e-5, rtol=0)


def _listed(output: Any) -> list[Any]:
    return [output] if isinstance(output, Tensor) else list(output)


@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
def test_a_round_runs_and_refits(task: Task, recovery: str) -> None:
    env = gym.make("ReptilePrune-v0", task=task, recovery=recovery, residual_width=True).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    env.reset(seed=0)
    terminated, info = False, {}
    while not terminated:
        _, reward, terminated, _, info = env.step(env.action_for(0.25))
        assert np.isfinite(reward)
    assert len(info["plan"]) == 5
    assert env.measurement.loss < LiveEvaluator(task, Settings("none", residual_width=True)).measure(env.plan).loss


def test_bits_ranks_and_every_importance_go_with_it() -> None:
    task = task_of("tokens")
    for importance in IMPORTANCE_NAMES:
        evaluator = LiveEvaluator(task, Settings("none", importance, residual_width=True))
        assert uniform(evaluator, 4).widths == (12, 3, 24, 3, 24)
    evaluator = LiveEvaluator(task, Settings("reconstruct", residual_width=True))
    plan = uniform(evaluator, 4)
    small = evaluator.measure(Plan(plan.names, plan.keep, bits=[8] * 5))
    assert small.bytes < evaluator.measure(plan).bytes
    thin = evaluator.measure(Plan(plan.names, plan.keep, ranks=[0.5] * 5))
    model = evaluator.compressed_model(Plan(plan.names, plan.keep, ranks=[0.5] * 5))
    assert thin.params == sum(p.numel() for p in model.parameters()) < evaluator.measure(plan).params


@pytest.mark.parametrize("name", ["tokens", "bert sdpa"])
def test_it_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    task = task_of(name)
    evaluator = LiveEvaluator(task, Settings("none", residual_width=True))
    small = reptile_env.compress(task, uniform(evaluator, 4), recovery="none", residual_width=True)
    expected = call(small.model, task.valid.inputs)
    folder = small.save(tmp_path / "saved")
    for loaded in (reptile_env.load(folder), reptile_env.load(folder, into=network(name)[0])):
        torch.testing.assert_close(call(loaded.model, task.valid.inputs), expected, atol=1e-5, rtol=0)


def test_rounds_of_training_go_on_from_a_narrower_stream() -> None:
    task = task_of("tokens")
    options = {"recovery": "finetune", "finetune": {"steps": 3}, "residual_width": True}
    env = gym.make("ReptilePrune-v0", task=task, rounds=2, w=0.5, **options).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    env.reset(seed=0)
    terminated = False
    while not terminated:
        _, reward, terminated, _, _ = env.step(env.action_for(0.25))
        assert np.isfinite(reward)
    assert env.plan.widths[0] == 9
    small = reptile_env.compress(task, env.plan, **options)
    assert sum(p.numel() for p in small.model.parameters()) == env.measurement.params == small.measurement.params


def test_where_there_is_no_stream_it_is_refused_with_the_mend() -> None:
    x, _ = classes(8)
    with pytest.raises(ValueError, match=r"no embedding or residual stream.*leave it out"):
        find_groups(small_network().eval(), Split(x, torch.zeros(8)), residual_width=True)
    with pytest.raises(ValueError, match="single weights have no width"):
        Settings(granularity="2:4", residual_width=True)
    bare = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8), nn.Flatten(), nn.Linear(24, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    ids = torch.randint(0, 9, (4, 3), generator=torch.Generator().manual_seed(0))
    assert find_groups(bare, Split(ids, torch.zeros(4)), residual_width=True).sizes == (8, 6)
