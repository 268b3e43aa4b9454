"""Gradients of a task's loss by a network's parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from reptile_env.errors import first_line
from reptile_env.tasks.splits import Split, call
from reptile_env.tasks.task import Task


class NoGradientError(ValueError):
    """The loss has no gradient; the message says why and what to do."""


def of_batches(model: nn.Module, task: Task, data: Split, batch_size: int) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """For each batch its share of the examples, and the gradient of its loss by each parameter, float64.

    Args:
        model: in evaluation mode; it is not altered.
        task: gives the loss.
        data: examples.
        batch_size: examples a batch, at most; batches are of nearly equal size.

    Raises:
        NoGradientError: the loss has none, or it is not finite.
    """
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    size = math.ceil(len(data) / math.ceil(len(data) / batch_size))
    for number, batch in enumerate(data.batches(size)):
        copied.zero_grad(set_to_none=True)
        try:
            # A network that draws random numbers draws the same ones every time.
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(number)
                loss = task.loss(call(copied, batch.inputs), batch.targets)
                torch.autograd.backward(loss.sum())
        except Exception as error:  # whatever a loss of the user's raises
            raise _refused(task, first_line(error)) from error
        found = {name: p for name, p in copied.named_parameters() if p.is_floating_point()}
        gradients = {name: (torch.zeros_like(p) if p.grad is None else p.grad).double() for name, p in found.items()}
        broken = next((name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()), None)
        if broken is not None:
            raise _refused(task, f"by {broken} it is NaN or infinite")
        yield len(batch) / len(data), gradients


def _refused(task: Task, reason: str) -> NoGradientError:
    return NoGradientError(
        f"importance 'taylor' needs the gradient of the loss, and that of task {task.name!r} has none ({reason}); "
        "give Task a loss made of torch operations, or use importance='l1'"
    )
