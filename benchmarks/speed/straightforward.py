"""What a step is compared with: the environment's measurement as one would write it without thinking of speed.

Per step: copy the dense network, cut it with torch-pruning, refit what reads cut channels by `torch.linalg.lstsq`, evaluate the
whole validation split. Nothing is slow on purpose: what never changes (dense inputs and outputs of the layers to refit, the
validation split in batches of the fastest size, channels_last) is made once and kept. Nothing that depends on a plan is.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.compression import consumers, hooks, moments, prune, reconstruct, shrinkage
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.groups import Structure, tensors_of
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import structure_of
from reptile_env.tasks.splits import Inputs
from reptile_env.tasks.task import Task

BATCH_SIZES = (64, 128, 256)
RCOND = 1e-6  # the default grows with the rows: 0.06 for half a million, which cuts away what matters
# By layer and dimension of its weight that is cut.
_PRUNERS = {
    (nn.Conv2d, 0): torch_pruning.prune_conv_out_channels,
    (nn.Conv2d, 1): torch_pruning.prune_conv_in_channels,
    (nn.Linear, 0): torch_pruning.prune_linear_out_channels,
    (nn.Linear, 1): torch_pruning.prune_linear_in_channels,
    (nn.BatchNorm2d, 0): torch_pruning.prune_batchnorm_out_channels,
}


class Straightforward:
    """Measures plans as `LiveEvaluator` does, the plain way.

    Args:
        task: images, and a network of `nn.Conv2d`, `nn.Linear` and batch norm.
        name: ``reconstruct``: rows of dense inputs, all of them. ``reconstruct-sequential``: the rows that the environment
            samples, of what each layer reads in the network that is cut and refitted up to it.
        examples: training examples that the refits see.
        sampled: False: all rows for ``reconstruct-sequential`` too, as one would do who does not think of sampling; its
            measurements are then not quite the environment's.

    Raises:
        ValueError: another recovery.
    """

    def __init__(self, task: Task, name: str, examples: int = 512, sampled: bool = True) -> None:
        if name not in ("reconstruct", "reconstruct-sequential"):
            raise ValueError(f"recovery={name!r}; reconstruct and reconstruct-sequential are compared here")
        self.task, self._sequential, self._sampled = task, name == "reconstruct-sequential", sampled
        self._structure = structure_of(task)
        self._dense = copy.deepcopy(task.model).requires_grad_(True)  # torch-pruning follows gradients
        self._example = task.valid[:1].inputs
        groups = range(len(self._structure.groups))
        self._followed = [_graph_follows(self._dense, self._structure, group, self._example) for group in groups]
        self._consumers = consumers.find_consumers(self._structure, task.valid[:4].inputs)
        spread = np.linspace(0, len(task.train) - 1, min(examples, len(task.train))).round().astype(np.int64)
        self._calibration = task.train[torch.from_numpy(spread)]
        second = moments.collect(task.model, self._consumers, self._calibration, max(BATCH_SIZES))
        self._prior = {consumer: cached.dense[0] for consumer, cached in second.items()}
        self._targets = reconstruct.collect_targets(task.model, self._consumers, second, self._calibration)
        self._seen: dict[Consumer, tuple[Tensor, Tensor]] = {} if self._sequential and sampled else self._observe()
        self.batch_size, self._batches = self._fastest_batches()

    def measure(self, plan: Plan) -> tuple[float, float]:
        """Metric and loss on the validation split of the network that `plan` gives."""
        return self.score(self.build(plan))

    def score(self, model: nn.Module) -> tuple[float, float]:
        """Metric and loss of a network on the validation split."""
        with torch.inference_mode():
            outputs = torch.cat([model(batch) for batch in self._batches])
        return self.task.score(outputs, self.task.valid)

    def build(self, plan: Plan) -> nn.Module:
        """The network cut to `plan` and refitted, a new one each time, channels_last."""
        model: Any = copy.deepcopy(self._dense)
        self._cut(model, plan)
        model = model.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            if self._sequential:
                self._refit_in_turn(model, plan)
            else:
                self._refit(model, plan)
        return model

    def _cut(self, model: nn.Module, plan: Plan) -> None:
        graph = torch_pruning.DependencyGraph().build_dependency(model, self._example)
        for index, (group, keep) in enumerate(zip(self._structure.groups, plan.keep, strict=True)):
            assert not isinstance(keep, int)
            gone = sorted(set(range(group.size)) - set(keep))
            if gone and self._followed[index]:
                layer = model.get_submodule(group.name)
                graph.get_pruning_group(layer, _PRUNERS[type(layer), 0], gone).prune()
            elif gone:
                _cut_by_hand(model, self._structure, index, gone)

    def _refit(self, model: nn.Module, plan: Plan) -> None:
        for consumer in self._consumers:
            kept = self._kept(plan, consumer, consumer.into)
            if kept is not None:
                inputs, outputs = self._seen[consumer]
                rows = _rows(self._dense.get_submodule(consumer.layer), inputs[:, kept])
                self._fit(model, plan, consumer, kept, rows, outputs)

    def _refit_in_turn(self, model: nn.Module, plan: Plan) -> None:
        """One pass over the calibration examples; each layer is refitted just before it runs."""
        changed = False

        def hook_of(consumer: Consumer) -> Any:
            kept = self._kept(plan, consumer, consumer.into)

            def before(layer: nn.Module, inputs: Tensor) -> None:
                nonlocal changed
                changed = changed or kept is not None
                if changed:
                    target = self._targets[consumer]
                    picked, outputs = (target.picked, target.outputs[0]) if self._sampled else (None, self._seen[consumer][1])
                    self._fit(model, plan, consumer, kept, _rows(layer, inputs, picked), outputs)

            return before

        handles = [hooks.before(model.get_submodule(c.layer), hook_of(c)) for c in self._consumers]
        with hooks.attached(handles):
            model(self.calibration)

    def _fit(self, model: nn.Module, plan: Plan, consumer: Consumer, kept: Tensor | None, rows: Tensor, outputs: Tensor) -> None:
        """Refit a layer of the cut network to `outputs` of the dense one, from `rows` of its inputs."""
        left = self._kept(plan, consumer, consumer.out)
        y = outputs if left is None else outputs[:, left]
        x = rows if consumer.shift is None else torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        if self._sequential and len(x) < shrinkage.FEW_ROWS * x.shape[1]:
            solution = self._shrunk(consumer, kept, x.double(), y.double(), left)
        else:
            # The driver that is as fast as QR and takes dead channels, which QR refuses.
            solution = torch.linalg.lstsq(x, y, rcond=RCOND, driver="gelsd").solution
        layer: Any = model.get_submodule(consumer.layer)
        weights = solution[: rows.shape[1]]
        layer.weight.copy_(weights.T.reshape(layer.weight.shape))
        if consumer.shift is not None:
            path, _, leaf = consumer.shift.rpartition(".")
            shift = getattr(model.get_submodule(path), leaf)
            if consumer.sign > 0:
                shift.copy_(solution[-1])
            else:
                shift.sub_(solution[-1])

    def _shrunk(self, consumer: Consumer, kept: Tensor | None, x: Tensor, y: Tensor, left: Tensor | None) -> Tensor:
        """With too few rows for plain least squares: the environment's ridge."""
        prior = self._prior[consumer] if left is None else self._prior[consumer][:, left]
        if kept is not None:
            kernel = (len(prior) - (consumer.shift is not None)) // int(self._dense.get_parameter(consumer.weight).shape[1])
            features = (kept[:, None] * kernel + torch.arange(kernel)).flatten()
            prior = torch.cat([prior[features], prior[-1:]]) if consumer.shift is not None else prior[features]
        count = len(x)
        gram, cross = (x.T @ x / count)[None], (x.T @ y / count)[None]
        return shrinkage.solve(gram, cross, prior[None], y.square().mean(0).sum()[None], count, consumer.shift is not None)[0]

    def _kept(self, plan: Plan, consumer: Consumer, dim: int) -> Tensor | None:
        """Positions of a consumer's weight along a dimension that `plan` keeps; None: all."""
        axis = self._structure.axes.get((consumer.weight, dim))
        if axis is None:
            return None
        positions = prune.kept_positions(axis, self._structure, plan)
        return None if len(positions) == len(axis.group) else torch.from_numpy(positions)

    @property
    def calibration(self) -> Tensor:
        """The inputs that refits see."""
        return _channels_last(self._calibration.inputs)

    def _observe(self) -> dict[Consumer, tuple[Tensor, Tensor]]:
        """For each consumer its dense inputs and the rows of its dense outputs."""
        seen: dict[Consumer, tuple[Tensor, Tensor]] = {}

        def note(consumer: Consumer, layer: Any, inputs: Tensor, output: Tensor) -> None:
            seen[consumer] = inputs.clone(), output.movedim(1, -1).reshape(-1, output.shape[1]).clone()

        moments.run_observed(self.task.model, self._consumers, self._calibration, len(self._calibration), note)
        return seen

    def _fastest_batches(self) -> tuple[int, list[Tensor]]:
        """The validation split, channels_last, in batches of the size with which the dense network runs fastest."""
        model: Any = copy.deepcopy(self._dense)
        model = model.to(memory_format=torch.channels_last)
        choices = {size: [_channels_last(b.inputs) for b in self.task.valid.batches(size)] for size in BATCH_SIZES}
        took = {}
        with torch.inference_mode():
            for size, batches in choices.items():
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    for batch in batches:
                        model(batch)
                    times.append(time.perf_counter() - start)
                took[size] = min(times)
        best = min(took, key=took.__getitem__)
        return best, choices[best]


def _graph_follows(model: nn.Module, structure: Structure, index: int, example: Inputs) -> bool:
    """Whether torch-pruning cuts a group where its channels really are; it loses them where padding adds channels, say."""
    group = structure.groups[index]
    gone = list(range(0, group.size, 2))
    keep = [range(1, g.size, 2) if i == index else range(g.size) for i, g in enumerate(structure.groups)]
    expected = prune.cut(tensors_of(model), structure, Plan(structure.names, keep))
    trial = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(trial, example)
    layer = trial.get_submodule(group.name)
    graph.get_pruning_group(layer, _PRUNERS[type(layer), 0], gone).prune()
    found = tensors_of(trial)
    return all(torch.equal(found[name], expected.get(name, tensor)) for name, tensor in tensors_of(model).items())


def _cut_by_hand(model: nn.Module, structure: Structure, index: int, gone: list[int]) -> None:
    """Cut a group layer by layer, with torch-pruning's functions for one layer."""
    for (name, dim), axis in structure.axes.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "weight" and (axis.group == index).any():
            layer = model.get_submodule(path)
            positions = np.flatnonzero((axis.group == index) & np.isin(axis.channel, gone))
            _PRUNERS[type(layer), dim](layer, positions.tolist())


def _rows(layer: Any, inputs: Tensor, picked: Tensor | None = None) -> Tensor:
    """What a layer's weight multiplies, ``(rows, features)``, all rows or the picked ones."""
    if isinstance(layer, nn.Linear):
        return inputs if picked is None else inputs[picked]
    if picked is None:
        return functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT.flatten(0, 1)
    down, across = layer.padding
    patches = functional.pad(inputs, (across, across, down, down))
    for dim in (2, 3):
        patches = patches.unfold(dim, layer.kernel_size[dim - 2], layer.stride[dim - 2])
    example, y, x = np.unravel_index(picked.numpy(), (len(inputs), *patches.shape[2:4]))
    return patches[torch.from_numpy(example), :, torch.from_numpy(y), torch.from_numpy(x)].flatten(1)


def _channels_last(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
