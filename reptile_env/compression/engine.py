"""From a plan to a network: one working copy that takes the tensors of each plan in turn."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reptile_env.compression import consumers, finetune, low_rank, moments, prune, quantize, reconstruct, recovery, running
from reptile_env.compression.bounded import Bounded
from reptile_env.compression.device import Device
from reptile_env.compression.granularity import Pruner, make_pruner
from reptile_env.compression.groups import Structure, tensors_of
from reptile_env.compression.importance import Scorer
from reptile_env.compression.moments import Moments
from reptile_env.compression.plan import FLOAT_BITS, Plan
from reptile_env.compression.prefix import Prefixes
from reptile_env.compression.workbench import Targets, Workbench
from reptile_env.tasks.splits import Inputs, Split, call, map_inputs
from reptile_env.tasks.task import BATCH_SIZE, Task, concatenate

WEIGHT_BYTES = 2**27  # of cut and refitted weights that are remembered


class Engine:
    """Cuts a network to plans and lets it recover. The network is really smaller; dense tensors are shared, never written.

    The order is fixed: prune, refit or recalibrate, factor to low rank, fine-tune, quantize.

    Args:
        task: gives training data and loss.
        structure: the network to start from and its groups.
        calibration: training examples that recovery sees.
        settings: of the evaluator (`reptile_env.evaluation.settings.Settings`).
        teacher: the network that distillation copies; the one of `structure` when left out.
        dense: the plan that leaves the network of `structure` as it is; the one that keeps everything when left out.
        device: on which it is run and trained, where that is not the CPU.

    Raises:
        ValueError: a recovery that does not fit the network, or a network that does not run on the device.
    """

    def __init__(
        self,
        task: Task,
        structure: Structure,
        calibration: Split,
        settings: Any,
        teacher: nn.Module | None = None,
        dense: Plan | None = None,
        device: Device | None = None,
    ) -> None:
        if device is not None:
            device.check(task.name, structure.model, task.valid[:4])
        recovery.check(settings.recovery, structure.model, len(calibration))
        self.task, self.structure, self.calibration, self.settings = task, structure, calibration, settings
        self.teacher, self.device = structure.model if teacher is None else teacher, device
        self.running = running.choose(structure.model, task.valid[:4])
        self.state = {name: self.running.arranged(tensor) for name, tensor in tensors_of(structure.model).items()}
        self._consumers = consumers.find_consumers(structure, task.valid[:4].inputs)
        self._moments: dict[consumers.Consumer, Moments] = {}
        scorer = self._scorer()
        self.pruner: Pruner = make_pruner(
            settings.granularity, structure, self.state, task.valid[:4].inputs, scorer, settings.importance
        )
        self.chosen = scorer.chosen  # by importance="auto", for each group
        self.names, self.sizes, self.costs, self.features = (
            self.pruner.names,
            self.pruner.sizes,
            self.pruner.costs,
            self.pruner.features,
        )
        self.dense = Plan.dense(self.names, self.sizes) if self.pruner.lists else Plan(self.names, self.sizes)
        self.dense = self.dense if dense is None else dense
        wanted = settings.recovery.split("+")
        self._finetunes = "finetune" in wanted
        if self._finetunes and teacher is None:
            finetune.check(structure.model, task, settings.finetune)
        self._steps = recovery.parse(settings.recovery)
        if any(name.startswith("reconstruct") for name in wanted):
            self.moments()
        self._targets: dict[consumers.Consumer, Targets] = {}
        if "reconstruct-sequential" in wanted:
            self._targets = reconstruct.collect_targets(structure.model, self._consumers, self.moments(), calibration)
        self._model = self._copy()
        self._replaced: set[str] = set()
        self._swapped: dict[str, nn.Module] = {}
        self._fitted: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        self._arranged = Split(map_inputs(self.running.arranged, calibration.inputs), calibration.targets)
        self._batches: dict[str, list[Inputs]] = {}  # of each split, in the memory format in which the network runs
        self._maps = prune.IndexMaps(structure)
        self._layers = {c.layer: structure.model.get_submodule(c.layer) for c in self._consumers}
        self.weights: Bounded[Any, dict[str, Tensor]] = Bounded(WEIGHT_BYTES, lambda _, d: 400 + sum(t.nbytes for t in d.values()))
        # Training leaves nothing as it was, so that no plan shares a part of the network with another.
        inputs = calibration[:3].inputs
        self.prefixes = None if self._finetunes else Prefixes(task.name, structure, self.dense, settings.recovery, inputs)

    @property
    def held_bytes(self) -> int:
        """Bytes of weights and activations that are kept from one plan to the next."""
        return self.weights.bytes + (self.prefixes.held.bytes if self.prefixes else 0)

    def limit(self, weights: int, activations: int) -> None:
        """Bytes that cut and refitted weights, and activations, may take from now on."""
        self.weights.limit = weights
        if self.prefixes is not None:
            self.prefixes.held.limit = activations

    def moments(self) -> dict[consumers.Consumer, Moments]:
        """Second moments of the inputs of every layer that has weights, collected at the first call."""
        if not self._moments:
            self._moments = moments.collect(self.structure.model, self._consumers, self.calibration, BATCH_SIZE)
        return self._moments

    def scores(self, importance: str) -> tuple[NDArray[np.float64], ...]:
        """For each group the scores of its dense channels, or of its weights where single ones go.

        Raises:
            ValueError: an importance without scores that groups could be compared by, or weights that go in fixed proportions.
        """
        if importance == "auto":
            raise ValueError("importance 'auto' chooses another rule for each group, and their scores can't be compared; name one")
        if self.settings.granularity == "2:4":
            raise ValueError("granularity='2:4' takes two of every four weights whatever their scores; use another granularity")
        scorer = self._scorer()
        if self.pruner.lists:
            return tuple(scorer.channels(importance, group).numpy() for group in range(len(self.sizes)))
        return tuple(scorer.weights(importance, weight).flatten().numpy() for weight in self.structure.weights)

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        return plan if count == 0 else self.pruner.cut(plan, group, count)

    def build(self, plan: Plan) -> nn.Module:
        """The network cut to `plan` and recovered; it is the engine's own, and the next call changes it."""
        if self._finetunes:
            # Training left no tensor as it was.
            self._model, self._replaced = self._copy(), set()
            self._swapped.clear()
        self._restore_modules()
        changed, bench, steps = self._cut_tensors(plan), self._workbench(plan), self._steps
        differs = plan.levels != self.dense.levels or plan.keep != self.dense.keep
        if differs and steps and steps[0] is reconstruct.reconstruct:
            # At once, so that only what differs from the plan before is put in.
            changed, steps = changed | reconstruct.refitted(bench, plan), steps[1:]
        whole: dict[str, Tensor] = {name: self.state[name] for name in self._replaced - changed.keys()}
        replaced, self._replaced = set(changed), set(self.state)  # until it is known: an interrupt must leave no stale tensor
        prune.install(self._model, whole | changed, self.structure.model)
        if differs:
            for step in steps:
                replaced |= step(bench, plan)
            if any(rank < 1 for rank in plan.ranks):
                replaced |= low_rank.factor(bench, plan)
                if recovery.recalibrate in self._steps:
                    replaced |= recovery.recalibrate(bench, plan)  # the statistics of the factored network, not the whole one's
            if self._finetunes:
                finetune.finetune(bench, self.task, self.settings.finetune, self.teacher, self.device)
            if any(bits < FLOAT_BITS for bits in plan.bits):
                replaced |= quantize.quantize(bench, plan, self.settings.rounding)
        self._replaced = replaced
        return self._model

    def outputs(self, plan: Plan, data: str, split: Split) -> Any:
        """Outputs of the network cut to `plan` for a whole split.

        Args:
            plan: what to keep.
            data: name of the split, by which what the beginning of the network makes of it is remembered.
            split: the data.
        """
        model = self.build(plan)
        if data not in self._batches:
            self._batches[data] = (self.device or self.running).batches(split)
        batches = self._batches[data]
        with torch.inference_mode():
            if self.device is not None:
                return concatenate(self.device.outputs(model, batches))
            if self.prefixes is None:
                return concatenate([call(model, inputs) for inputs in batches])
            return concatenate(self.prefixes.outputs(data, plan, model, batches))

    def _scorer(self) -> Scorer:
        # Not kept: what scores are computed from can be larger than the network.
        refits = any(name.startswith("reconstruct") for name in self.settings.recovery.split("+"))
        return Scorer(self.structure, self.state, self.moments, self.task, self.calibration, refits)

    def _copy(self) -> nn.Module:
        model = copy.deepcopy(self.structure.model)
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            # Not Module.to(memory_format=), which gives tensors of one channel other strides, and so other floats.
            tensor.data = self.running.arranged(tensor.data)
        return model

    def _cut_tensors(self, plan: Plan) -> dict[str, Tensor]:
        """`pruner.tensors`, one by one from memory where they are there."""
        if not self.pruner.lists:
            return self.pruner.tensors(plan)
        shrunk: dict[str, Tensor] = {}
        for name, dims in self._maps.tensors.items():
            kept = self._maps.kept(name, plan)
            if kept == self._maps.whole(name):
                continue
            known = self.weights.get((name, "cut", kept))
            if known is None:
                tensor = self.state[name]
                for dim in dims:
                    positions = self._maps.positions(name, dim, plan)
                    tensor = tensor if positions is None else tensor.index_select(dim, positions)
                known = self.weights.put((name, "cut", kept), {name: self.running.arranged(tensor)})
            shrunk |= known
        return shrunk

    def child(self, plan: Plan) -> Engine:
        """The engine of a next round: it starts from the network that was trained after `plan`, in float and not factored.

        Its groups are those that `plan` leaves, their channels numbered anew from 0.
        """
        float_plan = Plan(plan.names, plan.keep, ranks=plan.ranks)
        model: Any = copy.deepcopy(self.build(float_plan))
        for path, layer in self._swapped.items():
            model.set_submodule(path, low_rank.merged(model.get_submodule(path), copy.deepcopy(layer)))
        structure = self.structure.restricted(float_plan, model, self.pruner.masks(float_plan))
        dense = None if self.pruner.lists else Plan(plan.names, plan.keep)
        return Engine(self.task, structure, self.calibration, self.settings, self.teacher, dense, self.device)

    def _workbench(self, plan: Plan) -> Workbench:
        return Workbench(
            model=self._model,
            structure=self.structure,
            state=self.state,
            consumers=self._consumers,
            moments=self.moments,
            targets=self._targets,
            calibration=self._arranged,
            batch_size=BATCH_SIZE,
            masks=self.pruner.masks(plan),
            swapped=self._swapped,
            fitted=self._fitted,
            maps=self._maps,
            solved=self.weights,
            layers=self._layers,
            prefixes=self.prefixes,
            running=self.running,
        )

    def _restore_modules(self) -> None:
        # Latest first: a factor may itself have been wrapped.
        for path, module in reversed(self._swapped.items()):
            self._model.set_submodule(path, module)
        self._swapped.clear()
