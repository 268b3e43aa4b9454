"""The numbers that the pages quote are those of the published runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEADERBOARD = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
SUITES = dict(re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", LEADERBOARD, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| \**([\w-]+)\** \| (-?\d\.\d{3}) \| ", re.MULTILINE)
PAIR = re.compile(r"\| (-?\d\.\d{3}) \| (-?\d\.\d{3}) to (-?\d\.\d{3}) (?=\|)")  # of either split
NUMBER = r"(-?\d?\.\d{3})"
AMC = "**AMC**"  # what follows it in docs/agents.md comes from runs that are not published


def scores(suite: str) -> set[tuple[str, float]]:
    """Agent and score of every row of a suite."""
    return {(agent, float(score)) for agent, score in ROW.findall(SUITES[suite])}


@pytest.mark.parametrize("page", ["docs/agents.md", "docs/results.md"])
def test_scores_with_their_intervals_are_the_leaderboards(page: str) -> None:
    known = {tuple(map(float, numbers)) for numbers in PAIR.findall(LEADERBOARD)}
    assert len(known) > 30
    text = (ROOT / page).read_text(encoding="utf-8").split(AMC)[0]
    quoted = {tuple(map(float, found)) for found in re.findall(rf"{NUMBER}\s+\[{NUMBER},\s+{NUMBER}\]", text)}
    assert quoted - known == set()
    assert page != "docs/agents.md" or len(quoted) > 15


def test_the_readme_quotes_the_leaderboard() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"What came of it so far(.*?)\n\n", text, re.DOTALL)
    named = re.findall(rf"(PPO|SAC|DQN|random search|coordinate ascent|evolution|CMA-ES) \((?:score )?{NUMBER}\)", quoted)
    short = {"random search": "random"}
    assert len(named) == 7
    assert {(short.get(name, name).lower().replace(" ", "-"), float(number)) for name, number in named} <= scores("core-v1")
    capped = re.findall(rf"{NUMBER}", quoted.split("MACs it is")[1])
    agents = ("ppo", "sac", "dqn", "random", "coordinate-ascent", "evolution", "cma-es")
    assert dict(zip(agents, map(float, capped), strict=True)).items() <= scores("budget-v1")


def test_the_results_page_counts_what_there_is() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^## (\S+):.*?([\d,]+) runs", text, re.MULTILINE | re.DOTALL))
    there = dict(re.findall(r"^## (\S+)$\s+([\d,]+) runs", LEADERBOARD, re.MULTILINE))
    assert told == there
