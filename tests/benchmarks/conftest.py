"""What the tests of the runner, of validation and of the report's page share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks import run_command, validate
from benchmarks.results import Run
from tests.pages import CHROMIUM, EVIL, made_page, opened
from tests.results import failed_run, many_runs
from tests.suites import BROKEN, TINY, Here, add_suites, made


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    add_suites(monkeypatch, TINY, BROKEN)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new process, where it is not what is tested."""
    for command in (run_command, validate):
        monkeypatch.setattr(command, "LocalEngine", lambda workers: Here())


@pytest.fixture(scope="session")
def run() -> Run:
    return made("random")


@pytest.fixture(scope="session")
def stepwise() -> Run:
    """An agent with a policy, under a budget that raises what it chooses from a list."""
    return made("dqn", 1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "REPTILE_BROWSER=required, and there is no Chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four agents, two tasks, five seeds; one run failed."""
    runs = [run for run in many_runs() if (run.agent, run.task, run.seed) != ("sac", "task-b", 4)]
    return made_page(tmp_path_factory.mktemp("several"), [*runs, failed_run("sac", "task-b", 4, error=EVIL)])


@pytest.fixture
def page(browser: Browser, several: Path) -> Iterator[Page]:
    """The page of `several`; at the end nothing may have gone wrong."""
    found, wrong = opened(browser, several)
    yield found
    assert wrong == []
    found.close()
