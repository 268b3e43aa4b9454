"""``python -m benchmarks report``: a page, pictures and tables from folders of results."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agents.cli import BadArgumentError
from agents.outputs import free_folder
from benchmarks.report.cases import Suite, by_suite
from benchmarks.report.drafting import drafted
from benchmarks.report.estimates import ScopeResults, results
from benchmarks.report.explanations import BestPlan, Explanations, best_plans
from benchmarks.report.figures import Looks
from benchmarks.report.files import write_files
from benchmarks.report.page import page
from benchmarks.report.summary import PLANS_ON_PAGE, page_data
from benchmarks.report.validation import Validation
from benchmarks.results import read_runs
from benchmarks.results_folder import SUITE_FILE

PAGE, FIGURES = "report.html", "figures"


def report(
    results: Annotated[Path, typer.Argument(help="a folder of results, or one that holds several")],
    out: Annotated[Path | None, typer.Option(help=f"a new folder for {PAGE} and {FIGURES}/")] = None,
    explain: Annotated[bool, typer.Option(help="measure why each best plan is as it is; kept in the results folder")] = True,
    figures: Annotated[bool, typer.Option(help="write every figure as PNG, SVG, CSV and Parquet too")] = True,
    plans: Annotated[int, typer.Option(help="of each task in the page, about; the files hold all")] = PLANS_ON_PAGE,
) -> None:
    """Make a page of the results that opens offline."""
    if plans < 1:
        raise BadArgumentError(f"--plans {plans}: give at least 1")
    try:
        suites, folders = _read(results)
        explanations = {name: Explanations(folder) for name, folder in folders.items()}
    except (ValueError, OSError) as error:
        raise BadArgumentError(str(error)) from error
    folder = free_folder(out, "report")
    torch.set_num_threads(1)  # as runs have it
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with drafted(folder) as draft, Progress(*columns, transient=True) as progress:
        best = _explained(suites, explanations, explain, progress)
        estimated = _estimated(suites, progress)
        (draft / PAGE).write_text(page(*page_data(suites, estimated, explanations, best, plans)), encoding="utf-8")
        if figures:
            bar = progress.add_task("figures", total=len(suites))
            looks = Looks(sorted({agent for suite in suites for agent in suite.agents}))
            for suite in suites:
                write_files(draft / FIGURES / suite.name, suite, estimated[suite.name], best, explanations[suite.name], looks)
                progress.advance(bar)
    for suite in suites:
        print(_told(suite))
    for each in explanations.values():
        if each.unsaved is not None:
            print(f"explanations are not kept: {each.unsaved}")
    print(folder / PAGE)


def _read(folder: Path) -> tuple[list[Suite], dict[str, Path]]:
    """The suites of a folder of results, or of a folder that holds such folders, and where each lies."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; `python -m benchmarks run` makes one of results")
    if (folder / SUITE_FILE).exists():
        found = [folder]
    else:
        found = sorted(path.parent for path in folder.glob(f"*/{SUITE_FILE}"))
    if not found:
        raise ValueError(f"{folder} holds no results (no {SUITE_FILE}); `python -m benchmarks run` makes them")
    suites: list[Suite] = []
    folders: dict[str, Path] = {}
    for path in found:
        runs = read_runs(path)
        if not runs:
            raise ValueError(f"{path} holds no run yet; `python -m benchmarks run` makes them")
        (suite,) = by_suite(runs)
        if suite.name in folders:
            raise ValueError(f"{path} and {folders[suite.name]} both hold results of {suite.name}; report on one of them")
        suites.append(dataclasses.replace(suite, validation=Validation.read(path, suite.name)))
        folders[suite.name] = path
    return suites, folders


def _explained(suites: list[Suite], explanations: dict[str, Explanations], explain: bool, progress: Progress) -> list[BestPlan]:
    plans = []
    for suite in suites:
        found = best_plans(suite.cases)
        if explain and found:
            bar = progress.add_task(f"{suite.name}: explaining {len(found)} best plans", total=1.0)
            explanations[suite.name].measure(found, functools.partial(_show, progress, bar))
        plans += found
    return plans


def _show(progress: Progress, bar: TaskID, done: float) -> None:
    progress.update(bar, completed=done)


def _estimated(suites: list[Suite], progress: Progress) -> dict[str, dict[str, list[ScopeResults]]]:
    bar = progress.add_task("statistics", total=sum(len(suite.tracks) for suite in suites))
    found: dict[str, dict[str, list[ScopeResults]]] = {}
    for suite in suites:
        found[suite.name] = {}
        for track in suite.tracks:
            found[suite.name][track] = results(suite, track)
            progress.advance(bar)
    return found


def _told(suite: Suite) -> str:
    failed = f", {len(suite.failed)} of them failed" if suite.failed else ""
    tasks = len({run.task for run in suite.runs})
    what = f"{suite.name}: {len(suite.runs)} runs of {len(suite.agents)} agents on {tasks} tasks{failed}"
    return f"{what}; {suite.validation.told(suite.runs)}"
