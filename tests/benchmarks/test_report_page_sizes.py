"""The report's page in a real browser, of hardly any data and of a great deal."""

from __future__ import annotations

import os
import re
import statistics
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from benchmarks.results import Run
from benchmarks.statistics.pareto import front
from tests.pages import NEEDS_BROWSER, made_page, number, opened, opened_front, runs_of
from tests.results import failed_run, made_run, many_runs, with_returns

pytestmark = NEEDS_BROWSER

# From an event to the frame that shows what came of it.
TIMED = """async ([selector, act]) => {
  const times = [], target = document.querySelector(selector), box = target.getBoundingClientRect();
  for (let i = 0; i < 9; i++) {
    const start = performance.now();
    if (act === "move") {
      const place = { clientX: box.left + box.width * (0.25 + 0.05 * i), clientY: box.top + box.height * 0.2, bubbles: true };
      target.dispatchEvent(new PointerEvent("pointermove", place));
    } else target.click();
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
    times.push(performance.now() - start);
  }
  return times;
}"""


def test_a_page_of_some_plans_says_so_and_still_has_the_whole_front(browser: Browser, tmp_path: Path) -> None:
    path = made_page(tmp_path, many_runs(tasks=["task-a"]), plans=1500)
    page, wrong = opened(browser, path)
    found = re.search(r"([\d,]+) of 8,000 plans shown", page.locator("#plans-lead").inner_text())
    assert found is not None
    assert 500 < number(found[1]) <= 1500
    runs = runs_of(path, "task-a")
    macs, metric = (np.concatenate([run.columns[name] for run in runs]) for name in ("macs", "metric"))
    owner = np.repeat(np.arange(len(runs)), [run.evaluated for run in runs])
    plan = np.concatenate([run.columns["evaluation"] for run in runs])
    best = front(macs, metric)
    shown = [(number(line[0]), line[4], int(line[5]), int(line[6])) for line in opened_front(page)]
    assert shown == [(macs[row], runs[owner[row]].agent, runs[owner[row]].seed, plan[row]) for row in best]
    page.locator("#episode-run").select_option(label="sac, seed 3")
    expect(page.locator("#episode-count")).to_have_text(re.compile(r"of (\d+) \(\1 of 100 episodes shown\)"))
    assert wrong == []
    page.close()


def test_few_runs_make_no_winner_however_far_apart_they_are(browser: Browser, tmp_path: Path) -> None:
    runs = [
        with_returns([best + 0.01 * seed], agent=agent, seed=seed) for agent, best in (("a", 1.5), ("b", 1.0)) for seed in range(4)
    ]
    page, wrong = opened(browser, made_page(tmp_path, runs))
    expect(page.locator("#scores-verdict")).to_contain_text("fewer than five runs of a task are too narrow")
    assert wrong == []
    page.close()


def browser_seconds() -> float:
    """CPU time that the browser has used so far: all processes that come from this one."""
    spent, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process that has just ended
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            spent[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(spent.get(pid, 0.0) for pid in ours - {os.getpid()})


def test_fifty_thousand_plans_are_drawn_soon_and_answer_at_once(browser: Browser, tmp_path: Path) -> None:
    skills = {"cma-es": 0.6, "ppo": 0.2, "random": 0.0, "sac": 0.5, "td3": 0.4}
    runs = [made_run(agent, "task-a", seed, 2000, skill) for agent, skill in skills.items() for seed in range(5)]
    assert sum(run.evaluated for run in runs) == 50_000
    path = made_page(tmp_path, runs)
    used = [browser_seconds()]
    page, wrong = opened(browser, path)
    used.append(browser_seconds())
    expect(page.locator("#plans-lead")).to_contain_text("50,000 plans")
    paint = page.evaluate("performance.getEntriesByType('paint').find((e) => e.name === 'first-contentful-paint').startTime")
    drawn = page.evaluate("performance.getEntriesByName('plans-drawn')[0].startTime")
    wall = {"first paint": (paint, 3000), "all drawn": (drawn, 3000)}
    cpu = dict.fromkeys(wall, 1000 * (used[1] - used[0]))
    for what, selector, act in (
        ("hover", "#plans-chart .top [tabindex]", "move"),
        ("toggle an agent", "#plans-agents input[data-agent=ppo]", "click"),
        ("step", "#episode-back", "click"),
    ):
        before = browser_seconds()
        times = page.evaluate(TIMED, [selector, act])
        wall[what], cpu[what] = (statistics.median(times), 200), 1000 * (browser_seconds() - before) / len(times)
        if act == "move":
            expect(page.locator("#plans-chart .tip")).to_be_visible()
    told = ", ".join(f"{what} {ms:.0f} ms ({cpu[what]:.0f} ms of CPU)" for what, (ms, _) in wall.items())
    print(told)
    for what, (ms, limit) in wall.items():
        # A busy machine stretches what passes by the clock; the work itself stays what it is.
        assert min(ms, cpu[what]) < limit, told
    assert wrong == []
    page.close()


@pytest.mark.parametrize(
    "runs",
    [
        [failed_run()],
        [made_run()],
        [made_run(uniform_return=float("nan"), best_known_return=float("nan"), seed=seed) for seed in range(3)],
        [made_run(plans=0), made_run(agent="sac")],
    ],
    ids=["failed alone", "one run", "no anchors", "no plan"],
)
def test_little_data_is_shown_without_errors(browser: Browser, tmp_path: Path, runs: list[Run]) -> None:
    page, wrong = opened(browser, made_page(tmp_path, runs), 360)
    page.wait_for_timeout(100)
    expect(page.locator("#scores-lead")).not_to_be_empty()
    expect(page.locator("#scores-table")).not_to_contain_text("★")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert wrong == []
    page.close()
