"""BC-ResNet with the published weights, on spoken digits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks import bcresnet
from reptile_env.tasks.registry import make_task
from tests.helpers import episode, generator_states, make

DATA = Path(os.environ.get("REPTILE_DATA", "data"))
needs_weights = pytest.mark.skipif(
    not (DATA / "checkpoints" / bcresnet.CHECKPOINT).is_file(), reason="needs the published weights in $REPTILE_DATA/checkpoints"
)
needs_data = pytest.mark.skipif(
    not (DATA / "fsdd" / "recordings").is_dir(), reason="needs the Free Spoken Digit Dataset in $REPTILE_DATA/fsdd/recordings"
)


def test_every_fifth_of_the_frequencies_is_normalised_by_itself() -> None:
    norm = bcresnet.SubSpectralNorm(3)
    torch.nn.init.normal_(norm.bn.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 3, 10, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 11)[:, None]
    out = norm(x)  # in training mode: by the statistics of the batch
    for channel in range(3):
        for band in range(5):
            part = x[:, channel, 2 * band : 2 * band + 2]
            expected = (part - part.mean()) / (part.var(unbiased=False) + 1e-5).sqrt() * norm.bn.weight[5 * channel + band]
            torch.testing.assert_close(out[:, channel, 2 * band : 2 * band + 2], expected, atol=1e-5, rtol=1e-5)


def test_what_frames_say_is_spread_over_all_frequencies() -> None:
    block = bcresnet.NormalBlock(8, dilation=2).eval()
    x = torch.rand(2, 8, 10, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        spread = block(x) - torch.relu(x + block.f2(x))
        along = block.f1(block.f2(x).mean(2, keepdim=True))
        inside = (x + block.f2(x) + along > 0) & (x + block.f2(x) > 0)
    torch.testing.assert_close(spread[inside], along.expand_as(x)[inside], atol=1e-5, rtol=1e-5)


def test_a_missing_or_foreign_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPTILE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"speech_commands_bcresnet2\.safetensors is missing: .*re9ulus/BC-ResNet"):
        bcresnet.published()
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(
        ValueError, match=r"other\.safetensors does not hold the weights of this BCResNet: missing: .*not known: weight"
    ):
        bcresnet.published(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"is no safetensors file that can be read"):
        bcresnet.published(path)


@needs_weights
def test_the_published_tensors_are_the_whole_network() -> None:
    before = generator_states()
    network = bcresnet.published()
    assert generator_states() == before
    assert sum(p.numel() for p in network.parameters()) == 30_939
    x = torch.randn(2, 1, 40, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        words = network(x)
        digits = bcresnet.for_digits(network)(x)
    assert words.shape == (2, 35)
    assert digits.shape == (2, 10)
    for place, digit in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")):
        torch.testing.assert_close(digits[:, place], words[:, bcresnet.WORDS.index(digit)])


@needs_weights
@needs_data
def test_untuned_it_tells_digits_apart() -> None:
    task = make_task("fsdd-bcresnet")
    right = [task.score(task.outputs(task.model, part), part)[0] for part in (task.valid, task.test_split())]
    assert right == pytest.approx([0.960, 0.977], abs=0.004)


@needs_weights
@needs_data
@pytest.mark.slow  # 18 plans of the uniform sweep
def test_every_stage_is_cut_through_its_norms_and_what_it_spreads() -> None:
    env = make("fsdd-bcresnet", measure="round")
    sizes = {"input_conv": 32, "t1.f2.0": 16, "t2.f2.0": 24, "t3.f2.0": 32, "t4.f2.0": 2, "dw_conv": 2, "onexone_conv": 64}
    assert dict(zip(env.groups, env.evaluator.sizes, strict=True)) == sizes
    assert make_task("fsdd-bcresnet").skipped == {}
    total, info = episode(env, env.reference.uniform_rate)
    assert total == pytest.approx(1)
    assert info["params"] < env.reference.dense.params


STAGES = {"t1.f2.0": ("t1", "n11"), "t2.f2.0": ("t2", "n21"), "t3.f2.0": ("t3", "n31", "n32", "n33")}
STAGES["t4.f2.0"] = ("t4", "n41", "n42", "n43")


@needs_weights
@needs_data
def test_a_cut_computes_what_zeroed_channels_would() -> None:
    task = make_task("fsdd-bcresnet")
    evaluator = LiveEvaluator(task, Settings("none"))
    small = evaluator.compressed_model(Plan(evaluator.group_names, [range(0, size, 2) for size in evaluator.sizes]))
    assert small.get_submodule("n11.f2.1.bn").num_features == 5 * 8
    assert small.get_submodule("dw_conv").in_channels == 20
    zeroed = bcresnet.for_digits(bcresnet.published())
    for group in evaluator.group_names:
        blocks = STAGES.get(group)
        # Where a block's channels come from, and where each of them is last by itself.
        layers = [f"{block}.{part}" for block in blocks for part in ("f2", "f1.2", "f1")] if blocks else [group]
        for layer in layers:
            zeroed.get_submodule(layer).register_forward_hook(
                lambda layer, given, out: out * (torch.arange(out.shape[1]) % 2 == 0)[:, None, None]
            )
    x = task.valid.inputs[:4]  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(small(x), zeroed(x), atol=1e-3, rtol=1e-4)
