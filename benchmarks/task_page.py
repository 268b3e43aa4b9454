"""``python -m benchmarks tasks-page``: docs/tasks.md from the registry, the references and the correlations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.correlations import FILE as CORRELATIONS
from reptile_env.tasks import registry

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
SUITES = {
    "core": "Data and checkpoints come with packages; a measurement takes milliseconds.",
    "real": "Data are read from the folder that `REPTILE_DATA` names, or downloaded once; networks are trained here or published.",
    "transfer": "Small networks of many kinds: agents train on one part and are scored on the other.",
}
INTRODUCTION = """# Tasks

Written by `python -m benchmarks tasks-page` from the registry and the calibration; `reptile_env.tasks()` gives most of it as rows.
`python -m benchmarks checkpoints NAME` trains a network again and calibrates it; with `--calibrate-only` numbers alone are found
again. Both write what they find into the repository, where `git diff` tells what has changed.

A return of 0 is the dense network and 1 the best uniform rate. **random** is the mean return of random plans and then the best of
200; **best** is the best plan known. **plan** is the time of a measurement of a whole plan, **step** that of a step of the
environment, which changes one group and measures; both in milliseconds, medians, one thread, on one machine (2 cores, CPU;
`python -m benchmarks times` measures them again). A dash: not calibrated yet. Under a budget the final MACs are capped at a
fraction of the dense network's, and random search fills that budget.
"""
# Why that task is the least; measured over the same hundred plans.
TREC = """Half of the random plans of `trec-transformer` have validation accuracies between .815 and .836: 433 questions
(standard error .018) can't tell them apart, and the official test questions mix the six classes in other shares.
"""


def page() -> str:
    """The page in Markdown."""
    rows = registry.tasks()
    parts = [INTRODUCTION]
    for suite, about in SUITES.items():
        members = [row for row in rows if row["suite"] == suite]
        if members:
            parts.append(f"## {suite.capitalize()} tasks\n\n{about}\n\n{_networks(members)}")
            if any(row["reported"] for row in members):
                parts.append(f"### Beside what others report, on test data\n\n{_reported(members)}")
            known = [row for row in members if registry.references().get(row["name"], {}).get("budgets")]
            if known:
                parts.append(
                    f"### Returns under a budget: best uniform / mean random / best of 200 / best known\n\n{_budgets(known)}"
                )
    if CORRELATIONS.exists():
        parts.append(_correlations(json.loads(CORRELATIONS.read_text(encoding="utf-8"))))
    sources = sorted({(row["data"], row["licence"]) for row in rows})
    parts.append("## Data and licences\n\n" + _table(["data", "licence"], [list(source) for source in sources]))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _networks(rows: list[dict[str, Any]]) -> str:
    head = ["name", "family", "groups", "params", "MACs", "valid", "test", "w", "uniform", "random", "best", "plan", "step"]
    lines = []
    for row in rows:
        known = registry.references().get(row["name"], {})
        drawn = known.get("random", {})
        lines.append(
            [
                f"`{row['name']}`" + (" (test)" if row["split"] == "test" else ""),
                row["family"],
                *(_whole(row[key]) for key in ("groups", "params", "macs")),
                *(_number(row[key], 3) for key in ("valid", "test")),
                _number(known.get("w"), 2),
                _number(row["uniform_rate"], 2),
                f"{_number(drawn.get('mean'), 2)} / {_number(drawn.get('best_of_200'), 2)}",
                _number(row["best_known"], 2),
                *(_number(row[key] and 1e3 * row[key], 1) for key in ("seconds", "step_seconds")),
            ]
        )
    return _table(head, lines)


def _reported(rows: list[dict[str, Any]]) -> str:
    lines = [[f"`{row['name']}`", _number(row["test"], 3), row["reported"]] for row in rows if row["reported"]]
    return _table(["name", "test here, not pruned", "reported"], lines)


def _budgets(rows: list[dict[str, Any]]) -> str:
    lines = []
    caps = sorted({cap for row in rows for cap in registry.references()[row["name"]]["budgets"]}, key=float)
    for row in rows:
        cells = []
        for cap in caps:
            entry = registry.references()[row["name"]]["budgets"].get(cap)
            numbers = entry and (
                entry["uniform"]["return"],
                entry["random"]["mean"],
                entry["random"]["best_of_200"],
                entry["best_known"]["return"],
            )
            cells.append(" / ".join(_number(number, 2) for number in numbers) if numbers else "-")
        lines.append([f"`{row['name']}`", *cells])
    return _table(["name", *(f"{float(cap):.0%}" for cap in caps)], lines)


def _correlations(entries: dict[str, Any]) -> str:
    lines = [
        [f"`{name}`", *(_number(entry.get(key), 2) for key in ("valid_test", "finetuned_return", "finetuned_metric"))]
        for name, entry in entries.items()
    ]
    counts = sorted({(entry["plans"], entry["finetune_steps"]) for entry in entries.values() if "finetune_steps" in entry})
    told = "; ".join(f"{plans} random plans, a fine-tune of {steps} steps" for plans, steps in counts)
    return (
        "## How far a validation return can be trusted\n\n"
        f"Spearman's rank correlation, by `python -m benchmarks correlations` ({told}): of\n"
        "the validation return with the test return; of the validation return with the metric after the fine-tune; of the metric\n"
        "before with the metric after it. A dash: not fine-tuned, which would take hours.\n\n"
        + _table(["task", "return, valid and test", "return and fine-tuned metric", "metric and fine-tuned metric"], lines)
        + f"\nAcross random plans the test split agrees ({_span(entries, 'valid_test')}, least on\n"
        f"`{min(entries, key=lambda name: entries[name]['valid_test'])}`).\n{TREC}The best plans of searches differ by a\n"
        "few examples, and there it agrees far less, see [results](results.md). What a short fine-tune makes of a plan is another\n"
        f'matter ({_span(entries, "finetuned_return")}): who will fine-tune searches with `recovery="reconstruct+finetune"`.\n'
    )


def _span(entries: dict[str, Any], key: str) -> str:
    known = [entry[key] for entry in entries.values() if not math.isnan(entry.get(key, math.nan))]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "-"


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tasks_page(
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit status 1 if the page is not up to date")] = False,
) -> None:
    """Write docs/tasks.md: every built-in task with its numbers."""
    text = page()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE} is not up to date; run python -m benchmarks tasks-page")
            raise typer.Exit(1)
        return
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
