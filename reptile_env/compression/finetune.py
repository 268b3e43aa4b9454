"""Fine-tuning: training of a compressed network on the task's training data, with the dense network as teacher where asked."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils import _pytree as pytree

from reptile_env.compression.device import Device
from reptile_env.compression.workbench import Workbench
from reptile_env.tasks.splits import Split, call, own_generators
from reptile_env.tasks.task import BATCH_SIZE, Task, concatenate

HELD_OUT, MOST_HELD_OUT = 10, 1000  # one in ten training examples, and at most so many, are looked at but not trained on
LOOKS = 10  # at their loss while training
# Longer gradients are shortened to this norm: the first steps on a deeply cut network would throw it far off otherwise.
LARGEST_GRADIENT = 1.0


def finetune(bench: Workbench, task: Task, settings: Any, teacher: nn.Module, device: Device | None = None) -> None:
    """Train the compressed network in place and keep the best weights.

    A tenth of the training examples is held out of the batches. The loss there is looked at before training and ten times on
    the way, and the network is left as it was when that was lowest: no training makes it worse on them. Batch norms and dropout
    train as well, so statistics are those of the compressed network. Weights that were removed stay zero.

    Args:
        bench: its model is trained.
        task: gives training examples and loss.
        settings: a `reptile_env.evaluation.settings.Finetune`.
        teacher: the dense network, which distillation copies.
        device: on which it is trained, where that is not the CPU; the loss is the CPU's in any case.
    """
    _own_tensors(bench.model)
    with device.holding(bench.model, settings.seed) if device else contextlib.nullcontext():
        _train(bench, _Objective(task, settings, device.copy(teacher) if device else teacher, device))


def _train(bench: Workbench, objective: _Objective) -> None:
    model, task, settings = bench.model, objective.task, objective.settings
    masks = [(model.get_parameter(name), (~mask).to(model.get_parameter(name).device)) for name, mask in bench.masks.items()]
    generator = torch.Generator().manual_seed(settings.seed)
    batches, held = _parted(task.train, settings.batch_size, generator)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = _optimizer(parameters, settings)
    schedule = _schedule(optimizer, settings)
    taught = objective.taught(held)
    looks = {math.ceil(settings.steps * k / LOOKS) for k in range(1, LOOKS + 1)}
    with own_generators(settings.seed):
        best, kept = _look(model, objective, held, taught), _snapshot(model)
        for step in range(1, settings.steps + 1):
            model.train()
            value = objective.of_batch(model, next(batches))
            if not torch.isfinite(value):
                break  # it diverged; what was best before stays
            optimizer.zero_grad()
            torch.autograd.backward(value)
            for weight, gone in masks:
                # No gradient, no momentum, no decay: what is zero stays zero.
                if weight.grad is not None:
                    weight.grad.masked_fill_(gone, 0)
            nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            if step in looks and (loss := _look(model, objective, held, taught)) < best:
                best, kept = loss, _snapshot(model)
    _restore(model, kept)
    for parameter in parameters:
        parameter.grad = None
    model.eval().requires_grad_(False)


def check(model: nn.Module, task: Task, settings: Any) -> None:
    """Refuse a task that can't be trained on, before the first training.

    Args:
        model: the dense network; it is not altered.
        task: gives training examples and loss.
        settings: a `reptile_env.evaluation.settings.Finetune`.

    Raises:
        ValueError: too few training examples, or a loss without a gradient.
    """
    if len(task.train) < 2:
        raise ValueError(
            f"recovery 'finetune' needs at least 2 training examples and task {task.name!r} has {len(task.train)}; give more"
        )
    trained = copy.deepcopy(model).train()
    for parameter in trained.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    batches, _ = _parted(task.train, settings.batch_size, torch.Generator().manual_seed(settings.seed))
    with own_generators(settings.seed):
        try:
            torch.autograd.backward(_Objective(task, settings, model).of_batch(trained, next(batches)))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"recovery 'finetune' can't train task {task.name!r}: {reason}; give Task a loss of torch operations that returns "
                "one number, more training examples where they are few, or use finetune={'distillation': 1.0} or "
                "recovery='reconstruct'"
            ) from error


@dataclass(frozen=True)
class _Objective:
    """What is made small: the task's loss and the distance to the teacher's outputs, weighed."""

    task: Task
    settings: Any
    teacher: nn.Module
    device: Device | None = None

    def of_batch(self, model: nn.Module, batch: Split) -> Tensor:
        taught = None
        if self.settings.distillation > 0:
            with torch.no_grad():
                taught = self._call(self.teacher, batch)
        return self.of(self._call(model, batch), batch.targets, taught)

    def of(self, outputs: Any, targets: Tensor, taught: Any) -> Tensor:
        share = self.settings.distillation
        value: Tensor = (1 - share) * self.task.loss(outputs, targets) if share < 1 else torch.zeros(())
        return value + share * distance(outputs, taught, targets, self.settings.temperature) if share > 0 else value

    def taught(self, data: Split) -> Any:
        return self.outputs(self.teacher, data) if self.settings.distillation > 0 else None

    def outputs(self, model: nn.Module, data: Split) -> Any:
        with torch.inference_mode():
            return concatenate([self._call(model, batch) for batch in data.batches(BATCH_SIZE)])

    def _call(self, model: nn.Module, batch: Split) -> Any:
        return call(model, batch.inputs) if self.device is None else self.device.call(model, batch.inputs)


def distance(outputs: Any, taught: Any, targets: Tensor, temperature: float) -> Tensor:
    """How far outputs are from the teacher's; the mean over their floating-point tensors, whatever they are nested in.

    Of class logits ``(n, classes)``, which class numbers ``(n,)`` as targets tell, it is the Kullback-Leibler divergence from the
    teacher's probabilities, both softened by `temperature`, times its square (Hinton et al., Distilling the Knowledge in a
    Neural Network, 2015). Of all else it is the mean squared error.

    Raises:
        ValueError: there is no floating-point output.
    """
    pairs = zip(pytree.tree_leaves(outputs), pytree.tree_leaves(taught), strict=True)
    floats = [(o, t) for o, t in pairs if isinstance(o, Tensor) and o.is_floating_point()]
    if not floats:
        raise ValueError("distillation needs floating-point outputs")
    classes = targets.dim() == 1 and not targets.is_floating_point()
    return torch.stack(
        [_divergence(o, t, temperature) if classes and o.dim() == 2 else functional.mse_loss(o, t) for o, t in floats]
    ).mean()


def _divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    ours, theirs = (functional.log_softmax(x / temperature, dim=1) for x in (logits, taught))
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _own_tensors(model: nn.Module) -> None:
    """Give a network tensors of its own in place of those that it shares with others, tied ones still tied."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def _parted(data: Split, batch_size: int, generator: torch.Generator) -> tuple[Iterator[Split], Split]:
    """Endless batches of training examples, and those that are held out of them."""
    count = min(max(len(data) // HELD_OUT, 1), MOST_HELD_OUT)
    order = torch.randperm(len(data), generator=generator)
    return _batches(data, order[count:], batch_size, generator), data[order[:count].sort().values]


def _batches(data: Split, rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Split]:
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        # What is left over at the end of an epoch makes no batch: it may be too few for batch norm.
        whole = order if len(order) < size else order[: len(order) // size * size]
        for start in range(0, len(whole), size):
            yield data[whole[start : start + size]]


def _optimizer(parameters: list[nn.Parameter], settings: Any) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)


def _schedule(optimizer: torch.optim.Optimizer, settings: Any) -> lr_scheduler.LRScheduler:
    if settings.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    if settings.schedule == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, cycle_momentum=False)
    return lr_scheduler.ConstantLR(optimizer, factor=1)


def _look(model: nn.Module, objective: _Objective, held: Split, taught: Any) -> float:
    """Loss on the examples held out, infinite where it is no number."""
    model.eval()
    with torch.no_grad():
        loss = float(objective.of(objective.outputs(model, held), held.targets, taught))
    return loss if math.isfinite(loss) else math.inf


def _snapshot(model: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def _restore(model: nn.Module, kept: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip((*model.parameters(), *model.buffers()), kept, strict=True):
            tensor.copy_(value)
