"""The evaluator that runs the network."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reptile_env.compression.bounded import Bounded
from reptile_env.compression.cost import CostModel
from reptile_env.compression.device import make_device
from reptile_env.compression.engine import Engine
from reptile_env.compression.granularity import find_structure
from reptile_env.compression.groups import Structure
from reptile_env.compression.latency import latency_table
from reptile_env.compression.low_rank import can_factor_group
from reptile_env.compression.plan import Plan, removal_count
from reptile_env.compression.rounds import Rounds
from reptile_env.compression.skipped import skipped_layers, warn_of_skipped
from reptile_env.evaluation.disk import DiskCache, conditions
from reptile_env.evaluation.grid import Grid
from reptile_env.evaluation.measurement import Measurement
from reptile_env.evaluation.plan_check import check_plan
from reptile_env.evaluation.resources import NO_LIMITS, Resources
from reptile_env.evaluation.settings import Settings
from reptile_env.tasks.registry import make_task
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import Task

MEMO_BYTES = 2**27


def live_evaluator(task: str | Task, settings: Settings, resources: Resources = NO_LIMITS) -> LiveEvaluator:
    """The one evaluator of this process for a task, settings, threads and device: environments share weights, moments and caches.

    The memory and the folder that were asked for last hold for all of them.
    """
    if isinstance(task, str):
        task = make_task(task)
    if not isinstance(task, Task):
        raise TypeError(f"task must be a name, a reptile_env.Task or a list of either, got {type(task).__name__}")
    key = settings, resources.num_threads, resources.device
    if key not in task.kept:
        task.kept[key] = LiveEvaluator(task, settings, resources)
    made: LiveEvaluator = task.kept[key]
    made.use(resources)
    return made


def structure_of(task: Task, granularity: str = "structured", residual_width: bool = False) -> Structure:
    """Groups of a task's network, found once a process; layers that can't be cut are warned of then."""
    key = "structure", granularity, residual_width
    if key not in task.kept:
        task.kept[key] = find_structure(granularity, task.model, task.valid[:4], residual_width)
        warn_of_skipped(task.name, task.kept[key])
    found: Structure = task.kept[key]
    task.kept["skipped"] = skipped_layers(found)
    return found


class LiveEvaluator:
    """Cuts the network to a plan, lets it recover, and measures it.

    A measurement is a pure function of task, settings and plan. The network that is measured is really smaller. One
    working copy of the network takes the tensors of each plan in turn; the dense tensors are shared and never written.

    Args:
        task: what is compressed.
        settings: recovery, importance, calibration.
        resources: memory, disk, threads and device.

    Raises:
        ValueError: a network with nothing to cut, a recovery that does not fit it, or a device that is not here.
    """

    grid: Grid | None = None  # every width can be measured

    def __init__(self, task: Task, settings: Settings, resources: Resources = NO_LIMITS) -> None:
        self.task, self.settings, self.resources = task, settings, resources
        self._lock = threading.RLock()
        with self._working():
            self._make()
        self.use(resources)

    def _make(self) -> None:
        task, settings = self.task, self.settings
        self.name, self.w, self.higher_is_better, self.metric_name = task.name, task.w, task.higher_is_better, task.metric_name
        self.structure = structure_of(task, settings.granularity, settings.residual_width)
        self._calibration = _spread(task.train, settings.calibration_examples)
        self._device = make_device(self.resources.device)
        self._engine = Engine(task, self.structure, self._calibration, settings, device=self._device)
        self.group_names, self.sizes, self.dense = self._engine.names, self._engine.sizes, self._engine.dense
        self.costs, self.features = self._engine.costs, self._engine.features
        self.chosen = self._engine.chosen
        if settings.latency:
            assert isinstance(self.costs, CostModel)  # the settings refuse other granularities
            self.costs = replace(self.costs, latency=latency_table(self.structure, task.valid[:1].inputs))
        self.lists = self._engine.pruner.lists
        self.rankable = tuple(self.lists and can_factor_group(self.structure, i) for i in range(len(self.sizes)))
        self._rounds = Rounds(self._engine)
        self.trains = "finetune" in settings.recovery.split("+")
        self._memo: Bounded[Plan, Measurement] = Bounded(MEMO_BYTES, lambda plan, _: _bytes_of(plan))
        self.measured = 0  # plans that the network was run for
        self.disk: DiskCache | None = None
        self._folder: str | None = None
        self._sensitivity: tuple[float, ...] | None = None

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        with self._working():
            return self._rounds.cut(plan, group, count)

    def use(self, resources: Resources) -> None:
        """Keep to other limits of memory, or another folder, from now on; None leaves each as it is."""
        with self._lock:
            if resources.cache_bytes is not None:
                share = resources.cache_bytes // 8
                self._memo.limit = share
                self._engine.limit(share, resources.cache_bytes - 2 * share)
            folder = resources.disk_cache
            if folder is not None and str(folder) != self._folder:
                self.disk, self._folder = DiskCache(str(folder), self.task, self.settings, *self._machine()), str(folder)

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept from one plan to the next, roughly."""
        return self._memo.bytes + self._engine.held_bytes

    def next_round(self, plan: Plan) -> Plan:
        """The plan from which a round after `plan` goes on: on the network trained after it, where the recovery trains."""
        return plan.trained() if self.trains else plan

    def measure(self, plan: Plan) -> Measurement:
        """What the network compressed to `plan` measures on the validation split.

        Raises:
            TypeError: not a `Plan`.
            ValueError: a plan of another network.
        """
        if not isinstance(plan, Plan):
            check_plan(self, plan)
        with self._lock:
            known = self._memo.get(plan)
            if known is None:
                check_plan(self, plan)
                with self._working():
                    known = self._memo.put(plan, self._known_on_disk(plan))
        return known

    @property
    def has_test(self) -> bool:
        """Whether the task has a test split."""
        return self.task.has_test

    def test(self, plan: Plan) -> Measurement:
        """As `measure`, on the test split: for reports alone."""
        check_plan(self, plan)
        split = self.task.test_split()
        with self._working():
            return self._measure(plan, "test", split)

    def compressed_model(self, plan: Plan) -> nn.Module:
        """A copy of the network, cut to `plan` and recovered."""
        check_plan(self, plan)
        with self._working():
            # In torch's plain memory format, which is what is saved.
            return copy.deepcopy(self._rounds.build(plan)).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]

    def kept_weights(self, plan: Plan) -> dict[str, int]:
        """For each weight from which `plan` removes single elements how many are left; empty where channels go."""
        with self._working():
            return {name: int(mask.sum()) for name, mask in self._rounds.masks(plan).items()}

    def scores(self, importance: str) -> tuple[NDArray[np.float64], ...]:
        """For each group how much each of its channels matters, dense, ``(size,)`` float64; the least important has the lowest.

        With ``granularity="unstructured"``, of its weights. Scores of ``lamp`` can be compared between groups, so can norms of
        channels (``l1``, ``l2``), which are relative to the mean of their layer.

        Args:
            importance: as of the environment, whatever its own is.

        Raises:
            ValueError: an unknown importance, `auto`, one that does not fit the network or granularity, or `granularity="2:4"`.
        """
        with self._working():
            return self._engine.scores(importance)

    def sensitivity(self) -> tuple[float, ...]:
        """For each group the rise of the calibration loss when the group alone is halved."""
        if self._sensitivity is None:
            alone = [self.cut(self.dense, i, removal_count(size, 0.5)) for i, size in enumerate(self.sizes)]
            with self._working():
                outputs = [self._engine.outputs(plan, "train", self._calibration) for plan in [self.dense, *alone]]
                losses = [self.task.score(each, self._calibration)[1] for each in outputs]
            self._sensitivity = tuple(loss - losses[0] for loss in losses[1:])
        return self._sensitivity

    def remember(self, plan: Plan, measurement: Measurement) -> None:
        """Take for known what a plan of this task measured earlier under the same settings: it is not measured again.

        Raises:
            TypeError: not a `Plan`.
            ValueError: a plan of another network, or costs that are not the plan's.
        """
        check_plan(self, plan)
        costs = self.costs.all(*plan.levels)
        if costs != measurement.costs:
            raise ValueError(
                f"{plan} costs {costs}, and what is to be remembered of it says {measurement.costs}: it was measured on another "
                "network or under other settings"
            )
        with self._lock:
            self._memo.put(plan, measurement)

    def conditions(self) -> str:
        """A hash of all that a measurement depends on beside the plan, from weights and data to threads and device.

        Raises:
            ValueError: a metric or loss that can't be told from another one by its code.
        """
        return conditions(self.task, self.settings, *self._machine())

    def _machine(self) -> tuple[int, str | None]:
        """Threads and device, by both of which sums are rounded otherwise."""
        return self.resources.num_threads or torch.get_num_threads(), None if self._device is None else self._device.model_name

    def _measure(self, plan: Plan, data: str, split: Split) -> Measurement:
        start = time.perf_counter()
        self.measured += 1
        metric, loss = self.task.score(self._rounds.outputs(plan, data, split), split)
        train_loss = None
        if self.settings.train_loss:
            train_loss = self.task.score(self._rounds.outputs(plan, "train", self._calibration), self._calibration)[1]
        sparsity = tuple(1 - width / size for width, size in zip(plan.widths, self.sizes, strict=True))
        costs = self.costs.all(*plan.levels)
        seconds = time.perf_counter() - start
        return Measurement(metric, loss, **costs, sparsity=sparsity, train_loss=train_loss, seconds=seconds)

    def _known_on_disk(self, plan: Plan) -> Measurement:
        known = self.disk.get(plan) if self.disk else None
        if known is None:
            known = self._measure(plan, "valid", self.task.valid)
            if self.disk:
                self.disk.put(plan, known)
        return known

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """One thread of Python at a time, with the number of threads of torch that was asked for."""
        with self._lock:
            before, wanted = torch.get_num_threads(), self.resources.num_threads
            if wanted is None or wanted == before:
                yield
                return
            torch.set_num_threads(wanted)
            try:
                yield
            finally:
                torch.set_num_threads(before)

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveEvaluator:
        return self

    def __reduce__(self) -> Any:
        return live_evaluator, (self.task, self.settings, self.resources)


def _bytes_of(plan: Plan) -> int:
    """Bytes of a plan and its measurement, roughly: numbers up to 256 are shared by all."""
    own = 900 + 200 * len(plan.keep) + sum(8 * len(kept) for kept in plan.keep if not isinstance(kept, int))
    return own + (_bytes_of(plan.parent) if plan.parent else 0)


def _spread(split: Split, count: int) -> Split:
    """At most `count` examples, evenly spaced, so that data sorted by class gives every class."""
    if count >= len(split):
        return split
    return split[torch.from_numpy(np.linspace(0, len(split) - 1, count).round().astype(np.int64))]
