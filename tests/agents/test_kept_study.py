"""The studies that are kept in `agents/studies`: what they say, and what the page says of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from agents.registry import make_agent
from reptile_env.tasks import registry
from tests.agents.test_tune import trials

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "agents" / "studies").iterdir())
each = pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").open(encoding="utf-8")))


@each
def test_networks_and_seeds_are_others_than_those_of_reports(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["study"]["agent"] == folder.name
    assert {registry.task_spec(name).split for name in run["study"]["tasks"]} == {"train"}
    assert run["options"]["seed"] >= 1000


@each
def test_the_table_has_the_trials_of_the_log_and_the_shipped_setting_first(folder: Path) -> None:
    rows = table(folder)
    assert [float(row["value"]) for row in rows] == pytest.approx([value for _, value in trials(folder, folder.name)], abs=1e-6)
    shipped = make_agent(folder.name).settings
    names = [name for name in rows[0] if name not in ("trial", "value")]
    assert {name: rows[0][name] for name in names} == {name: str(shipped[name]) for name in names}


@each
def test_the_page_tells_what_came_of_it(folder: Path) -> None:
    section = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8").split("## Tuning")[1].split("\n## ")[0]
    text = " ".join(section.split())
    told = re.findall(rf"`agents/studies/{folder.name}` tried (\d+) settings", text)
    values = sorted((float(row["value"]) for row in table(folder)[1:]), reverse=True)
    first = float(table(folder)[0]["value"])
    assert told == [str(len(values) + 1)]
    (numbers,) = re.findall(r"the shipped one scores (\.\d{3}), the best two others (\.\d{3}) and (\.\d{3})", text)
    assert [float(number) for number in numbers] == pytest.approx([first, *values[:2]], abs=0.0005001)
