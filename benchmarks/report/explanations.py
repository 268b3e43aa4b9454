"""Why the best plans are as they are: what undoing or deepening each cut would do, measured, and kept in the results folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym

import reptile_env
from benchmarks.report.cases import Case
from benchmarks.results import Run
from benchmarks.results_folder import EXPLANATIONS_FILE, write_over
from reptile_env.actions import COMPONENTS, RATE_ALONE
from reptile_env.compression.plan import Plan
from reptile_env.env import ReptilePruneEnv
from reptile_env.errors import first_line
from reptile_env.evaluation.base import Evaluator
from reptile_env.explaining import GroupExplanation, explain_measured, live_step

# Another machine measures the metric within one example; what differs by more is another network.
TOLERANCE = 0.005

_FIELDS = {each.name for each in fields(GroupExplanation)}
_NO_MORE = {each.name: None for each in fields(GroupExplanation) if each.default is None}

Levels = tuple[tuple[int, ...], tuple[int, ...] | None, tuple[float, ...] | None]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class BestPlan:
    """The best plan of an agent on a task, over all its seeds.

    Attributes:
        case: the task.
        run: that found it.
        row: index of the plan in it.
    """

    case: Case
    run: Run
    row: int

    @property
    def levels(self) -> Levels:
        """Widths, and bits and ranks where they are decided on."""
        columns = self.run.columns
        bits, ranks = (tuple(columns[name][self.row].tolist()) if name in columns else None for name in ("bits", "ranks"))
        return tuple(columns["widths"][self.row].tolist()), bits, ranks

    @property
    def components(self) -> tuple[str, ...]:
        """What decisions were about."""
        by_default = COMPONENTS if "bits" in self.run.columns else RATE_ALONE
        return tuple(self.run.settings.get("components") or by_default)

    @property
    def metric(self) -> float:
        """What the run measured on the validation split."""
        return float(self.run.columns["metric"][self.row])


def best_plans(cases: Iterable[Case]) -> list[BestPlan]:
    """Each agent's best plan on each task, of its searches alone."""
    found: dict[tuple[str, str], BestPlan] = {}
    for case in cases:
        for run in case.of_track("search"):
            row, before = case.best(run), found.get((case.name, run.agent))
            if row is not None and (before is None or case.returns(run)[row] > case.returns(before.run)[before.row]):
                found[case.name, run.agent] = BestPlan(case, run, row)
    return list(found.values())


class Explanations:
    """Explanations of the plans of a results folder; those that were measured before are read from there.

    Args:
        folder: of the results.

    Attributes:
        unsaved: why they could not be kept there; None where they were.

    Raises:
        ValueError: what lies there is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EXPLANATIONS_FILE
        self._known: dict[str, list[dict[str, Any]]] = {}
        self._errors: dict[str, str] = {}
        self.unsaved: str | None = None
        if self._path.exists():
            try:
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                # Another version may cut or measure otherwise.
                self._known = dict(kept["plans"]) if kept["version"] == reptile_env.__version__ else {}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self._path} is damaged; delete it, and its plans are explained again") from error

    def measure(self, plans: Iterable[BestPlan], progress: Progress = lambda done: None) -> None:
        """Measure what is not known yet; what could not be explained is told by `of`.

        Args:
            plans: to be explained.
            progress: told the fraction done.
        """
        missing = {_key(plan): plan for plan in plans if self._of(plan) is None}
        for number, (key, plan) in enumerate(missing.items(), start=1):
            try:
                self._known[key] = _explained(plan)
            except Exception as error:  # whatever a task raises: the report goes on, and says so
                self._errors[key] = first_line(error)
            else:
                self._save()
            progress(number / len(missing))

    def of(self, plan: BestPlan) -> tuple[list[dict[str, Any]] | None, str | None]:
        """The explanation of a plan, a dict for each group, or why there is none."""
        return self._of(plan), self._errors.get(_key(plan))

    def _of(self, plan: BestPlan) -> list[dict[str, Any]] | None:
        """What is known of a plan; what was kept before there was so much to tell is completed, or counts for nothing."""
        kept = self._known.get(_key(plan))
        if not isinstance(kept, list) or len(kept) != len(plan.run.groups) or not all(isinstance(group, dict) for group in kept):
            return None
        groups = [_completed(plan, group) for group in kept]
        return groups if all(set(group) == _FIELDS for group in groups) else None

    def _save(self) -> None:
        data = {"version": reptile_env.__version__, "plans": self._known}
        try:
            write_over(self._path, (json.dumps(data) + "\n").encode())
        except OSError as error:  # a folder that may only be read: they are measured again next time
            self.unsaved = f"{self._path} can't be written: {error.strerror or error}"


def _completed(plan: BestPlan, group: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation that lacks the width of its deeper step, with that: where all widths can be measured it follows."""
    if "deeper_kept" in group or plan.components != RATE_ALONE or plan.case.lead.settings.get("evaluator") == "table":
        return dict(group)
    size, kept = group.get("size"), group.get("kept")
    if not isinstance(size, int) or not isinstance(kept, int):
        return dict(group)
    return {**_NO_MORE, **group, "deeper_kept": kept - live_step(size, kept)}


def _key(plan: BestPlan) -> str:
    return json.dumps([plan.case.name, *plan.levels])


def _explained(best: BestPlan) -> list[dict[str, Any]]:
    env = gym.make(best.case.lead.env_id, **best.case.lead.settings).unwrapped
    assert isinstance(env, ReptilePruneEnv)
    try:
        plan = _plan(env.evaluator, *best.levels)
        measured = env.measure(plan).metric
        if abs(measured - best.metric) > TOLERANCE * max(1.0, abs(best.metric)):
            raise ValueError(
                f"the run measured {best.metric:.4f}, but here the plan measures {measured:.4f}: is it the same network?"
            )
        return [asdict(each) for each in explain_measured(env.evaluator, env.reference, plan, best.components)]
    finally:
        env.close()


def _plan(evaluator: Evaluator, widths: tuple[int, ...], bits: tuple[int, ...] | None, ranks: tuple[float, ...] | None) -> Plan:
    """The plan of these levels: in every group the most important channels are kept, as environments do."""
    plan = evaluator.dense
    for group, (size, width) in enumerate(zip(evaluator.sizes, widths, strict=True)):
        plan = evaluator.cut(plan, group, size - width)
        plan = plan.replace(group, bits=bits[group] if bits else None, rank=ranks[group] if ranks else None)
    return plan
