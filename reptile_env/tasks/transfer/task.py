"""The tasks of the transfer family: how a member is built, and how it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reptile_env.tasks.checkpoints import load_checkpoint
from reptile_env.tasks.recipe import Progress
from reptile_env.tasks.registry import references
from reptile_env.tasks.task import Task
from reptile_env.tasks.training import shift, train
from reptile_env.tasks.transfer import data
from reptile_env.tasks.transfer.members import MEMBERS, SUITE
from reptile_env.tasks.transfer.networks import KINDS

# Passes over a set, examples of a batch (no set leaves a batch of one example), and how much longer some kinds take.
_EPOCHS, _USUAL_EPOCHS = {"mnist1d": 12, "digits-pairs": 20, "clusters": 40, "hastie": 40}, 60
_BATCH, _USUAL_BATCH = dict.fromkeys(_EPOCHS, 96), 48
_LONGER = {"mlp": 2, "mobilenet": 2, "transformer": 2}
_LEARNING_RATE, _USUAL_RATE = {"lstm": 1e-2, "gru": 1e-2}, 4e-3
_WEIGHT_DECAY, _USUAL_DECAY = {"mlp": 0.1}, 1e-2


def network(name: str) -> nn.Module:
    """The untrained network of a member; the global generator is left as it was."""
    member = MEMBERS[name]
    inputs = data.splits(member.data, member.view)[0].inputs
    assert isinstance(inputs, Tensor)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(member.seed)
        return KINDS[member.kind](tuple(inputs.shape[1:]), data.classes(member.data), **member.layers)


def train_network(name: str, progress: Progress = lambda done: None) -> nn.Module:
    """Train a member from its seed; `progress` is told the fraction done."""
    member = MEMBERS[name]
    epochs = round(_EPOCHS.get(member.data, _USUAL_EPOCHS) * _LONGER.get(member.kind, 1) * member.longer)
    # A network that reads each pixel by its place has no use for pixels that move.
    view, moves = data.VIEWS[member.view], member.data.startswith("digits") and member.kind != "mlp"

    def arranged(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return view(shift(inputs, generator) if moves else inputs)

    return train(
        network(name),
        data.training_examples(member.data),
        loss=nn.functional.cross_entropy,
        seed=member.seed,
        epochs=epochs,
        batch_size=_BATCH.get(member.data, _USUAL_BATCH),
        lr=_LEARNING_RATE.get(member.kind, _USUAL_RATE),
        weight_decay=_WEIGHT_DECAY.get(member.kind, _USUAL_DECAY),
        augment=arranged,
        progress=lambda epoch, _: progress((epoch + 1) / epochs),
    )


def task(name: str) -> Task:
    """A trained network with its data. The weight of its metric is the calibrated one, once it is calibrated."""
    member, model = MEMBERS[name], network(name)
    model.load_state_dict(load_checkpoint(f"{SUITE}/{name}"))
    w = references().get(name, {}).get("w")
    return Task(model, *data.splits(member.data, member.view), name=name, family=member.kind, w=w)
