"""``python -m benchmarks leaderboard``: a page of scores, from validated runs alone."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from agents.cli import BadArgumentError
from agents.outputs import write
from benchmarks.checks import Problem, against_suite, as_decisions, within_itself
from benchmarks.execution import AGENT_CODE
from benchmarks.report.cases import Suite, by_suite, strata
from benchmarks.report.validation import Validation
from benchmarks.results import Run, from_bytes
from benchmarks.results_folder import VALIDATION_FILE, check_claim, claimed, files_of
from benchmarks.statistics.comparing import fewest, stands_out
from benchmarks.statistics.intervals import Estimate, estimate
from benchmarks.suites import SUITES
from benchmarks.suites import Suite as FrozenSuite
from benchmarks.verdicts import read_validation

PAGE = Path("docs/leaderboard.md")
_WHAT = {
    "search": "best plan within the evaluations",
    "policy": "the trained policy's own plan, without exploration",
    "transfer": "the plan of a policy that never met the network before",
}


@dataclass(frozen=True)
class Validated:
    """The runs of a folder that a validation has confirmed, and that are still as they were then.

    Attributes:
        folder: of the results.
        validation: content of its ``validation.json``.
        runs: those that were confirmed; no plan returns more than the best did when it was validated, and no policy another number.
        left_out: files that were not checked, or not confirmed, or changed since, or are of agents that have changed since.
    """

    folder: Path
    validation: dict[str, Any]
    runs: list[Run]
    left_out: int

    @classmethod
    def read(cls, folder: Path) -> Validated:
        """Read a folder.

        Raises:
            ValueError: it holds no results, or was not validated.
        """
        suite, _ = claimed(folder)
        if suite not in SUITES:
            raise ValueError(f"{folder} holds results of {suite}, and this version of the program knows {', '.join(SUITES)}")
        check_claim(folder, suite, SUITES[suite].digest)
        validation = read_validation(folder, suite)
        if not validation["checks"]:
            raise ValueError(
                f"{folder} was not validated: it holds no {VALIDATION_FILE}; "
                f"run `python -m benchmarks validate {folder} --all` first"
            )
        confirmed = {name: row["sha256"] for name, row in validation["rows"].items() if row["ok"]}
        runs, left_out = [], len(validation["rows"]) - len(confirmed)
        left_out += sum(path.relative_to(folder).as_posix() not in validation["rows"] for path in files_of(folder))
        for name, digest in confirmed.items():
            path, row = folder / name, validation["rows"][name]
            data = path.read_bytes() if path.is_file() else b""
            same = hashlib.sha256(data).hexdigest() == digest
            run = from_bytes(data) if same else None
            # What can be told without measuring is checked once more: the verdict itself may be forged.
            if run is None or any(problem for told in _told_without_measuring(run, SUITES[suite]) for problem in told):
                left_out += 1
                continue
            runs.append(as_measured(run, row.get("valid") or {}))
        return cls(folder, validation, runs, left_out)


def _told_without_measuring(run: Run, suite: FrozenSuite) -> Iterator[Iterator[Problem]]:
    yield against_suite(run, suite)
    yield as_decisions(run)
    yield within_itself(run)


def as_measured(run: Run, valid: Mapping[str, float | None]) -> Run:
    """A run that claims no more than was measured of it.

    On a running network a claim holds where it is near to what another machine measures, so one could add a little to each.

    Args:
        run: whose claims were found to be near enough.
        valid: returns of its best plan and its policy's, as they were measured then.
    """
    columns, best, policy = dict(run.columns), valid.get("best"), valid.get("policy")
    if best is not None:
        columns["plan_return"] = np.where(
            columns["within_budget"], np.minimum(columns["plan_return"], best), columns["plan_return"]
        )
    return replace(run, columns=columns, policy_return=run.policy_return if policy is None else policy)


def page(folders: Sequence[Validated]) -> str:
    """The leaderboard in Markdown."""
    lines = [
        "# Leaderboard",
        "",
        "Made by `python -m benchmarks leaderboard` from runs that [validation](benchmark.md#validate) has replayed and confirmed; "
        "not to be edited. A score is 0 for the best uniform setting and 1 for the best plan known; numbers are interquartile "
        "means over tasks and seeds with stratified bootstrap 95 % intervals, and n says how many runs they stand on. An agent "
        "is printed in bold where its interval lies above every other's and all have as many runs. Agents choose plans by the "
        "validation split, so their score there flatters whoever looks hardest; *on test* is what the same plans are worth on the "
        "test split, above the best uniform setting's plan there and in the same unit.",
    ]
    for validated in folders:
        for suite in by_suite(validated.runs):
            suite = replace(suite, validation=Validation.read(validated.folder, suite.name))
            lines += ["", f"## {suite.name}", "", _origin(validated)]
            for cap, part in _by_cap(suite):
                for track in part.tracks:
                    lines += ["", f"### {track}{cap}: {_WHAT[track]}", "", *_table(part, track)]
    return "\n".join(lines) + "\n"


def _by_cap(suite: Suite) -> Iterator[tuple[str, Suite]]:
    """The runs under each cap of the cost, where there are several: a mean over all caps would say little of any."""
    caps = {run.settings.get("budget") for run in suite.runs}
    for cap in sorted(caps, key=lambda cap: math.inf if cap is None else cap):
        runs = tuple(run for run in suite.runs if run.settings.get("budget") == cap)
        told = "" if len(caps) == 1 else ", no cap" if cap is None else f", cost at most {cap:.0%} of dense"
        yield told, replace(suite, runs=runs)


def _origin(validated: Validated) -> str:
    found = validated.validation
    revisions = sorted({_plain(run.git or "unknown")[:12] for run in validated.runs})
    machines = sorted({_plain(run.machine.get("processor", "unknown")) for run in validated.runs})
    counts = Counter(row["check"] for row in found["rows"].values())
    checks = (
        f"{counts[number]:,} on {_plain(check['validated'])[:10]} by {_plain(check['machine'])} ({_plain(check['sample'])})"
        for number, check in enumerate(found["checks"])
        if counts[number]
    )
    text = f"{len(validated.runs):,} runs, made at {', '.join(revisions)} on {'; '.join(machines)}. Validated: {'; '.join(checks)}."
    codes = {(run.agent, run.versions[AGENT_CODE]) for run in validated.runs if AGENT_CODE in run.versions}
    several = [agent for agent, count in sorted(Counter(agent for agent, _ in codes).items()) if count > 1]
    if several:
        text += f" Runs of more than one version of their code: {', '.join(several)}."
    untold = sum(AGENT_CODE not in run.versions for run in validated.runs)
    if untold:
        text += f" {untold:,} runs are older than the record of the code that made them."
    if validated.left_out or found["failed"]:
        text += (
            f" Left out: {validated.left_out:,} runs that were not checked or not confirmed, {len(found['failed']):,} that failed."
        )
    return text


def _plain(text: str) -> str:
    """What a file says of itself, so that it can't write anything else into the page."""
    return re.sub(r"[^\w .,:;()+/@-]", "?", text)[:80]


def _table(suite: Suite, track: str) -> Iterator[str]:
    scored = [case for case in suite.cases if case.scored]
    number, cases = ("score", scored) if scored else ("return", list(suite.cases))
    judged = {agent: estimate(strata(cases, agent, track, number)) for agent in suite.agents}
    judged = {agent: each for agent, each in judged.items() if each.n}
    exact = [case for case in cases if case.exact]
    made = {
        agent: {(case.name, run.seed) for case in cases for run in case.of_track(track) if run.agent == agent} for agent in judged
    }
    # Runs of all on the same tasks and seeds, each with a number, or nobody stands out.
    compared = len({frozenset(each) for each in made.values()}) == 1 and all(judged[each].n == len(made[each]) for each in judged)
    least = min((fewest(strata(cases, agent, track, number)) for agent in judged), default=0)
    winner = stands_out(judged, least) if compared else None
    tested = {agent: estimate(strata(scored, agent, track, "test")) for agent in judged} if scored else {}
    heads = [*("on test", "95 % interval") * any(each.n for each in tested.values()), *("regret",) * bool(exact)]
    yield f"| {' | '.join(['agent', number, '95 % interval', *heads, 'tasks', 'n'])} |"
    yield "|---" * (5 + len(heads)) + "|"
    for agent, each in sorted(judged.items(), key=lambda item: -item[1].value):
        name = f"**{agent}**" if agent == winner else agent
        cells = [name, f"{each.value:.3f}", _interval(each)]
        if "on test" in heads:
            test = tested[agent]
            told = f"{test.value:.3f}" if test.n == each.n else f"{test.value:.3f} (n={test.n})"
            cells += [told if test.n else "-", _interval(test)]
        if exact:
            cells.append(f"{estimate(strata(exact, agent, track, 'regret')).value:.3f}")
        tasks = sum(len(runs) > 0 for runs in strata(cases, agent, track, number))
        yield f"| {' | '.join([*cells, str(tasks), str(each.n)])} |"
    unscored = [case.name for case in suite.cases if case not in cases]
    if unscored:
        yield from ("", f"Not scored, because no best uniform setting or best plan is known: {', '.join(unscored)}.")


def _interval(each: Estimate) -> str:
    return f"{each.low:.3f} to {each.high:.3f}" if each.has_interval else "-"


def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="folders of validated results", show_default=False)],
    out: Annotated[Path, typer.Option(help="the page")] = PAGE,
) -> None:
    """Write the leaderboard, from the runs that validation has confirmed and nothing else."""
    try:
        validated = [Validated.read(folder) for folder in folders]
        names = [each.validation["suite"] for each in validated]
        if len(set(names)) < len(names):
            raise ValueError(f"two folders hold results of one suite ({', '.join(names)}); name one folder a suite")
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out, page(validated))
    except ValueError as error:
        raise BadArgumentError(str(error)) from error
    except OSError as error:
        raise BadArgumentError(f"--out {out} can't be written: {error.strerror or error}") from error
    for each in validated:
        print(f"{each.folder}: {len(each.runs):,} validated runs, {each.left_out:,} left out")
    print(out)
