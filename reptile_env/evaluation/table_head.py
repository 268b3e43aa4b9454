"""What a table knows beside its columns, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from reptile_env.compression.cost import CostModel
from reptile_env.evaluation.grid import Grid
from reptile_env.evaluation.settings import Settings

FORMAT = 1
# Neither rounding nor training touches float plans, so these settings never tell tables apart.
IDLE_SETTINGS = ("finetune", "rounding", "latency", "train_loss")


@dataclass(frozen=True)
class Further:
    """What a plan beside the rows measured: the uniform settings, on whose exact widths the scale of returns stands.

    Attributes:
        values: of the columns, by name.
        widths: of the plan.
    """

    widths: tuple[int, ...]
    values: dict[str, float]


@dataclass(frozen=True)
class Head:
    """A table without its columns.

    Attributes:
        task: its name.
        settings: of the evaluator that measured it.
        grid: its plans.
        features: as in `Evaluator`.
        rankable: as in `Evaluator`.
        sensitivity: as `Evaluator.sensitivity` gives it.
        metric_name: as in `Evaluator`.
        higher_is_better: as in `Evaluator`.
        w: as in `Evaluator`.
        chosen: importance of each group, where it was chosen by itself.
        costs: the cost model.
        further: what plans beside the rows measured.
        weights: SHA-256 of the dense network's tensors.
        made_by: versions, machine and threads.
    """

    task: str
    settings: Settings
    grid: Grid
    features: tuple[dict[str, Any], ...]
    rankable: tuple[bool, ...]
    sensitivity: tuple[float, ...]
    metric_name: str
    higher_is_better: bool
    w: float | None
    chosen: Any
    costs: CostModel
    further: tuple[Further, ...]
    weights: str
    made_by: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        grid = {name: getattr(self.grid, name) for name in ("names", "sizes", "orders", "levels")}
        plain = ("task", "features", "rankable", "sensitivity", "metric_name", "higher_is_better", "w", "chosen", "weights")
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in plain},
            "settings": asdict(self.settings),
            "grid": grid,
            "costs": costs_to_json(self.costs),
            "further": [asdict(each) for each in self.further],
            "made_by": self.made_by,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Head:
        """The head whose JSON form `data` is.

        Raises:
            ValueError: of another format.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"its format is {data.get('format')}, this version of reptile_env reads {FORMAT}")
        further = tuple(Further(tuple(each["widths"]), each["values"]) for each in data["further"])
        grid: dict[str, Any] = {name: tuple(data["grid"][name]) for name in ("names", "sizes")}
        grid |= {name: tuple(map(tuple, data["grid"][name])) for name in ("orders", "levels")}
        plain = ("task", "metric_name", "higher_is_better", "w", "chosen", "weights", "made_by")
        values: dict[str, Any] = {name: data[name] for name in plain}
        values |= {name: tuple(data[name]) for name in ("features", "rankable", "sensitivity")}
        return cls(
            settings=Settings(**data["settings"]),
            grid=Grid(**grid, exact=frozenset(each.widths for each in further)),
            costs=costs_from_json(data["costs"]),
            further=further,
            **values,
        )

    def serves(self, settings: Settings) -> bool:
        """Whether an evaluator of `settings` measures the same."""
        idle = {name: getattr(settings, name) for name in IDLE_SETTINGS}
        if replace(self.settings, **idle) != settings or settings.latency:
            return False
        return self.settings.train_loss or not settings.train_loss

    def told(self) -> str:
        """Its settings, for a message."""
        shown = {f.name: getattr(self.settings, f.name) for f in fields(Settings) if f.name not in IDLE_SETTINGS}
        return ", ".join(f"{name}={value!r}" for name, value in (shown | {"train_loss": self.settings.train_loss}).items())


def costs_to_json(costs: CostModel) -> dict[str, Any]:
    """The JSON-able form of a cost model, without latency."""

    def listed(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    data = {f.name: listed(getattr(costs, f.name)) for f in fields(CostModel) if f.name != "latency"}
    return data | {"weights": {name: listed(value) for name, value in costs.weights.items()}}


def costs_from_json(data: Mapping[str, Any]) -> CostModel:
    """The cost model that `costs_to_json` wrote, also after a round trip through JSON."""

    def array(name: str) -> Any:
        return None if data[name] is None else np.array(data[name], bool if name == "leads" else np.int64)

    names = [f.name for f in fields(CostModel) if f.name not in ("weights", "uncounted", "latency")]
    weights = {name: np.array(value, np.int64) for name, value in data["weights"].items()}
    return CostModel(**{name: array(name) for name in names}, weights=weights, uncounted=data["uncounted"])
