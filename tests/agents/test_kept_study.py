"""The studies that are kept in `agents/studies`: what they say, what is shipped of them, and what the page says."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from agents.confirm import Gain, gain_of, read_rows
from agents.registry import make_agent
from agents.space import SPACES, read_space
from reptile_env.tasks import registry
from tests.agents.test_tune import trials

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path.parent for path in (ROOT / "agents" / "studies").glob("*/run.json"))
each = pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)


def table(folder: Path) -> list[dict[str, str]]:
    """The settings that were tried, the shipped one first; those whose runs failed, which have no value, are left out."""
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["value"] != "nan"]


def confirmed(folder: Path) -> Gain | None:
    """What the best setting gains elsewhere; None where nothing was better than the shipped one."""
    return gain_of(read_rows(folder / "confirmation")) if (folder / "confirmation").exists() else None


@each
def test_networks_and_seeds_are_others_than_those_of_reports(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["study"]["agent"] == folder.name
    assert {registry.task_spec(name).split for name in run["study"]["tasks"]} == {"train"}
    assert run["options"]["seed"] >= 1000


@each
def test_a_best_setting_was_tried_again_on_networks_and_seeds_of_its_own(folder: Path) -> None:
    study = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    rows = table(folder)
    if confirmed(folder) is None:
        assert max(float(row["value"]) for row in rows) == float(rows[0]["value"])
        return
    run = json.loads((folder / "confirmation" / "run.json").read_text(encoding="utf-8"))
    assert not set(run["tasks"]) & set(study["study"]["tasks"])
    assert {registry.task_spec(name).split for name in run["tasks"]} == {"train"}
    assert run["seed"] >= study["options"]["seed"] + study["study"]["seeds"]
    best = max(rows, key=lambda row: float(row["value"]))
    for setting, row in ((run["shipped"], rows[0]), (run["best"], best)):
        assert {name: str(value) for name, value in setting.items()} == {name: row[name] for name in setting}
    ran = [(row["task"], int(row["seed"])) for row in read_rows(folder / "confirmation")]
    assert ran == [(task, run["seed"] + n) for task in run["tasks"] for n in range(run["seeds"])]


@each
def test_the_table_has_the_trials_of_the_log(folder: Path) -> None:
    rows = table(folder)
    assert [float(row["value"]) for row in rows] == pytest.approx([value for _, value in trials(folder, folder.name)], abs=1e-6)


@each
def test_what_is_shipped_is_the_first_setting_or_a_better_one_that_was_confirmed(folder: Path) -> None:
    rows, gain = table(folder), confirmed(folder)
    chosen = max(rows, key=lambda row: float(row["value"])) if gain is not None and gain.low > 0 else rows[0]
    settings, names = make_agent(folder.name).settings, read_space(folder.name)
    assert {name: chosen[name] for name in names} == {name: str(settings[name]) for name in names}


def told() -> dict[str, list[str]]:
    """The rows of the page's table of studies, by agent."""
    section = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8").split("## Tuning")[1].split("\n##")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_the_page_lists_all_studies_and_the_agents_without_one() -> None:
    assert sorted(told()) == [folder.name for folder in STUDIES]
    section = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8").split("## Tuning")[1].split("\n## ")[0]
    (without,) = re.findall(r"No study is kept of ([^.]*)\.", " ".join(section.split()))
    spaces = {line.split(":")[0] for line in SPACES.read_text(encoding="utf-8").splitlines() if re.match(r"[a-z]", line)}
    assert set(re.findall(r"`([a-z0-9-]+)`", without)) == spaces - set(told())


@each
def test_the_page_tells_what_came_of_it(folder: Path) -> None:
    rows, gain = table(folder), confirmed(folder)
    values = sorted((float(row["value"]) for row in rows[1:]), reverse=True)
    settings, first, others, shipped, best, difference, kept = told()[folder.name]
    assert int(settings) == len(rows)
    assert float(first) == pytest.approx(float(rows[0]["value"]), abs=0.0005001)
    assert [float(number) for number in others.split(", ")] == pytest.approx(values[:2], abs=0.0005001)
    if gain is None:
        assert [shipped, best, difference, kept] == ["", "", "", "the shipped one"]
        return
    numbers = [float(text) for text in (shipped, best, *re.findall(r"[+-]?\.\d{3}", difference))]
    assert numbers == pytest.approx(list(gain), abs=0.0005001)
    assert kept == ("the study's" if gain.low > 0 else "the shipped one")
