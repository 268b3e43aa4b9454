"""The speed benchmark: what it compares measures the same, its statistics are right, and it runs. Nothing here is timed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed import run
from benchmarks.speed.crawls import draw_crawls, make_env, play
from benchmarks.speed.floor import Floor, Layout, part_of, parts
from benchmarks.speed.live import differences
from benchmarks.speed.measure import Spread, exponent, interleaved, ratio, slope
from benchmarks.speed.networks import resnet
from benchmarks.speed.profile import PHASES, Stopwatch
from benchmarks.speed.rows import Goal, failed, markdown, row, save
from benchmarks.speed.straightforward import Straightforward
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator, live_evaluator
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.task import Task

TASKS: dict[str, Callable[[], Task]] = {"digits-cnn": lambda: make_task("digits-cnn"), "resnet": lambda: resnet(8, 16, 60, 128)}


def plans(evaluator: LiveEvaluator) -> list[Plan]:
    """Every third of two crawls' plans, and the dense one."""
    found = [plan for crawl in draw_crawls(evaluator, 2, seed=3) for plan in crawl.plans]
    return [evaluator.dense, *found[::3], found[-1]]


@pytest.mark.parametrize("recovery", ["reconstruct", "reconstruct-sequential"])
@pytest.mark.parametrize("task", TASKS)
def test_straightforward_measures_what_the_environment_measures(task: str, recovery: str) -> None:
    made = TASKS[task]()
    evaluator, plain = live_evaluator(made, Settings(recovery)), Straightforward(made, recovery)
    compared = plans(evaluator)
    measured = [evaluator.measure(plan) for plan in compared]
    examples, loss = differences([(m.metric, m.loss) for m in measured], [plain.measure(p) for p in compared], len(made.valid))
    assert examples <= 1
    assert loss < 1e-3


def test_refits_are_compared_and_not_cuts_alone() -> None:
    task = make_task("digits-cnn")
    plan = plans(live_evaluator(task, Settings("none")))[-1]
    losses = [live_evaluator(task, Settings(name)).measure(plan).loss for name in ("none", "reconstruct", "reconstruct-sequential")]
    assert losses[0] > 1.1 * losses[1] > 1.1 * 1.1 * losses[2]


def test_all_rows_refit_nearly_as_the_sampled_ones() -> None:
    task = TASKS["resnet"]()
    plan = plans(live_evaluator(task, Settings("reconstruct-sequential")))[-1]
    sampled, whole = (Straightforward(task, "reconstruct-sequential", sampled=each).measure(plan)[1] for each in (True, False))
    assert sampled != whole
    assert sampled == pytest.approx(whole, rel=0.1)


def test_a_group_that_torch_pruning_loses_behind_padding_is_cut_by_hand() -> None:
    task = TASKS["resnet"]()
    evaluator, plain = live_evaluator(task, Settings("reconstruct")), Straightforward(task, "reconstruct")
    assert plain._followed == [False, True, True, True]
    plan = evaluator.cut(evaluator.dense, 0, 5)
    ours, theirs = (dict(model.named_parameters()) for model in (evaluator.compressed_model(plan), plain.build(plan)))
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}


def test_straightforward_knows_two_recoveries() -> None:
    with pytest.raises(ValueError, match="reconstruct-sequential"):
        Straightforward(make_task("digits-cnn"), "recalibrate")


@pytest.mark.parametrize("layout", [Layout(32, True), Layout(64, False)])
@pytest.mark.parametrize("task", TASKS)
def test_the_changed_part_gives_the_whole_networks_outputs(task: str, layout: Layout) -> None:
    made = TASKS[task]()
    evaluator = live_evaluator(made, Settings("reconstruct"))
    images = made.valid.inputs
    assert isinstance(images, Tensor)
    (crawl,) = draw_crawls(evaluator, 1)
    for group, plan in zip(evaluator.group_names, crawl.plans, strict=True):
        network = evaluator.compressed_model(plan)
        outputs = Floor(network, group, images, images[:10], layout).run()
        torch.testing.assert_close(outputs, made.outputs(network, made.valid), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_before_the_changed_part_changes(task: str) -> None:
    made = TASKS[task]()
    evaluator = live_evaluator(made, Settings("reconstruct-sequential"))
    (crawl,) = draw_crawls(evaluator, 1)
    before = evaluator.dense
    for group, plan in zip(evaluator.group_names, crawl.plans, strict=True):
        whole, cut = (evaluator.compressed_model(p) for p in (before, plan))
        start = part_of(parts(cut), group)
        changed = [n for n, t in cut.state_dict().items() if not torch.equal(t, whole.state_dict().get(n, torch.empty(0)))]
        assert changed
        assert all(part_of(parts(cut), name.rpartition(".")[0]) >= start for name in changed)
        before = plan


def test_the_floor_of_an_unknown_network_is_refused() -> None:
    with pytest.raises(TypeError, match="write its parts"):
        parts(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="no part"):
        part_of(parts(TASKS["digits-cnn"]().model), "elsewhere")


def test_crawls_lead_where_they_say_and_nowhere_twice() -> None:
    env = make_env("digits-mlp")
    crawls = draw_crawls(env.evaluator, 5)
    for crawl in crawls:
        infos = play(env, crawl)
        assert [info["rate"] for info in infos] == pytest.approx(crawl.rates)
    reached = [plan for crawl in crawls for plan in crawl.plans]
    assert len({env.evaluator.dense, *reached}) == len(reached) + 1
    assert draw_crawls(env.evaluator, 5) == crawls != draw_crawls(env.evaluator, 5, seed=1)
    with pytest.raises(ValueError, match="allows 255"):
        draw_crawls(env.evaluator, 256)


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passing(self, seconds: float) -> None:
        self.now += seconds


def test_sides_take_turns_and_warming_up_does_not_count() -> None:
    clock, order = FakeClock(), []
    lengths = {"a": iter([9.0, 1.0, 2.0, 3.0]), "b": iter([90.0, 10.0, 20.0, 30.0])}

    def side(name: str) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            clock.passing(next(lengths[name]))

        return call

    took = interleaved({name: side(name) for name in "ab"}, repeats=3, warmup=1, clock=clock)
    assert took == {"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]}
    assert "".join(order) == "abbaabba"


def test_ratios_and_their_intervals() -> None:
    generator = np.random.default_rng(0)
    slow, fast = generator.normal(10, 1, 200).tolist(), generator.normal(2, 0.2, 200).tolist()
    found = ratio(slow, fast)
    assert found.low < found.value == np.median(slow) / np.median(fast) < found.high
    assert found.low < 5 < found.high
    assert found.high - found.low < 0.5
    assert ratio([2.0], [1.0]).low == ratio([2.0], [1.0]).high == 2
    with pytest.raises(ValueError, match="pairs"):
        ratio([1.0], [1.0, 2.0])


def test_exponents_and_slopes() -> None:
    generator = np.random.default_rng(0)
    sizes = [5, 10, 20, 50]
    quadratic = exponent(sizes, [(n**2 * generator.normal(1, 0.05, 20)).tolist() for n in sizes])
    assert quadratic.low < 2 < quadratic.high
    assert quadratic.high - quadratic.low < 0.2
    constant = exponent(sizes, [[3.0]] * 4)
    assert constant.value == pytest.approx(0)
    rising = slope(range(100), (7 + 0.5 * np.arange(100) + generator.normal(0, 1, 100)).tolist())
    assert rising.low < 0.5 < rising.high
    assert rising.value == pytest.approx(0.5, abs=0.02)


def test_spreads_are_written_in_a_fitting_unit() -> None:
    assert str(Spread.of([0.001, 0.002, 0.003])) == "2 ms (1.5-2.5)"
    assert str(Spread.of([2.0])) == "2 s (2-2)"
    assert str(Spread.of([3e-6])) == "3 µs (3-3)"


def test_goals_are_met_on_the_right_side() -> None:
    assert row("p", "faster", 12.0, Goal(least=10)).met
    assert not row("p", "faster", 8.0, Goal(least=10)).met
    assert row("p", "slower", 1.2, Goal(most=1.3)).met
    assert not row("p", "slower", 1.4, Goal(most=1.3)).met
    assert row("p", "apart", 0.0, Goal(most=1)).met
    assert row("p", "falling", -3.0, Goal(most=1)).met
    assert row("p", "no goal", 3.0).met is None
    assert row("p", "slower", 2.6, Goal(most=1.3)).margin == pytest.approx(0.5)


def test_the_stopwatch_counts_each_phase_without_those_inside() -> None:
    clock = FakeClock()
    watch = Stopwatch({}, clock)
    inner = watch.timed("inner", lambda: clock.passing(2))

    def outer() -> None:
        clock.passing(1)
        inner()
        inner()
        clock.passing(3)

    watch.timed("outer", outer)()
    inner()
    assert watch.seconds == {"outer": 4, "inner": 6}


def test_the_stopwatch_finds_its_phases_and_puts_functions_back() -> None:
    original = LiveEvaluator.measure
    env = make_env("digits-mlp", recovery="reconstruct-sequential")
    (crawl,) = draw_crawls(env.evaluator, 1, seed=9)
    with Stopwatch(PHASES) as watch:
        play(env, crawl)
    assert LiveEvaluator.measure is original
    assert set(watch.seconds) == set(PHASES)
    assert all(seconds > 0 for seconds in watch.seconds.values())


def test_rows_are_saved_with_the_machine_and_its_warning(tmp_path: Path) -> None:
    machine = {"cpu": "Z80", "warning": "the load was 3.00 at the start"}
    rows = [row("live", "ratio", ratio([4.0], [1.0]), Goal(least=3)), failed("table", "vector", "Traceback\nValueError: not there")]
    save(tmp_path, rows, machine)
    text = (tmp_path / "speed.md").read_text()
    assert text == markdown(rows, machine)
    assert "| ratio | 4 (4 to 4) | at least 3 | yes |" in text
    assert "**Warning: the load was 3.00 at the start.**" in text
    assert "| vector | **failed** | | no | ValueError: not there |" in text
    record = json.loads((tmp_path / "speed.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["machine"] == machine
    assert [r["met"] for r in record["rows"]] == [True, False]


def test_a_quick_run_writes_its_files_and_a_failing_part_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(quick: bool, progress: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(run.PARTS, "digits", broken)
    told: list[tuple[str, float]] = []
    done = run.measure(["import", "digits"], tmp_path, quick=True, progress=lambda part, fraction: told.append((part, fraction)))
    assert [each.part for each in done] == ["import", "digits"]
    assert done[0].met is not None
    assert math.isfinite(done[0].measured)
    assert "out of luck" in done[1].error
    assert told[-1] == ("digits", 1.0)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "speed.json").read_text())["machine"]["cpu"]
