"""The report's page in a real browser, for every reader: light or dark, narrow or wide, by keys alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.pages import NEEDS_BROWSER, opened

pytestmark = NEEDS_BROWSER

DRAWN = "performance.getEntriesByName('plans-drawn').length > {}"


def test_every_control_is_reached_with_the_tab_key(page: Page) -> None:
    wanted = page.locator("select:enabled:visible, input:enabled:visible, button:enabled:visible, a:visible").count()
    page.evaluate("document.body.focus()")
    reached = set()
    for _ in range(wanted + 40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
    for control in page.locator("select:enabled:visible, input:enabled:visible, button:enabled:visible").all():
        assert control.evaluate("e => e.outerHTML.slice(0, 200)") in reached


def background(page: Page) -> int:
    """Brightness of the page, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", colour)[0])


def test_it_is_dark_where_the_reader_wants_that(browser: Browser, several: Path) -> None:
    page, wrong = opened(browser, several, scheme="dark")
    assert background(page) < 50
    page.locator("#theme").select_option("light")
    assert background(page) > 200
    page.reload()
    page.wait_for_function(DRAWN.format(0))
    assert background(page) > 200  # remembered
    page.locator("#theme").select_option("auto")
    assert background(page) < 50
    assert wrong == []
    page.close()


def test_a_canvas_is_repainted_when_the_theme_changes(page: Page) -> None:
    read = "document.querySelector('#plans-chart canvas').toDataURL()"
    before, drawn = page.evaluate(read), page.evaluate("performance.getEntriesByName('plans-drawn').length")
    page.locator("#theme").select_option("dark")
    page.wait_for_function(DRAWN.format(drawn))
    assert page.evaluate(read) != before


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_no_width_needs_sideways_scrolling(browser: Browser, several: Path, width: int) -> None:
    page, wrong = opened(browser, several, width)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#anytime-chart svg").first.evaluate("e => e.getBoundingClientRect().right") <= width
    assert wrong == []
    page.close()


def test_text_stands_out_from_its_background(browser: Browser, several: Path) -> None:
    for scheme in ("light", "dark"):
        page, _ = opened(browser, several, scheme=scheme)
        for name, least in [("--ink", 7.0), ("--quiet", 4.5), ("--accent", 4.5), ("--good", 4.5), ("--bad", 4.5)] + [
            (f"--series-{i}", 3.0) for i in range(7)
        ]:
            assert contrast(colour(page, name), colour(page, "--paper")) >= least, (scheme, name)
        page.close()


def colour(page: Page, name: str) -> list[int]:
    """Red, green and blue of a colour of the style sheet."""
    read = """(name) => {
      const probe = document.createElement("i");
      probe.style.color = `var(${name})`;
      document.body.append(probe);
      return getComputedStyle(probe).color;
    }"""
    return [int(part) for part in re.findall(r"\d+", page.evaluate(read, name))[:3]]


def contrast(first: list[int], second: list[int]) -> float:
    """WCAG 2's contrast ratio."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: list[int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(rgb) / 255]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
