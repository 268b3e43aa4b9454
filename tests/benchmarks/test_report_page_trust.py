"""The report's page in a real browser: how far its numbers can be trusted, and what it claims."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.report.command import PAGE
from benchmarks.report.explanations import Explanations, best_plans
from tests.pages import NEEDS_BROWSER, made_page, number, opened, opened_front, rows
from tests.reports import report, suite_of, validated
from tests.results import GROUPS, SIZES, made_run, many_runs, with_returns, write_runs

pytestmark = NEEDS_BROWSER

MISSING = "\N{EN DASH}"


def reported(folder: Path, runs: list[Any], verdicts: dict[Any, dict[str, Any]]) -> Path:
    """The page of validated runs."""
    validated(write_runs(folder / "results", runs), verdicts)
    assert report(folder / "results", "--out", folder / "report", "--no-explain", "--no-figures") == 0
    return folder / "report" / PAGE


def test_a_page_of_runs_that_were_not_validated_says_so(page: Page) -> None:
    for place in ("#validation", "#run-list"):
        expect(page.locator(place)).to_contain_text("NOT validated: run `python -m benchmarks validate")
    expect(page.locator("#refused")).to_be_hidden()


def test_refused_runs_are_warned_of_and_marked_wherever_runs_are_listed(browser: Browser, tmp_path: Path) -> None:
    good, bad = made_run("sac"), made_run("ppo", skill=2.0)
    problem = {"evaluation": None, "what": "git", "expected": "<b>", "received": None}
    path = reported(tmp_path, [good, bad], {good: {}, bad: {"ok": False, "problems": [problem]}})
    page, wrong = opened(browser, path)
    expect(page.locator("#validation")).to_contain_text("1 of 2 runs confirmed by validation (on 2026-01-02")
    expect(page.locator("#refused")).to_contain_text("1 run was refused by validation")
    expect(page.locator("#failures-list li")).to_have_text("ppo on task-a, seed 0: git: expected '<b>', received None")
    listed = page.locator("#episode-run option").all_inner_texts()
    assert listed == ["ppo, seed 0, refused by validation", "sac, seed 0"]
    agents = {line[4] for line in opened_front(page)}
    assert "ppo, refused by validation" in agents
    assert "ppo" not in agents
    expect(page.locator("#why-told")).to_contain_text(re.compile(r"ppo \(seed 0, plan \d+, refused by validation\)"))
    page.locator("#plans-chart [tabindex]").focus()
    page.keyboard.press("End")
    expect(page.locator("#plans-chart [role=status]")).to_contain_text("refused by validation")
    assert wrong == []
    page.close()


def test_the_score_on_test_stands_beside_the_score(browser: Browser, tmp_path: Path) -> None:
    runs = [with_returns([1.3 + 0.1 * seed], agent=agent, seed=seed) for agent in ("a", "b", "c") for seed in range(2)]
    test = {"uniform": 0.9, "best": 1.2, "policy": None}
    known = {run: {"test": test | {"best": 1.2 + 0.06 * run.seed}} for run in runs if run.agent == "a"}
    known |= {runs[2]: {"test": test}}
    page, wrong = opened(browser, reported(tmp_path, runs, known))
    shown = {line[0]: line[5] for line in rows(page, "scores-table")}
    found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", shown["a"])
    assert found is not None
    assert [number(each) for each in found.groups()] == pytest.approx([0.55, 0.5, 0.6])
    assert (shown["b"], shown["c"]) == ("0.500 n=1", MISSING)
    expect(page.locator("#scores-notes")).to_contain_text("chose by")
    assert wrong == []
    page.close()


def test_agents_that_draw_nothing_have_no_interval_and_no_significance(browser: Browser, tmp_path: Path) -> None:
    fixed = [with_returns([best], agent=agent, seed=seed) for agent, best in (("lamp", 1.1), ("uniform", 1.0)) for seed in range(5)]
    drawn = [with_returns([1.3 + 0.01 * seed], agent="sac", seed=seed) for seed in range(5)]
    page, wrong = opened(browser, made_page(tmp_path, [*fixed, *drawn]))
    shown = {line[0]: line for line in rows(page, "scores-table")}
    assert [shown[agent][2] for agent in ("lamp", "uniform")] == [MISSING, MISSING]
    assert [shown[agent][4] for agent in ("lamp", "uniform", "sac ★")] == ["5, alike", "5, alike", "5"]
    page.locator("#improvement summary").click()
    bold = page.locator("#improvement-table b").evaluate_all("all => all.map((each) => each.closest('td').title)")
    assert {title.split(":")[0] for title in bold} == {
        *("sac beats lamp", "lamp beats sac", "sac beats uniform", "uniform beats sac"),
    }
    assert wrong == []
    page.close()


def test_best_returns_are_hidden_where_tasks_are_together(page: Page) -> None:
    def heads() -> list[str]:
        return page.locator("#scores-table thead th").all_inner_texts()

    assert "best" not in heads()
    page.locator("#scores-choices select[data-key=scope]").select_option("task-b")
    assert "best" in heads()
    assert re.fullmatch(r"0\.\d+ \[0\.\d+, 0\.\d+\]", rows(page, "scores-table")[0][-1])  # hypervolume, with its interval
    expect(page.locator("#scores-notes")).to_contain_text("Hypervolume: the area that a run's plans dominate")


def test_the_picture_of_the_intervals_can_be_zoomed(browser: Browser, tmp_path: Path) -> None:
    values = {"a": 1.50, "b": 1.49, "c": 1.2, "d": -9.0}
    runs = [with_returns([best + 0.005 * seed], agent=name, seed=seed) for name, best in values.items() for seed in range(5)]
    page, wrong = opened(browser, made_page(tmp_path, runs))
    width = "document.querySelector('#scores-table tr[data-agent=a] .interval rect').width.baseVal.value"
    before = page.evaluate(width)
    page.locator("#scores-choices select[data-key=zoom]").select_option("best")
    assert page.evaluate(width) > max(20, 10 * before)
    edge = page.locator("#scores-table tr[data-agent=d] .interval")
    expect(edge.locator("path")).to_have_count(1)  # further left than the picture
    expect(edge.locator("rect")).to_have_count(0)
    assert wrong == []
    page.close()


def test_thirteen_agents_fit_and_narrow_pages_say_that_there_is_more(browser: Browser, tmp_path: Path) -> None:
    names = [f"an-agent-of-number-{i}" for i in range(13)]
    runs = [with_returns([1.2 + 0.01 * i + 0.1 * seed], agent=name, seed=seed) for i, name in enumerate(names) for seed in range(2)]
    path = made_page(tmp_path, runs)
    for width, wide in ((1280, False), (390, True)):
        page, wrong = opened(browser, path, width)
        page.locator("#improvement summary").click()
        box = page.locator("#improvement .scroll")
        assert box.evaluate("e => e.scrollWidth > e.clientWidth") is wide
        hint = page.locator("#improvement .hint")
        expect(hint).to_be_visible() if wide else expect(hint).to_be_hidden()
        heights = page.locator(".agents input").evaluate_all("all => all.map((each) => each.getBoundingClientRect().height)")
        assert min(heights) >= 24
        assert wrong == []
        page.close()


def test_why_claims_no_more_than_was_measured(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run()
    plan = best_plans(suite_of(run).cases)[0]
    kept = plan.levels[0]

    def group(i: int, **replaced: Any) -> dict[str, Any]:
        changes = {f"{what}_{each}": -0.1 for what in ("undo", "deeper") for each in ("metric", "cost", "return")}
        others = {f"{what}_{each}": None for what in ("bits", "rank") for each in ("metric", "cost", "return")}
        told = {"group": GROUPS[i], "kept": kept[i], "size": SIZES[i], "sensitivity": 0.1, "saved": 0.1, "reason": "so"}
        return told | changes | others | {"deeper_kept": kept[i] - 1 - i, "fewer_bits": None, "lower_rank": None} | replaced

    def shown(folder: str, groups: list[dict[str, Any]]) -> tuple[str, list[str], str]:
        monkeypatch.setattr(Explanations, "of", lambda self, plan: (groups, None))
        page, wrong = opened(browser, made_page(tmp_path / folder, [run]))
        told, first = page.locator("#why-told").inner_text(), rows(page, "why-table")[0]
        heads = page.locator("#why-table thead").inner_text()
        assert wrong == []
        page.close()
        return told, first, heads

    told, first, heads = shown("channels", [group(i) for i in range(4)])
    assert "Neither giving a group back whole, nor cutting one step deeper (1 to 4 channels) helps." in told
    assert "were not measured" in told
    assert first[5] == str(kept[0] - 1)
    assert "fewer bits" not in heads
    lower = {"fewer_bits": 4, "bits_metric": -0.1, "bits_cost": -0.1, "bits_return": -0.2}
    lower |= {"lower_rank": 0.9, "rank_metric": 0.1, "rank_cost": -0.1, "rank_return": -0.2}
    told, first, heads = shown("more", [group(i, **lower) for i in range(4)])
    assert "nor one level fewer bits, nor a rank one step lower helps" in told
    assert (first[9], first[13]) == ("4", "90\u00a0%")
    assert "fewer bits" in heads
    told, *_ = shown("better", [group(0, **lower | {"rank_return": 0.3}), *(group(i, **lower) for i in range(1, 4))])
    assert "1 group of 4 could be changed for the better" in told


def test_what_is_measured_once_a_round_is_explained_where_it_is_shown(browser: Browser, tmp_path: Path) -> None:
    page, wrong = opened(browser, made_page(tmp_path, many_runs(plans=20, seeds=1)))
    for run, told in (("random, seed 0", True), ("sac, seed 0", False)):
        page.locator("#episode-run").select_option(label=run)
        note = page.locator("#episodes-round")
        expect(note).to_be_visible() if told else expect(note).to_be_hidden()
    assert wrong == []
    page.close()


def test_what_an_example_is_worth_is_told_for_a_task(browser: Browser, tmp_path: Path) -> None:
    run = made_run(plans=60)
    run.columns["metric"][:] = [(180 + i) / 250 for i in range(60)]
    page, wrong = opened(browser, made_page(tmp_path, [run]))
    found = re.search(r"about (\S+) of score on task-a", page.locator("#scores-notes").inner_text())
    assert found is not None
    assert math.isclose(number(found[1]), 0.9 / 250 / 0.95 / 0.05 / 0.6, abs_tol=5e-5)
    assert wrong == []
    page.close()
