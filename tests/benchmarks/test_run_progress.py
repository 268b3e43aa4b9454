"""The time that runs take: estimated beforehand, told while they are made."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from agents.registry import AGENTS
from benchmarks import estimate, execution, run_progress
from benchmarks.run_progress import RunProgress
from benchmarks.runner import jobs_of
from benchmarks.suites import SUITES
from tests.suites import NAMES, TINY


def test_every_agents_time_is_known() -> None:
    assert set(estimate.AGENT_SECONDS) >= set(AGENTS)
    suite = SUITES["core-v1"]
    seconds = [estimate.total_seconds(jobs_of(suite, [agent], ["digits-cnn"], 1)) for agent in ("uniform", "random", "amc")]
    assert sorted(seconds) == seconds
    assert seconds[0] < seconds[1] / 50  # a sweep is soon over


def test_progress_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: clock[0])
    jobs = jobs_of(TINY, ["random"], NAMES, 2)
    console = Console(file=io.StringIO(), width=200)
    with RunProgress(jobs, console) as progress:
        progress(jobs[0], execution.Finished({}, None, 1.0))
        clock[0] = 10.0
        assert progress.text == "1 of 4 runs, 10 s, 30 s left"
        progress(jobs[1], execution.Finished({}, "oh", 1.0))
        clock[0] = 3600.0
        assert progress.text == "2 of 4 runs, 1 failed, 60 min, 60 min left"
