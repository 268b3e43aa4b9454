"""The studies of one agent by family of networks in `agents/studies/families`: what they say, and what is shipped of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents.confirm import Gain, gain_of, read_rows
from agents.sections import Sections
from agents.space import read_space
from reptile_env.tasks import registry
from tests.agents.test_kept_study import ROOT, confirmed, table

AGENT = "ppo"
FOLDERS = sorted(path.parent for path in (ROOT / "agents" / "studies" / "families" / AGENT).glob("*/run.json"))
SECTION = "### By family of networks"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def pooled() -> Gain:
    """What the families' own best settings gain elsewhere, over the networks of all families that found a better one."""
    return gain_of([row for folder in FOLDERS if confirmed(folder) for row in read_rows(folder / "confirmation")])


def told() -> dict[str, list[str]]:
    """The rows of the page's table, by family; `all` for the last one."""
    section = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8").split(SECTION)[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip("`"): cells[1:] for cells in rows[1:]}


def test_there_are_some_and_one_of_each_kind() -> None:
    assert {folder.name for folder in FOLDERS} > {"cnn", "mlp", "transformer"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_of_training_networks_of_that_family_and_looks_at_others_again(folder: Path) -> None:
    study, rows = read(folder / "run.json"), table(folder)
    assert study["study"]["agent"] == AGENT
    chosen_on = study["study"]["tasks"]
    assert {(registry.task_spec(name).family, registry.task_spec(name).split) for name in chosen_on} == {(folder.name, "train")}
    best = max(rows, key=lambda row: float(row["value"]))
    if confirmed(folder) is None:
        assert best == rows[0]
        return
    again = read(folder / "confirmation" / "run.json")
    seen_on = again["tasks"]
    assert not set(chosen_on) & set(seen_on)
    assert {(registry.task_spec(name).family, registry.task_spec(name).split) for name in seen_on} == {(folder.name, "train")}
    assert again["seed"] >= study["options"]["seed"] + study["study"]["seeds"] >= 1000
    assert {name: str(value) for name, value in again["best"].items()} == {name: best[name] for name in again["best"]}
    ran = [(row["task"], int(row["seed"])) for row in read_rows(folder / "confirmation")]
    assert ran == [(task, again["seed"] + n) for task in seen_on for n in range(again["seeds"])]


def test_they_are_shipped_where_they_gain_over_the_networks_of_all_families() -> None:
    shipped, names = Sections.read(ROOT / "agents" / "hyperparameters" / f"{AGENT}.yaml"), read_space(AGENT)
    for folder in FOLDERS:
        rows = table(folder)
        best = max(rows, key=lambda row: float(row["value"]))
        chosen = best if pooled().low > 0 else rows[0]
        on = shipped.of(read(folder / "run.json")["study"]["tasks"][0])
        assert {name: chosen[name] for name in names} == {name: str(on[name]) for name in names}


def test_the_page_tells_them() -> None:
    page = told()
    assert list(page) == [*(folder.name for folder in FOLDERS), "all"]
    for folder in FOLDERS:
        rows, gain = table(folder), confirmed(folder)
        first, best, *elsewhere = page[folder.name]
        assert float(first) == pytest.approx(float(rows[0]["value"]), abs=0.0005001)
        assert float(best) == pytest.approx(max(float(row["value"]) for row in rows[1:]), abs=0.0005001)
        if gain is None:
            assert elsewhere == ["", "", ""]
        else:
            assert [float(text) for text in elsewhere] == pytest.approx([*gain[:3]], abs=0.0005001)
    *_, shipped, other, difference = page["all"]
    numbers = [float(text) for text in (shipped, other, *re.findall(r"[+-]?\.\d{3}", difference))]
    assert numbers == pytest.approx(list(pooled()), abs=0.0005001)
