"""What decides the numbers of a report: code, machine, settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.report.cases import Suite

# What of an environment's arguments differs between agents of one task without changing the task.
_AGENTS_OWN = ("task", "measure", "observation")
# Versions whose names say too little beside the others'.
_VERSIONS = {"code": "hash of the code (agents and package)", "agent": "hash of the agent's own code"}


def what_was_run(suite: Suite) -> list[dict[str, Any]]:
    """What decides the numbers, each with every value that it had in this folder, and how many runs had it."""
    facts: dict[str, Counter[str]] = {}

    def note(what: str, value: object) -> None:
        facts.setdefault(what, Counter())[str(value)] += 1

    for run in suite.runs:
        note("git revision of the code", run.git or "unknown")
        for name, version in run.versions.items():
            note(_VERSIONS.get(name, name), version)
        for name, value in run.machine.items():
            note(f"machine: {name}", value)
        note("threads", run.threads)
        note("plans allowed", f"{run.evaluations:,}")
        note("environment", run.env_id)
        for name, value in run.settings.items():
            if name not in _AGENTS_OWN:
                note(f"setting: {name}", value)
        if run.training_networks:
            note("training networks", ", ".join(run.training_networks))
        note(f"agent: {run.agent}", ", ".join(f"{name}={value}" for name, value in run.agent_settings.items()) or "no settings")
    started = sorted(run.started for run in suite.runs)
    spent = sum(run.seconds for run in suite.runs)
    listed = [{"what": what, "values": list(values.items())} for what, values in facts.items()]
    return [
        {"what": "started", "values": [[f"{started[0]} to {started[-1]}", len(suite.runs)]]},
        {"what": "time of all runs", "values": [[f"{spent:,.0f} s ({spent / 3600:.2f} h)", len(suite.runs)]]},
        *listed,
    ]
