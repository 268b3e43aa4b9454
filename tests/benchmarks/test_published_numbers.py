"""The numbers that the pages quote are those of the published runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report.cases import by_suite
from benchmarks.results import read_run
from benchmarks.statistics.intervals import pooled_iqm

ROOT = Path(__file__).parents[2]
LEADERBOARD = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
SUITES = dict(re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", LEADERBOARD, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| \**([\w-]+)\** \| (-?\d\.\d{3}) \| ", re.MULTILINE)
PAIR = re.compile(r"\| (-?\d\.\d{3}) \| (-?\d\.\d{3}) to (-?\d\.\d{3}) (?=\|)")  # of either split
NUMBER = r"(-?\d?\.\d{3})"


def scores(suite: str) -> set[tuple[str, float]]:
    """Agent and score of every row of a suite."""
    return {(agent, float(score)) for agent, score in ROW.findall(SUITES[suite])}


@pytest.mark.parametrize("page", ["docs/agents.md", "docs/results.md"])
def test_scores_with_their_intervals_are_the_leaderboards(page: str) -> None:
    known = {tuple(map(float, numbers)) for numbers in PAIR.findall(LEADERBOARD)}
    assert len(known) > 30
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"\n## Tuning\n.*?\n## ", "\n## ", text, flags=re.DOTALL)  # of studies, see tests/agents/test_kept_study.py
    quoted = {tuple(map(float, found)) for found in re.findall(rf"{NUMBER}\s+\[{NUMBER},\s+{NUMBER}\]", text)}
    assert quoted - known == set()
    assert page != "docs/agents.md" or len(quoted) > 15


def test_the_readme_quotes_the_leaderboard() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"What came of it so far(.*?)\n\n", text, re.DOTALL)
    quoted = " ".join(quoted.split())
    named = re.findall(rf"(PPO|SAC|DQN|random search|coordinate ascent|evolution|CMA-ES) \((?:score )?{NUMBER}\)", quoted)
    short = {"random search": "random"}
    assert len(named) == 7
    assert {(short.get(name, name).lower().replace(" ", "-"), float(number)) for name, number in named} <= scores("core-v1")
    capped = re.findall(rf"{NUMBER}", quoted.split("MACs it is")[1])
    agents = ("ppo", "sac", "dqn", "random", "coordinate-ascent", "evolution", "cma-es")
    assert dict(zip(agents, map(float, capped), strict=True)).items() <= scores("budget-v2")


def test_the_results_page_counts_what_there_is() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^## (\S+):.*?([\d,]+) runs", text, re.MULTILINE | re.DOTALL))
    there = dict(re.findall(r"^## (\S+)$\s+([\d,]+) runs", LEADERBOARD, re.MULTILINE))
    assert told == there


def test_what_is_said_of_the_first_300_plans_is_so() -> None:
    text = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    (told,) = re.findall(rf"after\s+300\s+plans\s+it\s+has\s+{NUMBER},\s+random's\s+{NUMBER}\s+and\s+CMA-ES's\s+{NUMBER}", text)
    agents = ("amc", "random", "cma-es")
    folder = ROOT / "benchmarks" / "results" / "core-v1"
    (suite,) = by_suite([read_run(path) for agent in agents for path in sorted((folder / agent).glob("*.run"))])
    for agent, number in zip(agents, told, strict=True):
        strata = [[case.anchors.score(case.progress(run))[299] for run in case.runs if run.agent == agent] for case in suite.cases]
        assert float(pooled_iqm([np.array(scores) for scores in strata])) == pytest.approx(float(number), abs=0.0005001)
