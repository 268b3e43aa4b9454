"""``python -m benchmarks list | run``: the suites, and carrying one out."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from agents.cli import BadArgumentError
from agents.outputs import make_folder
from benchmarks.engine import Engine
from benchmarks.engine_local import LocalEngine
from benchmarks.engine_ray import RayEngine
from benchmarks.estimate import duration, total_seconds
from benchmarks.execution import Finished, Job, git_revision
from benchmarks.run_progress import RunProgress
from benchmarks.runner import jobs_of, paths_of, run_jobs, state_of
from benchmarks.suites import SUITES, agents_of, find_suite
from reptile_env.errors import unknown

ENGINES = ("local", "ray")


def list_suites() -> None:
    """List the suites with their tasks."""
    for suite in SUITES.values():
        print(f"{suite.title:12}{suite.summary}")
        size = f"{len(suite.cases)} tasks, seeds 0 to {suite.seeds - 1}, {len(agents_of(suite))} agents"
        print(f"{'':12}{size}; tracks: {', '.join(suite.tracks)}")
        cases = ", ".join(f"{case.name} ({case.evaluations:,})" for case in suite.cases)
        print(textwrap.fill(cases, 120, initial_indent=" " * 12, subsequent_indent=" " * 12, break_on_hyphens=False) + "\n")
    print("behind each task: the plans that a run may evaluate; `run SUITE --dry-run` tells how long a suite takes")


def run_suite(
    suite: Annotated[str, typer.Argument(help="a suite, with or without its version; list shows them", show_default=False)],
    agents: Annotated[str | None, typer.Option(help="names, joined by commas; default: all that can run the suite")] = None,
    tasks: Annotated[str | None, typer.Option(help="some of the suite's tasks, joined by commas; default: all")] = None,
    seeds: Annotated[int | None, typer.Option(help="the first so many of the suite's seeds; default: all")] = None,
    engine: Annotated[str, typer.Option(help="local: processes of this machine; ray: a cluster")] = "local",
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    workers: Annotated[int | None, typer.Option(help="processes, each of one thread; default: one for each CPU")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the results; the same one goes on; default: runs/SUITE")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="make failed runs again, in place of their rows")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what would be run, and about how long it takes")] = False,
) -> None:
    """Run agents on a suite, one file a run. Stopped or killed, the same command goes on with what is missing."""
    try:
        chosen = find_suite(suite)
        git = git_revision()
        jobs = jobs_of(
            chosen,
            agents_of(chosen) if agents is None else _names(agents),
            [case.name for case in chosen.cases] if tasks is None else _names(tasks),
            chosen.seeds if seeds is None else seeds,
            git,
        )
        crew = _engine(engine, address, workers)
        folder = out or Path("runs") / chosen.title
        state = state_of(folder, chosen, jobs)
    except (ValueError, OSError) as error:
        raise BadArgumentError(str(error)) from error
    for name in state.other_code:
        print(
            f"{name}: {folder} holds runs that other code of this agent has made, and those to come will be in one row with them; "
            f"name another folder with --out, or delete {folder / name}, unless the change does not matter",
            file=sys.stderr,
        )
    again, failed = ([job for job, _ in state.failed], {}) if retry_failed else ([], dict(state.failed))
    missing = state.missing + again
    if dry_run:
        print(_plan(missing, len(state.done) + len(failed), folder, crew.workers))
        return
    make_folder(folder)
    told = f", {len(state.done):,} are there" if state.done else ""
    print(f"{chosen.title}: {len(missing):,} runs to make{told}; {folder}", flush=True)
    _carry_out(missing, folder, crew, failed)
    if failed:
        print(_failures(failed, folder), file=sys.stderr)
        raise typer.Exit(1)
    print(f"all {len(jobs):,} runs are in {folder}")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names and any(names):
        raise BadArgumentError(f"{text!r} has an empty name between its commas; take it out")
    return [name for name in names if name]


def _engine(name: str, address: str | None, workers: int | None) -> Engine:
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    if address is not None and (name != "ray" or workers is not None):
        raise ValueError("--address is that of a Ray cluster: it goes with --engine ray, and the cluster knows its own --workers")
    count = _cpus() if workers is None else workers
    if count < 1:
        raise ValueError(f"--workers {count}: give at least 1")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("--engine ray needs Ray, which is not installed: pip install 'reptile-env[ray]'")
    return LocalEngine(count) if name == "local" else RayEngine(address, count)


def _cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _carry_out(missing: Sequence[Job], folder: Path, crew: Engine, failed: dict[Job, str]) -> None:
    """Make the missing runs; those that fail are added to `failed`."""
    with RunProgress(missing) as progress:

        def note(job: Job, finished: Finished) -> None:
            if finished.error is not None:
                failed[job] = finished.error
            progress(job, finished)

        try:
            run_jobs(missing, folder, crew, note)
        except KeyboardInterrupt:
            print("interrupted; the runs so far are kept, and the same command goes on from there", file=sys.stderr)
        except (RuntimeError, ConnectionError) as error:
            print(f"{error}; the runs so far are kept", file=sys.stderr)
        except OSError as error:
            what = f"{folder} can't be written: {error.strerror or error}"
            print(f"{what}; the runs so far are kept, and the same command goes on from there", file=sys.stderr)
        else:
            return
    raise typer.Exit(1)


def _failures(failed: dict[Job, str], folder: Path) -> str:
    lines = [f"{len(failed):,} runs failed; they are rows with their traceback, and --retry-failed makes them again:"]
    for job, error in failed.items():
        path = next(iter(paths_of(folder, job).values()))
        lines.append(f"  {path}: {error.strip().splitlines()[-1]:.200}")
    return "\n".join(lines)


def _plan(missing: Sequence[Job], there: int, folder: Path, workers: int) -> str:
    """What would be run, by agent, and how long that takes; 0 workers: a cluster knows how many it has."""
    by_agent: dict[str, list[Job]] = defaultdict(list)
    for job in missing:
        by_agent[job.agent].append(job)
    lines = [f"{len(missing):,} runs to make, {there:,} are there; {folder}"]
    for agent, jobs in by_agent.items():
        lines.append(f"  {agent:20}{len(jobs):6,} runs{duration(total_seconds(jobs)):>12}")
    total = total_seconds(missing)
    shared = f", {duration(total / workers)} with workers={workers}" if workers else ""
    lines.append(f"about {duration(total)} of one core{shared}")
    return "\n".join(lines)
