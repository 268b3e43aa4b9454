"""What validation has found of a suite's runs, read from ``validation.json`` beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.results import Run, run_path
from benchmarks.results_folder import VALIDATION_FILE
from benchmarks.verdicts import read_validation, unchanged

CONFIRMED, REFUSED, CHANGED, UNCHECKED = "confirmed", "refused", "changed since", "not checked"
# The plan whose return on the test split a track is about; the first that is known.
_PLANS = {"search": ("best",), "policy": ("policy",), "transfer": ("policy", "best")}


@dataclass(frozen=True)
class Check:
    """One validation.

    Attributes:
        date: when, YYYY-MM-DD.
        sample: how much of each run it looked at.
        runs: that it confirmed.
    """

    date: str
    sample: str
    runs: int


@dataclass(frozen=True)
class Validation:
    """What is known of a suite's runs; without arguments: nothing.

    Attributes:
        folder: of the results, as the reader named it.
        verdicts: by file, `CONFIRMED`, `REFUSED` or `CHANGED`.
        refusals: by file, the first thing in a refused run that was not confirmed.
        tests: by file, returns of its plans on the test split, on the run's own scale: ``best``, ``policy`` and ``uniform``.
        checks: those that confirmed a run.
    """

    folder: str = ""
    verdicts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    refusals: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tests: Mapping[str, Mapping[str, float | None]] = field(default_factory=lambda: MappingProxyType({}))
    checks: tuple[Check, ...] = ()

    @classmethod
    def read(cls, folder: Path, suite: str) -> Validation:
        """What lies in a folder of results.

        Raises:
            ValueError: its ``validation.json`` is damaged.
            OSError: it can't be read.
        """
        found = read_validation(folder, suite)
        try:
            same = unchanged(folder, found["rows"])
            verdicts = {name: _verdict(row, name in same) for name, row in found["rows"].items()}
            tests = {
                name: {plan: None if worth is None else float(worth) for plan, worth in row["test"].items()}
                for name, row in same.items()
                if verdicts[name] == CONFIRMED and row.get("test") is not None
            }
            refusals = {name: _refusal(row) for name, row in same.items() if verdicts[name] == REFUSED}
            counts = Counter(row["check"] for name, row in same.items() if verdicts[name] == CONFIRMED)
            checks = tuple(
                Check(str(found["checks"][number]["validated"])[:10], str(found["checks"][number]["sample"]), count)
                for number, count in sorted(counts.items())
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            mend = f"remove it and run `python -m benchmarks validate {folder}` again"
            raise ValueError(f"{folder / VALIDATION_FILE} is damaged ({type(error).__name__}: {error}); {mend}") from error
        return cls(str(folder), verdicts, refusals, tests, checks)

    def of(self, run: Run) -> str:
        """The verdict on a run: `CONFIRMED`, `REFUSED`, `CHANGED` or `UNCHECKED`."""
        return self.verdicts.get(_file(run), UNCHECKED)

    def refusal(self, run: Run) -> str:
        """Why a run was refused; empty where it was not."""
        return self.refusals.get(_file(run), "")

    def on_test(self, run: Run, track: str) -> float:
        """What the plan that a run is judged by returns on the test split; on the run's own scale, NaN where nobody measured it."""
        known = self.tests.get(_file(run), {})
        return next((worth for plan in _PLANS[track] if (worth := known.get(plan)) is not None), math.nan)

    def uniform_on_test(self, run: Run) -> float:
        """What the plan of the best uniform setting of a run's environment returns there, likewise."""
        uniform = self.tests.get(_file(run), {}).get("uniform")
        return math.nan if uniform is None else uniform

    def told(self, runs: Iterable[Run]) -> str:
        """In a sentence: how many of the runs that are done were confirmed, when, by what, and what of the others."""
        counts = Counter(self.of(run) for run in runs if run.status == "done")
        total = sum(counts.values())
        if total and not total - counts[UNCHECKED]:
            return f"NOT validated: run `python -m benchmarks validate {self.folder}`"
        checks = "; ".join(f"{each.runs:,} on {each.date}, {each.sample}" for each in self.checks)
        if len(self.checks) == 1:
            checks = f"on {self.checks[0].date}, {self.checks[0].sample}"
        confirmed = f"{counts[CONFIRMED]:,} of {total:,} runs confirmed by validation" + (f" ({checks})" if checks else "")
        others = [f"{counts[verdict]:,} {verdict}" for verdict in (REFUSED, CHANGED, UNCHECKED) if counts[verdict]]
        return ", ".join([confirmed, *others])


NOT_VALIDATED = Validation()


def _file(run: Run) -> str:
    return run_path(Path(), run.agent, run.task, run.seed).as_posix()


def _verdict(row: Mapping[str, Any], same: bool) -> str:
    if not same:
        return CHANGED
    return CONFIRMED if row["ok"] else REFUSED


def _refusal(row: Mapping[str, Any]) -> str:
    problems = row["problems"]
    if not problems:
        return "it says no more"
    first = problems[0]
    where = "" if first["evaluation"] is None else f"plan {first['evaluation']}: "
    more = f"; {len(problems) - 1:,} more" if len(problems) > 1 else ""
    return f"{where}{first['what']}: expected {first['expected']!r:.80}, received {first['received']!r:.80}{more}"
