"""Compressed networks on another device than the CPU; where there is none, what goes there and comes back is tested on the CPU."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import nn

import reptile_env
from reptile_env.compression.device import Device, make_device
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.resources import Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split, own_generators
from tests.helpers import make

# By its index the CPU is a device like any other: networks are copied to it, and their outputs copied back.
INDEXED = "cpu:0"
HERE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
DEVICES = [INDEXED, *([] if HERE is None else [HERE.type])]
CORE = [row["name"] for row in reptile_env.tasks() if row["suite"] == "core"]


def halved(evaluator: LiveEvaluator, **levels: Any) -> Plan:
    """Half of every group."""
    plan = evaluator.dense
    for group, size in enumerate(evaluator.sizes):
        plan = evaluator.cut(plan, group, removal_count(size, 0.5))
    return Plan(plan.names, plan.keep, **{name: [value] * len(plan.names) for name, value in levels.items()})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CORE)
def test_a_network_measures_there_what_it_measures_on_the_cpu(name: str, device: str) -> None:
    task = make_task(name)
    here, there = LiveEvaluator(task, Settings()), LiveEvaluator(task, Settings(), Resources(device=device))
    for plan in (here.dense, halved(here)):
        ours, theirs = here.measure(plan), there.measure(plan)
        # A rounding may turn one example, and no more.
        assert theirs.metric == pytest.approx(ours.metric, rel=1e-3, abs=1.01 / len(task.valid))
        assert theirs.loss == pytest.approx(ours.loss, rel=1e-3)
        assert theirs.costs == ours.costs
        assert there.test(plan).loss == pytest.approx(here.test(plan).loss, rel=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recovery", ["reconstruct-sequential", "recalibrate", "reconstruct+finetune"])
@pytest.mark.parametrize("levels", [{}, {"bits": 6, "ranks": 0.5}])
def test_every_recovery_and_level_goes_there(recovery: str, levels: dict[str, Any], device: str) -> None:
    task, settings = make_task("digits-cnn"), Settings(recovery, finetune={"steps": 10, "distillation": 0.5})  # type: ignore[arg-type]
    here, there = LiveEvaluator(task, settings), LiveEvaluator(task, settings, Resources(device=device))
    plan = halved(here, **levels)
    assert there.measure(plan).loss == pytest.approx(here.measure(plan).loss, rel=0.02)
    assert {tensor.device.type for tensor in there.compressed_model(plan).state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("device", DEVICES)
def test_a_measurement_is_repeated_to_the_last_bit(device: str) -> None:
    task, settings = make_task("digits-resnet"), Settings("reconstruct+finetune", finetune={"steps": 5})  # type: ignore[arg-type]
    first, second = (LiveEvaluator(task, settings, Resources(device=device)) for _ in range(2))
    plan = halved(first)
    state = torch.get_rng_state()
    found = first.measure(plan)
    first.measure(first.dense)
    assert second.measure(plan) == found
    assert torch.equal(torch.get_rng_state(), state)
    assert first.test(plan).loss == second.test(plan).loss


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_trained_there_is_saved(device: str, tmp_path: Any) -> None:
    settings = {"recovery": "finetune", "finetune": {"steps": 5}}
    plan = halved(live_evaluator("digits-mlp", Settings()))
    made = reptile_env.compress("digits-mlp", plan, device=device, **settings)
    made.save(tmp_path / "network")
    task = make_task("digits-mlp")
    _, loss = task.score(task.outputs(reptile_env.load(tmp_path / "network").model, task.valid), task.valid)
    assert loss == pytest.approx(made.measurement.loss, rel=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_drawn_there_is_seeded_and_leaves_the_generator(device: str) -> None:
    def drawn(seed: int) -> list[float]:
        with Device(device).holding(nn.Identity(), seed), own_generators(seed):
            return torch.rand(4, device=device).tolist()  # type: ignore[no-any-return]

    after = []
    for between in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            if between:
                assert drawn(3) == drawn(3) != drawn(4)
            after.append(torch.rand(4, device=device))
    assert torch.equal(*after)


def test_a_kind_of_device_of_which_there_is_but_one_is_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(state=0)  # as torch.mps, which has no `device`
    module.get_rng_state = lambda device: module.state
    module.set_rng_state = lambda state, device: setattr(module, "state", state)
    module.manual_seed = lambda seed: setattr(module, "state", seed)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    device, model = Device("cpu:0"), SimpleNamespace(to=lambda device: None)
    device.device = torch.device("mps")
    with device.holding(model, 7):  # type: ignore[arg-type]
        assert module.state == 7
    assert module.state == 0


def test_generators_of_other_devices_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert seeded, "this version of torch seeds other devices in another way"
    seeded.clear()
    task = make_task("transfer-mlp-1")
    settings = Settings("finetune", "taylor", finetune={"steps": 2})  # type: ignore[arg-type]
    evaluator = LiveEvaluator(task, settings)
    evaluator.measure(halved(evaluator))
    assert not seeded


def test_tied_tensors_stay_tied_and_the_network_stays_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    model[1].weight = model[0].weight
    before = copy.deepcopy(model.state_dict())
    copied = Device(INDEXED).copy(model)
    assert copied[1].weight is copied[0].weight
    assert copied[0].weight.data_ptr() != model[0].weight.data_ptr()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in copied.state_dict().items())


def test_the_environment_takes_a_device_and_shares_what_has_the_same_one() -> None:
    first, second = (make("digits-mlp", device=INDEXED) for _ in range(2))
    assert first.evaluator is second.evaluator
    assert make("digits-mlp", device="cpu").evaluator is make("digits-mlp").evaluator
    assert make("digits-mlp").evaluator is not first.evaluator
    assert make("digits-mlp", device=torch.device("cpu", 0)).evaluator is first.evaluator
    first.reset(seed=0)
    assert first.step(first.action_for(0.5))[4]["measured"]
    assert first.evaluator.conditions() != make("digits-mlp").evaluator.conditions()


def test_devices_that_are_not_here_are_refused() -> None:
    assert make_device(None) is make_device("cpu") is None
    with pytest.raises(ValueError, match=r"device='gpu' is none that torch knows: .*give 'cpu' or 'cuda'"):
        make("digits-mlp", device="gpu")
    with pytest.raises(ValueError, match="device='meta' can't be used here"):
        make("digits-mlp", device="meta")
    if not hasattr(torch, "hpu"):
        with pytest.raises(ValueError, match="device='hpu' can't be used here: ModuleNotFoundError"):
            make("digits-mlp", device="hpu")
    with pytest.raises(TypeError, match="device must be a name such as 'cuda', got int 0"):
        make("digits-mlp", device=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device='cuda' can't be used here: .*give device='cpu', or install a torch"):
            gym.make("ReptilePrune-v0", task="digits-mlp", device="cuda")


class Fixed(nn.Linear):
    """Adds a tensor that it holds, though not as a buffer, and which so stays where it is."""

    def __init__(self, device: str) -> None:
        super().__init__(8, 2)
        self.held, self.device = torch.ones(2), device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.device == INDEXED:  # where all tensors are on one device
            raise RuntimeError("Expected all tensors to be on the same device")
        return super().forward(x) + self.held


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_that_does_not_run_there_is_refused_at_once(device: str) -> None:
    examples = Split(torch.randn(4, 8), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"'mine': the network runs on the CPU and not on \w+(:0)?: Expected .*register_buffer"):
        Device(device).check("mine", Fixed(device).eval(), examples)
