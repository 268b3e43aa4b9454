"""Latency: measured once, read from disk ever after, interpolated in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import reptile_env
from reptile_env.compression import latency, latency_file
from reptile_env.compression.cost import CostModel
from reptile_env.compression.groups import find_groups
from reptile_env.compression.latency import LatencyTable, latency_table
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task
from tests.compression.kinds import KINDS, made
from tests.helpers import generator_states, run_python, small_task


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "BUDGET", 0.5)
    return tmp_path / "cache"


def wide_network() -> tuple[nn.Module, Split]:
    """Layers so large that their matrix products are what takes time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 8)).eval()
        return model.requires_grad_(False), Split(torch.randn(4, 32, 64), torch.zeros(4))


def test_narrower_is_faster_and_near_what_is_measured_from_end_to_end() -> None:
    model, data = wide_network()
    structure = find_groups(model, data)
    table = latency_table(structure, data.inputs)
    shares = np.array([1, 0.8, 0.6, 0.5, 0.3, 0.1])
    times = table.seconds((shares[:, None] * np.array(structure.sizes)).astype(np.int64))
    assert (np.diff(times) < 0).all()
    assert times[0] == pytest.approx(table.dense)
    # A quarter of the multiply-accumulates; how long they take is measured on a machine that does other things too.
    assert 0.1 < times[3] / times[0] < 0.75
    half = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 8)).eval()
    assert 0.2 < times[3] / reptile_env.measure_latency(half, data[:1].inputs, 0.3) < 5


def test_parts_that_seem_slower_than_the_whole_are_scaled_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = wide_network()
    structure = find_groups(model, data)
    measured = latency._measured
    monkeypatch.setattr(latency, "_measured", lambda *given: measured(*given) | {"dense": 1e-9})
    table = latency_table(structure, data.inputs)
    times = table.seconds(np.array([structure.sizes, [1, 1]]))
    assert times[0] == pytest.approx(1e-9)
    assert 0 < times[1] < times[0]


def test_the_table_is_exact_where_measured_and_linear_between() -> None:
    line = latency.Line(2, np.array([3, 0]), np.array([5, 11, 20]))
    out = latency.Line(0, np.array([0, 1]), np.array([2, 4]))
    table = LatencyTable((latency.LayerTimes(line, out, np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 8.0]])),), 0.5, 8.5)
    widths = np.array([[1, 2], [3, 4], [6, 4], [2, 2], [2, 3], [9, 9], [0, 0]])
    # The fourth lies halfway between 1 and 3, the fifth halfway between that and halfway between 2 and 5; the last are beyond.
    assert table.seconds(widths).tolist() == [1.5, 5.5, 8.5, 2.5, 3.25, 8.5, 1.5]
    assert table.seconds(widths.reshape(7, 1, 2)).shape == (7, 1)
    assert table.seconds(np.array([3, 4])) == 5.5


def test_every_process_reads_the_same_floats(cache: Path) -> None:
    evaluator = live_evaluator("digits-mlp", Settings("none", calibration_examples=11, latency=True))
    measured = evaluator.measure(evaluator.cut(evaluator.dense, 0, 7)).latency
    assert measured is not None
    elsewhere = run_python(
        """
        from reptile_env.evaluation.live import live_evaluator
        from reptile_env.evaluation.settings import Settings
        evaluator = live_evaluator("digits-mlp", Settings("none", latency=True))
        print(float(evaluator.costs.cost("latency", evaluator.cut(evaluator.dense, 0, 7).widths)).hex())
        """
    )
    assert (elsewhere.stdout, elsewhere.stderr) == (f"{measured.hex()}\n", "")
    assert len(list(cache.iterdir())) == 1


def test_another_network_or_number_of_threads_has_a_table_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, _ = made("1-d")
    structure = find_groups(model, data[:4])
    before = generator_states()
    tables = [latency_table(structure, data.inputs) for _ in range(2)]
    assert generator_states() == before
    assert len(list(cache.iterdir())) == 1
    assert tables[0].seconds(np.array(structure.sizes)) == tables[1].seconds(np.array(structure.sizes))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    latency_table(structure, data.inputs)
    latency_table(structure, torch.cat([data.inputs, data.inputs], 1)[:, :1, :])  # type: ignore[list-item]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda table: "{", "not JSON"),
        (lambda table: json.dumps([]), "must hold"),
        (lambda table: json.dumps(table | {"dense": -1.0}), "not those of the network"),
        (lambda table: json.dumps(table | {"layers": {}}), "not those of the network"),
        (lambda table: json.dumps(table | {"layers": {name: [[1.0]] for name in table["layers"]}}), "rows are needed|must hold"),
        (lambda table: json.dumps(table).replace("[[", "[[NaN, ", 1), "must hold"),
    ],
)
def test_a_damaged_file_is_measured_anew_with_a_warning(cache: Path, damage: Any, what: str) -> None:
    model, data, _ = made("1-d")
    structure = find_groups(model, data[:4])
    latency_table(structure, data.inputs)
    (path,) = cache.iterdir()
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.warns(UserWarning, match=f"{what}.*measured anew"):
        mended = latency_table(structure, data.inputs)
    again = latency_table(structure, data.inputs)
    assert mended.dense == again.dense
    assert [layer.seconds.tolist() for layer in mended.layers] == [layer.seconds.tolist() for layer in again.layers]


def test_whoever_writes_first_is_believed(cache: Path) -> None:
    shapes = {"layer": (1, 1)}

    def slow() -> dict[str, Any]:
        other = {"dense": 1.0, "layers": {"layer": [[0.5]]}}
        assert latency_file.read_or_write({}, shapes, lambda: other) == other
        return {"dense": 2.0, "layers": {"layer": [[0.25]]}}

    assert latency_file.read_or_write({}, shapes, slow)["dense"] == 1.0
    assert len(list(cache.iterdir())) == 1


def test_a_folder_that_cant_be_written_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "file"))
    model, data, _ = made("1-d")
    with pytest.raises(OSError, match="REPTILE_CACHE"):
        latency_table(find_groups(model, data[:4]), data.inputs)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_layer_is_measured(name: str) -> None:
    model, data, sizes = made(name)
    structure = find_groups(model, data[:4])
    table = latency_table(structure, data.inputs)
    dense, least = np.array(structure.sizes), np.ones(len(sizes), dtype=np.int64)
    assert 0 < table.seconds(least) <= table.seconds(dense)
    owned = {tensor for tensor, _ in structure.axes if tensor.rpartition(".")[2].startswith("weight")}
    measured = sum(len(layer.seconds) * len(layer.seconds[0]) > 1 for layer in table.layers)
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
    shrinking = {tensor.rpartition(".")[0] for tensor in owned}
    assert measured == sum(isinstance(structure.model.get_submodule(path), kinds) for path in shrinking)


def test_latency_is_a_cost_of_the_environment() -> None:
    env = gym.make("ReptilePrune-v0", task=wide_task(), cost="latency", recovery="none", budget=0.6).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    env.reset(seed=0)
    terminated, info = False, {}
    while not terminated:
        *_, terminated, _, info = env.step(env.action_for(0.0))
    assert info["latency"] <= 0.6 * env.reference.dense.latency
    assert info["latency"] == env.measure(env.plan).latency


def wide_task() -> Task:
    model, _ = wide_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        x = torch.randn(24, 32, 64)
    y = model(x)
    return Task(model, (x[:12], y[:12]), (x[12:], y[12:]), metric=lambda o, t: 1 / (1 + (o - t).square().mean()), loss="mse")


def test_latency_is_refused_where_the_table_knows_nothing() -> None:
    with pytest.raises(ValueError, match="masked weights"):
        Settings(granularity="unstructured", latency=True)
    evaluator = LiveEvaluator(small_task("ranks"), Settings("none", latency=True))
    ranked = reptile_env.Plan(evaluator.group_names, evaluator.dense.keep, ranks=[0.5, 1.0])
    with pytest.raises(ValueError, match="leave rank at 1"):
        evaluator.measure(ranked)
    quantized = reptile_env.Plan(evaluator.group_names, evaluator.dense.keep, bits=[8, 8])
    assert evaluator.measure(quantized).latency == evaluator.measure(evaluator.dense).latency
    plain = LiveEvaluator(evaluator.task, Settings("none"))
    assert isinstance(plain.costs, CostModel)
    assert plain.measure(plain.dense).latency is None
    with pytest.raises(ValueError, match="no latency was measured"):
        plain.costs.cost("latency", plain.sizes)


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2).eval())
    modes = [module.training for module in model.modules()]
    assert reptile_env.measure_latency(model, torch.randn(1, 4), 0.01) > 0
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="above 0"):
        reptile_env.measure_latency(model, torch.randn(1, 4), 0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        reptile_env.measure_latency(3, torch.randn(1, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seconds must be a number"):
        reptile_env.measure_latency(model, torch.randn(1, 4), "1")  # type: ignore[arg-type]
