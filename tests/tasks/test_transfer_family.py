"""The 64 networks of the transfer family: what they are, how they were made, and what is said of them."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import reptile_env
from reptile_env.evaluation.table import SHIPPED
from reptile_env.tasks import checkpoints
from reptile_env.tasks.registry import make_task, references
from reptile_env.tasks.transfer import data, task
from reptile_env.tasks.transfer.members import MEMBERS, SUITE, Member
from reptile_env.tasks.transfer.networks import KINDS
from tests.helpers import generator_states, make

EACH_KIND = [f"transfer-{kind}-1" for kind in KINDS]
ARRANGED = sorted({(member.data, member.view) for member in MEMBERS.values()})


def design(member: Member) -> str:
    return json.dumps(member.layers, sort_keys=True)


def test_there_are_eight_of_each_kind_six_to_train_on() -> None:
    rows = [row for row in reptile_env.tasks() if row["suite"] == SUITE]
    counted = collections.Counter((row["family"], row["split"]) for row in rows)
    assert counted == {(kind, split): count for kind in KINDS for split, count in (("train", 6), ("test", 2))}
    assert {row["name"] for row in rows} == set(MEMBERS)


def test_no_two_networks_are_alike_but_for_their_seed() -> None:
    assert len({(m.kind, design(m)) for m in MEMBERS.values()}) == len(MEMBERS)
    for kind in KINDS:
        ours = [m for m in MEMBERS.values() if m.kind == kind]
        assert len({(m.data, m.view) for m in ours}) >= 3, f"{kind} knows too little data"
    assert len({m.data for m in MEMBERS.values()}) >= 6


@pytest.mark.parametrize("name", MEMBERS)
def test_sizes_are_those_of_small_networks_of_unequal_groups(name: str) -> None:
    known, network = references()[name], task.network(name)
    assert 3 <= known["groups"] <= 8
    assert 2_000 <= sum(p.numel() for p in network.parameters()) == known["params"] <= 60_000


def test_checkpoints_and_tables_are_small() -> None:
    files = list((Path(checkpoints.__file__).parent / SUITE).glob("*"))
    tables = list(SHIPPED.glob(f"{SUITE}-*.table"))
    assert sorted(file.stem for file in files) == sorted(MEMBERS) == sorted(table.stem for table in tables)
    assert sum(file.stat().st_size for file in files) < 8e6
    assert sum(file.stat().st_size for file in [*files, *tables]) < 15e6


@pytest.mark.parametrize("name", MEMBERS)
def test_the_family_is_calibrated(name: str) -> None:
    known = references()[name]
    assert known["random"]["mean"] < 0 < 1 < known["random"]["best_of_200"] + 0.1 <= known["best_known"]["return"]
    assert known["best_known"]["return"] >= 1.15


@pytest.mark.parametrize("name", MEMBERS)
def test_the_networks_measure_what_the_references_say(name: str) -> None:
    trained, known = make_task(name), references()[name]
    splits = {"valid": trained.valid, "test": trained.test_split()}
    reached = {which: trained.score(trained.outputs(trained.model, split), split)[0] for which, split in splits.items()}
    for which, split in splits.items():
        assert reached[which] == pytest.approx(known["dense"][which], abs=1.5 / len(split))
    assert (trained.w, trained.family) == (known["w"], MEMBERS[name].kind)


@pytest.mark.parametrize("name", EACH_KIND)
def test_the_best_known_plan_returns_what_is_said(name: str) -> None:
    env, known = make(name), references()[name]
    assert len(env.groups) == known["groups"]
    assert env.reference.uniform_rate == known["uniform"]["rate"]
    measured = env.measure(reptile_env.Plan.from_dict(known["best_known"]["plan"]))
    # Another machine may see one validation example differently.
    one_example = env.reference.w / (len(env.evaluator.task.valid) * env.reference.dense.metric) / env.reference.scale
    assert env.reference.return_of(measured) == pytest.approx(known["best_known"]["return"], abs=1.01 * one_example)


@pytest.mark.parametrize(("name", "view"), ARRANGED)
def test_splits_are_disjoint_and_hold_every_class(name: str, view: str) -> None:
    splits = data.splits(name, view)
    seen = [s.fingerprints() for s in splits]
    assert len(set().union(*seen)) == sum(map(len, seen))
    assert 200 <= len(splits[1]) <= 500
    for split in splits:
        assert torch.bincount(split.targets, minlength=data.classes(name)).min() > 0


@pytest.mark.parametrize(("name", "view"), ARRANGED)
def test_an_arrangement_loses_nothing(name: str, view: str) -> None:
    for base, arranged in zip(data.base(name), data.splits(name, view), strict=True):
        assert isinstance(base.inputs, Tensor)
        assert isinstance(arranged.inputs, Tensor)
        first, second = base.inputs.flatten(1), arranged.inputs.flatten(1)
        torch.testing.assert_close(first.sort(1).values, second.sort(1).values, rtol=0, atol=0)


def test_the_larger_of_two_digits() -> None:
    pairs, digits = data.base("digits-pairs")[1], data.base("digits")[1]
    assert isinstance(pairs.inputs, Tensor)
    assert isinstance(digits.inputs, Tensor)
    classes = {image.numpy().tobytes(): int(digit) for image, digit in zip(digits.inputs, digits.targets, strict=True)}
    known = 0
    for pair, target in zip(pairs.inputs, pairs.targets, strict=True):
        halves = [classes.get(half.contiguous().numpy().tobytes()) for half in pair.chunk(2, -1)]
        if None not in halves:
            known += 1
            assert max(h for h in halves if h is not None) == target
    assert known > 50


@pytest.mark.parametrize("name", EACH_KIND)
def test_training_is_reproducible_and_draws_from_its_own_generators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = data.base(MEMBERS[name].data)[0][:128]
    for constant, value in {"_EPOCHS": {}, "_USUAL_EPOCHS": 1, "_LONGER": {}}.items():
        monkeypatch.setattr(task, constant, value)
    monkeypatch.setattr(data, "training_examples", lambda _: few)
    task.train_network(name)  # whatever is imported once is imported
    before, told = generator_states(), list[float]()
    runs = [task.train_network(name, told.append).state_dict() for _ in range(2)]
    assert generator_states() == before
    assert told == [1.0, 1.0]
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    assert any(not torch.equal(tensor, task.network(name).state_dict()[key]) for key, tensor in runs[0].items())


@pytest.mark.slow
def test_a_checkpoint_is_what_its_seed_gives() -> None:
    name = "transfer-mlp-1"
    shipped, trained = checkpoints.load_checkpoint(f"{SUITE}/{name}"), task.train_network(name).state_dict()
    split = make_task(name).valid
    assert isinstance(split.inputs, Tensor)
    model = task.network(name).eval()
    outputs = []
    for state in (shipped, trained):
        model.load_state_dict(state)
        with torch.no_grad():
            outputs.append(model(split.inputs).argmax(1))
    # Another machine adds up in another order.
    assert float((outputs[0] == outputs[1]).double().mean()) > 0.97
    assert np.isfinite(trained["head.weight"].numpy()).all()
