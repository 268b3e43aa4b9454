"""The report's page in a real browser, for its tests.

Debian's Chromium is driven by Playwright. Without a browser these tests are skipped; with REPTILE_BROWSER=required they fail.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.report.command import PAGE, report
from benchmarks.results import Run, read_runs
from tests.results import write_runs

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
REQUIRED = os.environ.get("REPTILE_BROWSER") == "required"
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium; `apt-get install chromium` brings one")

EVIL = """Traceback
ValueError: </script><script>document.title = 'taken over'</script><img src=x onerror="document.title = 'taken over'">"""


def made_page(folder: Path, runs: list[Run], **options: Any) -> Path:
    """The page of some runs."""
    report(write_runs(folder / "results", runs), folder / "report", explain=False, figures=False, **options)
    return folder / "report" / PAGE


def opened(browser: Browser, path: Path, width: int = 1100, scheme: Any = "light") -> tuple[Page, list[str]]:
    """A page, drawn, and what went wrong in it: errors, and requests for anything but the page."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url == path.as_uri() else wrong.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('plans-chart').childElementCount > 0")
    return page, wrong


def runs_of(page: Path, task: str) -> list[Run]:
    """The runs of a task, in the order in which the page packs them."""
    return [run for run in read_runs(page.parents[1] / "results") if run.task == task and run.status == "done"]


def opened_front(page: Page) -> list[list[str]]:
    """Cells of the Pareto front's table, which is filled once it is opened."""
    page.locator("#front summary").click()
    page.locator("#front-table tbody tr").first.wait_for()
    return rows(page, "front-table")


def rows(page: Page, table: str) -> list[list[str]]:
    """Cells of a table's body."""
    return [line.locator("th, td").all_inner_texts() for line in page.locator(f"#{table} tbody tr").all()]


def number(text: str) -> float:
    """A number that the page shows."""
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))
