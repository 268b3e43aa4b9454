"""The report's page in a real browser: what it shows is what the runs hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks.statistics.pareto import front
from tests.pages import EVIL, NEEDS_BROWSER, number, opened_front, rows, runs_of
from tests.results import GROUPS, SIZES

pytestmark = NEEDS_BROWSER


def choose(page: Page, section: str, key: str, value: str) -> None:
    """Choose from a list of a section."""
    page.locator(f"#{section}-choices select[data-key={key}]").select_option(value)


def test_scores_are_those_of_the_runs_with_their_n(page: Page, several: Path) -> None:
    choose(page, "scores", "scope", "task-a")
    shown = {line[0]: line for line in rows(page, "scores-table")}
    for agent in ("cma-es", "ppo", "random", "sac"):
        best = [run.columns["plan_return"].max() for run in runs_of(several, "task-a") if run.agent == agent]
        middle = np.sort(best)[1:-1].mean()  # five runs: a quarter at either end is one
        assert number(shown[agent][1]) == pytest.approx((middle - 1) / 0.6, abs=5e-4)
        assert shown[agent][4] == "5"
        assert number(shown[agent][6]) == pytest.approx(max(best), abs=5e-4)


def test_a_missing_run_is_told_and_forbids_a_winner(page: Page) -> None:
    line = page.locator("#scores-table tr[data-agent=sac]")
    expect(line).to_contain_text("9 of 10")
    expect(page.locator("#scores-verdict")).to_contain_text("runs of sac are missing")
    expect(page.locator("#failures-list summary")).to_contain_text("sac on task-b, seed 4")
    page.locator("#failures-list summary").click()
    assert page.locator("#failures-list pre").inner_text() == EVIL
    assert page.title() == "made-v1"


def test_the_track_chooses_who_is_scored_by_what(page: Page) -> None:
    page.locator("select[data-key=track]").select_option(label="policy")
    lines = {line[0]: line for line in rows(page, "scores-table")}
    assert set(lines) == {"ppo", "sac"}
    # Of policy returns 1.2, 1.25, ..., 1.4 the middle three.
    choose(page, "scores", "scope", "task-a")
    assert number(rows(page, "scores-table")[0][1]) == pytest.approx((1.3 - 1) / 0.6, abs=5e-4)
    expect(page.locator("#anytime-chart")).to_contain_text("no search to follow")


def test_curves_follow_task_axis_and_agents(page: Page, several: Path) -> None:
    lines = page.locator("#anytime-chart [data-line]")
    expect(lines).to_have_count(4)
    against = page.locator("#anytime-choices select[data-key=x]")
    expect(against).to_be_disabled()  # seconds of different tasks don't add up
    choose(page, "anytime", "scope", "task-b")
    against.select_option("seconds")
    expect(page.locator("#anytime-chart")).to_contain_text("simulated seconds")
    against.select_option("evaluations")
    page.locator("#anytime-agents input[data-agent=random]").uncheck()
    expect(lines).to_have_count(3)
    expect(page.locator("#profiles-chart [data-line]")).to_have_count(3)
    page.locator("#anytime-chart [tabindex]").focus()
    page.keyboard.press("End")
    told = page.locator("#anytime-chart [role=status]").inner_text()
    best = [run.columns["plan_return"].max() for run in runs_of(several, "task-b") if run.agent == "ppo"]
    found = re.search(r"ppo (\S+) \[(\S+), (\S+)\]", told)
    assert found is not None
    assert number(found[1]) == pytest.approx((np.sort(best)[1:-1].mean() - 1) / 0.6, abs=2e-3)
    assert number(found[2]) <= number(found[1]) <= number(found[3])
    assert "random" not in told


def test_the_anytime_axis_is_logarithmic_or_linear(page: Page) -> None:
    def ticks() -> list[str]:
        return page.locator("#anytime-chart > svg g[aria-hidden] > text[text-anchor=middle]").all_text_contents()

    assert ticks() == ["1", "2", "5", "10", "20", "50", "100", "200"]
    choose(page, "anytime", "scope", "task-a")
    choose(page, "anytime", "x", "seconds")
    assert 0 < number(ticks()[0]) < 0.01
    choose(page, "anytime", "x", "evaluations")
    choose(page, "anytime", "scale", "linear")
    assert ticks()[0] == "0"
    assert len(set(np.diff([number(tick) for tick in ticks()]))) == 1


def pixels(page: Page) -> tuple[Any, Any]:
    """How the scatter's axes map numbers to pixels, read off its ticks."""
    ticks = page.locator("#plans-chart > svg g[aria-hidden] > text:not(.note)").all()
    found: dict[str, list[tuple[float, float]]] = {"end": [], "middle": []}
    for tick in ticks:
        side = tick.get_attribute("text-anchor") or ""
        where = float(tick.get_attribute("x" if side == "middle" else "y") or 0) - (4 if side == "end" else 0)
        found[side].append((number(tick.text_content() or ""), where))
    (across, x), (up, y) = (np.array(found[side]).T for side in ("middle", "end"))
    return np.poly1d(np.polyfit(across, x, 1)), np.poly1d(np.polyfit(up, y, 1))


def test_the_hovered_plan_is_the_one_in_the_data(page: Page, several: Path) -> None:
    runs = runs_of(several, "task-a")
    metric, macs, widths, worth = (
        np.concatenate([run.columns[name] for run in runs]) for name in ("metric", "macs", "widths", "plan_return")
    )
    owner = np.repeat(np.arange(len(runs)), [run.evaluated for run in runs])
    to_x, to_y = pixels(page)
    x, y = to_x(macs / 1_000_000), to_y(metric)
    box = page.locator("#plans-chart").bounding_box()
    assert box is not None
    drawn = metric > 0.75 * 0.95
    for wanted in np.random.default_rng(0).choice(np.flatnonzero(drawn), 12, replace=False):
        page.locator("#plans-title").scroll_into_view_if_needed()
        box = page.locator("#plans-chart").bounding_box()
        assert box is not None
        at = x[wanted] + 2, y[wanted] - 1
        page.mouse.move(box["x"] + at[0], box["y"] + at[1])
        tip = page.locator("#plans-chart .tip")
        row = int(tip.get_attribute("data-row") or -1)
        distance = np.hypot(x - at[0], y - at[1])
        assert distance[row] <= distance[drawn].min() + 0.7  # ticks are read to a fraction of a pixel
        text = tip.inner_text()
        assert f"{runs[owner[row]].agent}, seed {runs[owner[row]].seed}, plan " in text.replace("\n", "")
        assert f"{metric[row]:.4f}" in text
        assert f"{macs[row]:,} (" in text
        found = re.search(r"return\s+(\S+)", text)
        assert found is not None
        assert number(found[1]) == pytest.approx(worth[row], abs=6e-4)
        assert "keeps " + " · ".join(map(str, widths[row])) in text
        ring = page.locator("#plans-chart circle")
        assert float(ring.get_attribute("cx") or 0) == pytest.approx(x[row], abs=0.7)
        assert float(ring.get_attribute("cy") or 0) == pytest.approx(y[row], abs=0.7)


def test_cost_range_and_agents_change_what_the_scatter_shows(page: Page, several: Path) -> None:
    lead = page.locator("#plans-lead")
    expect(lead).to_contain_text("8,000 plans of task-a")
    choose(page, "plans", "cost", "params")
    expect(page.locator("#plans-chart")).to_contain_text("parameters relative to dense")
    choose(page, "plans", "range", "close")
    expect(lead).to_contain_text("are left out")
    page.locator("#plans-agents button", has_text="none").click()
    expect(lead).to_contain_text("0 plans")
    page.locator("#plans-agents input[data-agent=ppo]").check()
    expect(lead).to_contain_text("2,000 plans")
    choose(page, "plans", "task", "1")
    expect(lead).to_contain_text("task-b")
    shown = opened_front(page)
    assert {line[4] for line in shown} == {"ppo"}
    runs = [run for run in runs_of(several, "task-b") if run.agent == "ppo"]
    params, metric = (np.concatenate([run.columns[name] for run in runs]) for name in ("params", "metric"))
    best = front(params, metric)
    assert [number(line[0]) for line in shown] == params[best].tolist()
    assert [number(line[2]) for line in shown] == pytest.approx(metric[best], abs=5e-5)


def test_the_front_is_walked_and_its_plans_opened_with_keys_alone(page: Page, several: Path) -> None:
    runs = runs_of(several, "task-a")
    page.locator("#plans-chart [tabindex]").focus()
    page.keyboard.press("Home")
    told = page.locator("#plans-chart [role=status]").inner_text()
    cheapest = min(float(run.columns["macs"].min()) for run in runs)
    assert f"at {100 * cheapest / 1_000_000:.0f}\u00a0% of the MACs" in told
    page.keyboard.press("ArrowRight")
    assert page.locator("#plans-chart [role=status]").inner_text() != told
    page.keyboard.press("End")
    most = max(float(run.columns["metric"].max()) for run in runs)
    assert f"accuracy {most:.4f}" in page.locator("#plans-chart [role=status]").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#episode-step")).to_be_focused()
    expect(page.locator("#episodes-told")).to_contain_text(f"accuracy {most:.4f}")
    page.keyboard.press("Home")
    expect(page.locator("#episodes-told")).to_contain_text("Start: the dense network")


def test_an_episode_is_stepped_through_group_by_group(page: Page, several: Path) -> None:
    run = next(run for run in runs_of(several, "task-a") if run.agent == "sac" and run.seed == 3)
    page.locator("#episode-run").select_option(label="sac, seed 3")
    best = int(run.columns["plan_return"].argmax())
    assert page.locator("#episode-number").input_value() == str(run.columns["episode"][best])
    page.locator("#episode-number").fill("7")
    page.locator("#episode-number").press("Enter")
    first = 6 * len(GROUPS)
    for step in range(1, len(GROUPS) + 1):
        page.locator("#episode-step").fill(str(step))
        row = first + step - 1
        cells = rows(page, "episodes-table")[step - 1]
        before = 0.0 if step == 1 else run.columns["episode_return"][row - 1]
        width = run.columns["widths"][row][step - 1]
        assert cells[:3] == [GROUPS[step - 1], f"{width} of {SIZES[step - 1]}", f"{100 * (1 - width / SIZES[step - 1]):.0f}\u00a0%"]
        assert number(cells[3]) == pytest.approx(run.columns["metric"][row], abs=5e-5)
        assert number(cells[5]) == pytest.approx(run.columns["episode_return"][row] - before, abs=6e-4)
        assert number(cells[6]) == pytest.approx(run.columns["episode_return"][row], abs=6e-4)
    page.locator("#episode-back").click()
    assert page.locator("#episode-step").input_value() == str(len(GROUPS) - 1)
    expect(page.locator("#episodes-table tr.now th")).to_have_text(GROUPS[-2])


def test_a_plan_measured_at_the_end_of_the_round_says_so(page: Page) -> None:
    page.locator("#episode-run").select_option(label="random, seed 0")
    page.locator("#episode-step").fill("1")
    expect(page.locator("#episodes-told")).to_contain_text("Measured at the end of the round")
