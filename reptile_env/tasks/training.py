"""Training of the built-in networks, reproducible from a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reptile_env.tasks.splits import Split, call


def train(
    model: nn.Module,
    data: Split,
    *,
    epochs: int,
    loss: Callable[..., torch.Tensor],
    seed: int = 0,
    batch_size: int = 64,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """Train `model` in place with AdamW and a one-cycle schedule; the global generator is left as it was.

    Args:
        model: network to train; its random layers (dropout) draw from `seed` too.
        data: training examples.
        epochs: passes over the data.
        loss: ``(outputs, targets) -> scalar``.
        seed: of the order of examples, augmentation and random layers.
        batch_size: examples a step.
        lr: peak learning rate.
        weight_decay: of AdamW.
        augment: ``(inputs, generator) -> inputs``, applied to each batch.
        progress: called after each epoch with its number and mean loss.

    Returns:
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * -(-len(data) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for epoch in range(epochs):
            order, total = torch.randperm(len(data), generator=generator), 0.0
            for batch in data[order].batches(batch_size):
                inputs = batch.inputs
                if augment is not None and isinstance(inputs, torch.Tensor):
                    inputs = augment(inputs, generator)
                value = loss(call(model, inputs), batch.targets)
                optimizer.zero_grad()
                torch.autograd.backward(value)
                optimizer.step()
                schedule.step()
                total += float(value.detach()) * len(batch)
            progress(epoch, total / len(data))
    return model.eval()


def shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images ``(n, c, h, w)`` moved by up to one pixel, each by its own draw, zeros moving in."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (len(images), 2), generator=generator)
    height, width = images.shape[-2:]
    moved = [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets.tolist())]
    return torch.stack(moved)
