"""Candidate groups from traced producers: channels that meet at the same place are removed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from reptile_env.compression.producers import PER_CHANNEL, Positions, Producer, Slot, is_depthwise
from reptile_env.compression.tracing import (
    NOBODY,
    MixedError,
    Ties,
    UntraceableError,
    consumer_slots,
    tied_features,
    tied_outputs,
    trace,
)
from reptile_env.errors import first_line
from reptile_env.tasks.splits import Inputs


@dataclass
class Candidate:
    """A group that is still to be checked.

    Attributes:
        root: name of the group.
        kind: as `Group.kind`.
        size: channels.
        slots: tensors that shrink with it.
        producers: layers that make the channels.
        consumers: layers that read them.
        reason: why it can't be cut; empty where nothing speaks against it yet.
    """

    root: str
    kind: str
    size: int
    slots: list[Slot] = field(default_factory=list)
    producers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    reason: str = ""


def assemble(model: nn.Module, inputs: Inputs, producers: Sequence[Producer]) -> list[Candidate]:
    """Candidates of `producers`: one for each set of producers whose channels are tied to one another."""
    modules = dict(model.named_modules())
    candidates, followed, reached = [], [], []
    for producer in producers:
        try:
            traced, layers = _trace_blocks(model, inputs, producer)
            followed.append(traced)
            reached.append(layers)
        except UntraceableError as error:
            candidates.append(Candidate(producer.name, producer.kind, producer.size, reason=str(error)))
        except Exception as error:  # marked channels may bring a network to raise anything
            reason = f"the network does not run with its channels marked: {first_line(error)}"
            candidates.append(Candidate(producer.name, producer.kind, producer.size, reason=reason))
    ties = _ties(modules, followed, reached)
    members: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, producer in enumerate(followed):
        for channel in range(producer.size):
            members[ties.find(ties.node(index, channel))].append((index, channel))
    by_producers: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for root, nodes in members.items():
        by_producers[tuple(sorted({index for index, _ in nodes}))].append(root)
    for indices, roots in by_producers.items():
        number = {root: i for i, root in enumerate(sorted(roots))}
        candidates.append(_candidate(modules, [(i, followed[i], reached[i]) for i in indices], ties, number))
    return candidates


def joined(parts: Sequence[Candidate]) -> Candidate:
    """One candidate of several of the same size, whose channels of equal number are removed together."""
    whole = Candidate(parts[0].root, parts[0].kind, parts[0].size)
    for part in parts:
        whole.slots += part.slots
        whole.producers += part.producers
        whole.consumers += part.consumers
    return whole


def _trace_blocks(model: nn.Module, inputs: Inputs, producer: Producer) -> tuple[Producer, dict[str, Positions]]:
    """Trace a producer; where several of its outputs become one channel, trace those together.

    Outputs become one in blocks (a reshape to an image), or at equal distances (halves that gate one another: GLU).
    """
    try:
        return producer, trace(model, inputs, producer)
    except MixedError as mixed:
        width, features = len(producer.outputs), mixed.features
        if producer.kind not in ("linear", "conv") or features >= width or width % features:
            raise
        for together in (np.arange(width) // (width // features), np.arange(width) % features):
            slots = tuple(replace(slot, channels=together[slot.channels]) for slot in producer.slots)
            coarse = replace(producer, outputs=together, slots=slots)
            try:
                return coarse, trace(model, inputs, coarse)
            except MixedError:
                continue
        raise


def _ties(modules: dict[str, nn.Module], producers: Sequence[Producer], reached: Sequence[dict[str, Positions]]) -> Ties:
    ties = Ties([producer.size for producer in producers])
    at: dict[tuple[str, int], int] = {}
    for index, (producer, layers) in enumerate(zip(producers, reached, strict=True)):
        for name, channels in layers.items():
            for position in np.flatnonzero(channels != NOBODY):
                node = ties.node(index, channels[position])
                ties.tie(at.setdefault((name, int(position)), node), node)
        for together in tied_outputs(modules[producer.tap]):
            for channel in together[1:]:
                ties.tie(ties.node(index, together[0]), ties.node(index, channel))
    for name in {name for layers in reached for name in layers}:
        for together in tied_features(modules[name]):
            nodes = [at[name, position] for position in together if (name, position) in at]
            for node in nodes[1:]:
                ties.tie(nodes[0], node)
    return ties


def _candidate(
    modules: dict[str, nn.Module], parts: list[tuple[int, Producer, dict[str, Positions]]], ties: Ties, number: dict[int, int]
) -> Candidate:
    _, first, _ = parts[0]
    candidate = Candidate(first.name, first.kind, len(number))
    for index, producer, layers in parts:
        to_group = np.array([number.get(ties.find(ties.node(index, c)), NOBODY) for c in range(producer.size)])
        candidate.slots += [_renumbered(slot, to_group) for slot in producer.slots]
        candidate.producers += producer.layers
        for name, channels in layers.items():
            mine = np.where(channels == NOBODY, NOBODY, to_group[channels])
            layer = modules[name]
            candidate.slots += consumer_slots(name, layer, mine)
            if is_depthwise(layer):
                candidate.producers.append(name)
                candidate.kind = "depthwise" if candidate.kind == "conv" else candidate.kind
            elif not isinstance(layer, PER_CHANNEL):
                candidate.consumers.append(name)
    if any(getattr(modules[name], "groups", 1) > 1 and not is_depthwise(modules[name]) for name in candidate.consumers):
        untied = [slot for slot in candidate.slots if _contradicts(slot)]
        if untied:
            candidate.reason = f"its channels can't be removed evenly from {untied[0].tensor}"
    return candidate


def _renumbered(slot: Slot, to_group: Positions) -> Slot:
    channels = to_group[slot.channels]
    kept = channels != NOBODY
    return Slot(slot.tensor, slot.dim, slot.positions[kept], channels[kept])


def _contradicts(slot: Slot) -> bool:
    """Whether a position is claimed by different channels."""
    owner: dict[int, int] = {}
    return any(owner.setdefault(int(p), int(c)) != int(c) for p, c in zip(slot.positions, slot.channels, strict=True))
