"""The evaluator that runs the network."""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reptile_env.compression import moments, prune, recovery
from reptile_env.compression.groups import CONVS, Group, Structure, find_groups
from reptile_env.compression.importance import IMPORTANCES
from reptile_env.compression.macs import check_macs, cost_model
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task, concatenate

BATCH_SIZE = 256


def live_evaluator(task: str | Task, settings: Settings) -> LiveEvaluator:
    """The one evaluator of this process for a task and settings: environments share weights, moments and memo."""
    if isinstance(task, str):
        task = make_task(task)
    if not isinstance(task, Task):
        raise TypeError(f"task must be a name, a reptile_env.Task or a list of either, got {type(task).__name__}")
    if settings not in task.kept:
        task.kept[settings] = LiveEvaluator(task, settings)
    made: LiveEvaluator = task.kept[settings]
    return made


def structure_of(task: Task) -> Structure:
    """Groups of a task's network, found once a process."""
    if "structure" not in task.kept:
        task.kept["structure"] = find_groups(task.model, task.valid[:4])
    found: Structure = task.kept["structure"]
    return found


class LiveEvaluator:
    """Cuts the network to a plan, lets it recover, and measures it.

    A measurement is a pure function of task, settings and plan. The network that is measured is really smaller. One
    working copy of the network takes the tensors of each plan in turn; the dense tensors are shared and never written.

    Args:
        task: what is compressed.
        settings: recovery, importance, calibration.

    Raises:
        ValueError: a network with nothing to cut, or a recovery that does not fit it.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        recovery.check(settings.recovery, task.model)
        self.task, self.settings = task, settings
        self.name, self.w, self.higher_is_better, self.metric_name = task.name, task.w, task.higher_is_better, task.metric_name
        self.structure = structure_of(task)
        self.group_names, self.sizes = self.structure.names, self.structure.sizes
        self.dense = Plan.dense(self.group_names, self.sizes)
        self._state = {name: t.detach() for name, t in (*task.model.named_parameters(), *task.model.named_buffers())}
        self.costs = cost_model(task.model, self.structure, task.valid[:1].inputs)
        self._recovery = recovery.parse(settings.recovery)
        modules = dict(task.model.named_modules())
        importance = IMPORTANCES[settings.importance]
        scores = [importance(g, i, self._state, self.structure, modules).numpy() for i, g in enumerate(self.structure.groups)]
        # Stable: equal scores leave in a fixed order on every machine.
        self._rank = [np.argsort(np.argsort(score, kind="stable"), kind="stable") for score in scores]
        self.features = tuple(_features(g, self, modules) for g in self.structure.groups)
        self._calibration = _spread(task.train, settings.calibration_examples)
        needs_moments = "reconstruct" in settings.recovery.split("+")
        self._moments = moments.collect(task.model, self.structure, self._calibration, BATCH_SIZE) if needs_moments else {}
        self._model = copy.deepcopy(task.model)
        self._shrunk: set[str] = set()
        self._lock = threading.Lock()
        self._memo: dict[Plan, Measurement] = {}
        self._sensitivity: tuple[float, ...] | None = None
        halved = self.dense
        for group, size in enumerate(self.sizes):
            halved = self.cut(halved, group, removal_count(size, 0.5))
        with self._lock:
            check_macs(self._install(halved), self.costs.all(halved.widths)["macs"], task.valid[:1].inputs)

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        if count == 0:
            return plan
        rank = self._rank[group]
        kept = sorted(plan.keep[group], key=rank.__getitem__)[count:]
        return plan.replace(group, sorted(kept))

    def measure(self, plan: Plan) -> Measurement:
        """What the network compressed to `plan` measures on the validation split.

        Raises:
            TypeError: not a `Plan`.
            ValueError: a plan of another network.
        """
        known = self._memo.get(plan) if isinstance(plan, Plan) else None
        if known is None:
            self.check_plan(plan)
            with self._lock:
                known = self._memo.setdefault(plan, self._measure(plan, self.task.valid))
        return known

    def test(self, plan: Plan) -> Measurement:
        """As `measure`, on the test split: for reports alone."""
        self.check_plan(plan)
        split = self.task.test_split()
        with self._lock:
            return self._measure(plan, split)

    def compressed_model(self, plan: Plan) -> nn.Module:
        """A copy of the network, cut to `plan` and recovered."""
        self.check_plan(plan)
        with self._lock:
            return copy.deepcopy(self._build(plan))

    def sensitivity(self) -> tuple[float, ...]:
        """For each group the rise of the calibration loss when the group alone is halved."""
        if self._sensitivity is None:
            alone = [self.cut(self.dense, i, removal_count(size, 0.5)) for i, size in enumerate(self.sizes)]
            with self._lock:
                losses = [self._run(self._build(plan), self._calibration)[1] for plan in [self.dense, *alone]]
            self._sensitivity = tuple(loss - losses[0] for loss in losses[1:])
        return self._sensitivity

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that is not one of this network's."""
        if not isinstance(plan, Plan):
            raise TypeError(f"a reptile_env.Plan is needed, got {type(plan).__name__}; Plan.from_dict reads its JSON form")
        if plan.names != self.group_names:
            raise ValueError(f"the plan's groups {list(plan.names)} are not those of task {self.name!r}: {list(self.group_names)}")
        for name, keep, size in zip(plan.names, plan.keep, self.sizes, strict=True):
            if keep[-1] >= size:
                raise ValueError(f"the plan keeps channel {keep[-1]} of group {name!r}, which has channels 0 to {size - 1}")

    def _measure(self, plan: Plan, split: Split) -> Measurement:
        start = time.perf_counter()
        model = self._build(plan)
        metric, loss = self._run(model, split)
        train_loss = self._run(model, self._calibration)[1] if self.settings.train_loss else None
        sparsity = tuple(1 - width / size for width, size in zip(plan.widths, self.sizes, strict=True))
        costs = self.costs.all(plan.widths)
        seconds = time.perf_counter() - start
        return Measurement(metric, loss, **costs, sparsity=sparsity, train_loss=train_loss, seconds=seconds)

    def _run(self, model: nn.Module, split: Split) -> tuple[float, float]:
        with torch.inference_mode():
            outputs = [call(model, batch.inputs) for batch in split.batches(BATCH_SIZE)]
            return self.task.score(concatenate(outputs), split)

    def _install(self, plan: Plan) -> nn.Module:
        shrunk = prune.cut(self._state, self.structure, plan)
        whole: dict[str, Tensor] = {name: self._state[name] for name in self._shrunk - shrunk.keys()}
        self._shrunk = set(self._state)  # until it is known: an interrupt must not leave a stale tensor behind
        prune.install(self._model, whole | shrunk, self.task.model)
        self._shrunk = set(shrunk)
        return self._model

    def _build(self, plan: Plan) -> nn.Module:
        model = self._install(plan)
        if plan != self.dense:
            bench = recovery.Workbench(model, self.structure, self._state, self._moments, self._calibration, BATCH_SIZE)
            replaced, self._shrunk = self._shrunk, set(self._state)
            for step in self._recovery:
                replaced |= step(bench, plan)
            self._shrunk = replaced
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveEvaluator:
        return self

    def __reduce__(self) -> Any:
        return live_evaluator, (self.task, self.settings)


def _spread(split: Split, count: int) -> Split:
    """At most `count` examples, evenly spaced, so that data sorted by class gives every class."""
    if count >= len(split):
        return split
    return split[torch.from_numpy(np.linspace(0, len(split) - 1, count).round().astype(np.int64))]


def _features(group: Group, evaluator: LiveEvaluator, modules: dict[str, nn.Module]) -> dict[str, Any]:
    layer: Any = modules[group.name]
    convolution = isinstance(layer, CONVS)
    index = evaluator.group_names.index(group.name)
    dense = evaluator.costs.all(evaluator.sizes)
    without = list(evaluator.sizes)
    without[index] = 0
    gone = evaluator.costs.all(without)
    return {
        "kind": group.kind,
        "in": layer.in_channels if convolution else layer.in_features,
        "out": group.size,
        "kernel": layer.kernel_size[0] if convolution else 1,
        "stride": layer.stride[0] if convolution else 1,
        "params": (dense["params"] - gone["params"]) / dense["params"],
        "macs": (dense["macs"] - gone["macs"]) / max(dense["macs"], 1),
    }
