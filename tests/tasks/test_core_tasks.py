"""Every core task: it is what its calibration says, it is cut exactly, and an episode runs on it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import reptile_env
from benchmarks.calibration import check
from reptile_env.compression import prune
from reptile_env.compression.groups import tensors_of
from reptile_env.evaluation.live import LiveEvaluator, structure_of
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks import checkpoints, digits, digits_generative, mnist1d, vowels
from reptile_env.tasks.registry import make_task, references, task_spec
from reptile_env.tasks.splits import call
from reptile_env.tasks.task import Task
from tests.helpers import episode, generator_states, make, random_plan

CORE = [str(row["name"]) for row in reptile_env.tasks() if row["suite"] == "core"]
RECIPES = digits.RECIPES | mnist1d.RECIPES | vowels.RECIPES | {"digits-vae": digits_generative.VAE}
CHECKPOINT_BYTES = 10_000_000
# The residual stream of a Transformer is normalised as a whole; all else is cut.
STREAM = ["norm", *(f"layers.{layer}.{norm}" for layer in range(3) for norm in ("norm1", "norm2"))]
SKIPPED = {"mnist1d-transformer": {*STREAM, "places", "head"}}
needs_aeon = pytest.mark.skipif(not vowels.is_installed(), reason="needs `pip install --no-deps aeon`")


@pytest.fixture(params=[pytest.param(name, marks=needs_aeon if name in vowels.RECIPES else ()) for name in CORE])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> Task:
    return make_task(name)


def test_all_kinds_of_networks_are_there() -> None:
    families = {task_spec(name).family for name in CORE}
    assert {"mlp", "cnn", "resnet", "mobilenet", "cnn-1d", "lstm", "gru", "rnn", "transformer", "vae", "gan"} <= families


def test_it_measures_what_the_calibration_says(name: str, task: Task) -> None:
    known = references()[name]["dense"]
    for split, said in ((task.valid, known["valid"]), (task.test_split(), known["test"])):
        metric, _ = task.score(task.outputs(task.model, split), split)
        one_example = 1.5 / len(split) if task.metric_name == "accuracy" else 1e-4 * said
        assert metric == pytest.approx(said, abs=one_example)


def test_its_calibration_shows_head_room(name: str, task: Task) -> None:
    known = references()[name]
    check(name, known)
    assert known["w"] == task.w


def test_its_splits_are_apart_and_hold_every_class(task: Task) -> None:
    splits = [task.train, task.valid, task.test_split()]
    assert len(set().union(*(split.fingerprints() for split in splits))) == sum(map(len, splits))
    for split in splits:
        if not split.targets.is_floating_point():
            counts = torch.bincount(split.targets)
            assert counts.min() > 0.3 * counts.double().mean()


def test_its_groups_are_several_and_unequal(task: Task) -> None:
    sizes = structure_of(task).sizes
    assert 5 <= len(sizes) <= 8
    assert max(sizes) >= 3 * min(sizes)
    assert 20_000 < sum(p.numel() for p in task.model.parameters()) < 150_000


def test_nothing_is_skipped_in_silence(name: str, task: Task) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiveEvaluator(task, Settings())
    assert set(task.skipped) == SKIPPED.get(name, set())


def test_an_episode_runs(name: str) -> None:
    make_task(name)
    before = generator_states()
    env = make(name)
    total, info = episode(env, 0.6)
    assert generator_states() == before
    assert total == pytest.approx(info["return"])
    assert list(info["plan"]) == list(env.groups)
    assert info["macs"] < 0.5 * env.reference.dense.macs
    assert env.reference.quality(env.measurement) < 1


def test_cut_equals_zeroed(task: Task) -> None:
    evaluator = LiveEvaluator(task, Settings("none"))
    structure, examples, rng = evaluator.structure, task.valid[:20], np.random.default_rng(0)
    for _ in range(3):
        plan = random_plan(evaluator.group_names, evaluator.sizes, rng)
        shrunk, zeroed = evaluator.compressed_model(plan), evaluator.compressed_model(evaluator.dense)
        prune.install(zeroed, prune.zeroed(tensors_of(structure.model), structure, plan))
        with torch.no_grad():
            got, want = call(shrunk, examples.inputs), call(zeroed, examples.inputs)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        assert sum(p.numel() for p in shrunk.parameters()) == evaluator.costs.all(plan.widths)["params"]


def test_checkpoints_are_small() -> None:
    folder = Path(checkpoints.__file__).parent
    assert sum((folder / f"{name}.safetensors").stat().st_size for name in CORE) < CHECKPOINT_BYTES


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_aeon if name in vowels.RECIPES else ()) for name in RECIPES])
def test_training_twice_gives_the_same_file(name: str) -> None:
    recipe, data = RECIPES[name], make_task(name).train[:100]
    short = replace(recipe, training=recipe.training | {"epochs": 1})
    before = generator_states()
    files = [save({key: t.contiguous() for key, t in short.trained(data).state_dict().items()}) for _ in range(2)]
    assert generator_states() == before
    assert files[0] == files[1]
