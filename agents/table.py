"""The table that `compress` and `evaluate` print: what each way of compressing the task gave."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import Any

from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        name: ``dense``, ``best uniform``, ``random search`` or the agent's name.
        evaluated: plans that were evaluated to find it.
        valid: metric on the validation split, by which it was chosen; None where no plan met the budget.
        test: metric on the test split; None where the task has none.
        params: parameters.
        macs: multiply-accumulates an example.
        bytes: tensor bytes.
        plan_return: 0 for the dense network, 1 for the best uniform rate.
        chosen: whether its network is the one that is saved.
        plan: what it keeps.
        latency: seconds a forward pass; None where it is not the cost.
    """

    name: str
    evaluated: int
    valid: float | None = None
    test: float | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    plan_return: float | None = None
    chosen: bool = False
    plan: Plan | None = None
    latency: float | None = None


def measured(name: str, evaluated: int, plan: Plan | None, env: ReptilePruneEnv, **further: Any) -> Entry:
    """The line of a plan, with what it measures; without a plan there are no numbers.

    The only place where agents' commands read the test split.
    """
    if plan is None:
        return Entry(name, evaluated, **further)
    found = env.evaluator.measure(plan)
    test = env.evaluator.test(plan).metric if env.evaluator.has_test else None
    costs = (found.params, found.macs, found.bytes)
    value = env.reference.return_of(found)
    return Entry(name, evaluated, found.metric, test, *costs, value, plan=plan, latency=found.latency, **further)


def label(agent: str) -> str:
    """What an agent is called in tables and pictures."""
    return "random search" if agent == "random" else agent


def to_json(entries: list[Entry], metric: str) -> dict[str, Any]:
    """The table as JSON-able data, plans included."""
    rows = [asdict(entry) | {"plan": entry.plan.to_dict() if entry.plan else None} for entry in entries]
    return {"metric": metric, "rows": rows}


def to_csv(entries: list[Entry]) -> str:
    """The table as CSV, without the plans; an empty cell where there is no number."""
    out = io.StringIO()
    names = [name for name in Entry.__dataclass_fields__ if name != "plan"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(entry, name) for name in names] for entry in entries)
    return out.getvalue()


def to_text(entries: list[Entry], metric: str) -> str:
    """The table for a terminal: costs with what is left of the dense network's, an arrow at the chosen line."""
    dense = entries[0]
    timed = ["latency"] if dense.latency is not None else []  # where it is what is saved
    head = ["", "evaluated", f"valid {metric}", f"test {metric}", "params", "MACs", "bytes", *timed, "return"]
    lines = [head]
    for entry in entries:
        costs = [_cost(getattr(entry, name), getattr(dense, name)) for name in ("params", "macs", "bytes", *timed)]
        mark = "> " if entry.chosen else "  "
        metrics = [_number(entry.valid, 4), _number(entry.test, 4)]
        lines.append([mark + entry.name, f"{entry.evaluated:,}", *metrics, *costs, _number(entry.plan_return, 3)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        line[0].ljust(widths[0]) + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)) for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cost(value: float | None, dense: float) -> str:
    if value is None:
        return "-"
    return (f"{value:,}" if isinstance(value, int) else f"{1000 * value:.3g} ms") + f" ({100 * value / dense:3.0f} %)"
