"""The published runs in `benchmarks/results`: validated whole, told by the leaderboard, and a sample replayed here once more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks.execution import git_revision
from benchmarks.leaderboard import PAGE, Validated, page
from benchmarks.results_folder import SUFFIX, VALIDATION_FILE, files_of
from benchmarks.validate import validate_folder

ROOT = Path(__file__).parents[2]
# Another sample with every commit, so that none can be prepared for; the same one for everybody who tests that commit.
SEED = int((git_revision() or "1")[:8], 16)
FOLDERS = sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*/suite.json"))
MANY = 500  # runs, which a minute or more goes by with


def _case(folder: Path) -> ParameterSet:
    marks = [pytest.mark.slow] if sum(1 for _ in folder.glob(f"*/*{SUFFIX}")) > MANY else []
    return pytest.param(folder, id=folder.name, marks=marks)


each = pytest.mark.parametrize("folder", [_case(folder) for folder in FOLDERS])


def test_there_are_some() -> None:
    assert "table-v1" in {folder.name for folder in FOLDERS}


@each
def test_every_run_was_validated_and_is_as_it_was_then(folder: Path) -> None:
    validated = Validated.read(folder)
    assert validated.left_out == 0
    assert validated.validation["failed"] == []
    runs = [path for path in files_of(folder) if path.suffix == SUFFIX]
    assert len(validated.runs) == len(runs) > 0
    assert sum(path.stat().st_size for path in runs) < 30e6


@each
def test_a_sample_holds_here_too(folder: Path) -> None:
    before = (folder / VALIDATION_FILE).read_bytes()
    found = validate_folder(folder, sample=6, seed=SEED, workers=2)
    assert len(found.verdicts) == 6
    assert [verdict.problems for verdict in found.verdicts.values() if not verdict.ok] == []
    assert (folder / VALIDATION_FILE).read_bytes() == before


@each
@pytest.mark.slow  # half a minute or more a folder
def test_a_larger_sample_holds_here_too(folder: Path) -> None:
    found = validate_folder(folder, sample=40, seed=SEED + 1, workers=2)
    assert [(name, verdict.problems) for name, verdict in found.verdicts.items() if not verdict.ok] == []


@pytest.mark.slow  # two minutes
def test_the_leaderboard_is_made_from_them() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    named = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert sorted(named) == [json.loads((folder / "suite.json").read_text())["suite"] for folder in FOLDERS]
    assert text == page([Validated.read(ROOT / "benchmarks" / "results" / name) for name in named])
