"""Refitting weights in closed form: from dense inputs, or layer by layer from what the compressed network gives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.compression import consumers, hooks, masked, moments, prune, shrinkage
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.moments import Moments
from reptile_env.compression.padding import Padding
from reptile_env.compression.plan import Plan
from reptile_env.compression.prefix import Stage
from reptile_env.compression.replay import Held, Stop
from reptile_env.compression.workbench import Targets, Workbench, kept_of, tensors_for
from reptile_env.tasks.splits import Split, call

# Rows that a sequential refit looks at, for each feature of the consumer, and at most.
ROWS_PER_FEATURE, MOST_ROWS = 8, 8192


def reconstruct(bench: Workbench, plan: Plan) -> set[str]:
    """Refit every consumer to its dense outputs, in closed form from cached moments; no data pass."""
    fitted = refitted(bench, plan)
    prune.install(bench.model, fitted, bench.structure.model)
    return set(fitted)


def refitted(bench: Workbench, plan: Plan) -> dict[str, Tensor]:
    """The tensors that `reconstruct` puts into the network; they depend on the plan alone."""
    fitted: dict[str, Tensor] = {}
    for consumer in bench.moments():
        fitted |= _from_dense(bench, plan, consumer)
    return fitted


def _from_dense(bench: Workbench, plan: Plan, consumer: Consumer) -> dict[str, Tensor]:
    """A consumer refitted to what it reads in the dense network; empty where nothing of it was cut."""
    channels, mask = kept_of(bench, plan, consumer, consumer.into), bench.masks.get(consumer.weight)
    if channels is None and mask is None:
        return {}
    layer, cached = bench.layers[consumer.layer], bench.moments()[consumer]
    if mask is None:
        assert channels is not None
        key = consumer.weight, bench.maps.kept(consumer.weight, plan)
        tensors = bench.solved.get(key)
        if tensors is None:
            tensors = bench.solved.put(key, tensors_for(bench, plan, consumer, layer, *_solution(bench, plan, consumer, channels)))
        return tensors
    # The mask is all that it depends on, and a decision changes one mask.
    known = bench.fitted.get(consumer.weight)
    if known is None or known[0] is not mask:
        solution = masked.solve(cached.gram, cached.cross, cached.dense, _free(consumer, layer, mask, cached.constant))
        known = mask, tensors_for(bench, plan, consumer, layer, *moments.split(solution, cached.constant))
        bench.fitted[consumer.weight] = known
    return known[1]


def _solution(bench: Workbench, plan: Plan, consumer: Consumer, channels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weights and constants that read `channels`, whatever is kept of the outputs."""
    key = consumer.weight, "solution", bench.maps.kept_along(consumer.weight, consumer.into, plan)
    known = bench.solved.get(key)
    if known is None:
        weights, constants = bench.moments()[consumer].solve(channels)
        known = bench.solved.put(key, {"weights": weights} | ({} if constants is None else {"constants": constants}))
    return known["weights"], known.get("constants")


def _free(consumer: Consumer, layer: nn.Module, mask: Tensor, constant: bool) -> Tensor:
    """A mask as a matrix of features and outputs; a constant is always free."""
    free = consumers.matrix(consumer, layer, mask)
    return functional.pad(free, (0, 0, 0, 1), value=True) if constant else free


def reconstruct_sequential(bench: Workbench, plan: Plan) -> set[str]:
    """Refit every consumer to its dense outputs from what it really reads in the compressed network, layer by layer.

    One forward pass over the calibration examples: each layer is refitted from sampled rows of its input just before it runs.
    Recurrent weights, which read what they produce, are refitted from dense states first.
    """
    fitted: dict[str, Tensor] = {}
    sequential = []
    known = bench.prefixes.find("calibration", plan) if bench.prefixes else None
    start, stage = known or (0, Stage([]))
    for consumer in bench.consumers:
        if consumer.hidden is not None:
            fitted |= _from_dense(bench, plan, consumer)
        elif consumer in bench.targets and not _runs_before(bench, consumer, start):
            sequential.append((consumer, kept_of(bench, plan, consumer, consumer.into)))
    fitted |= stage.tensors
    prune.install(bench.model, fitted, bench.structure.model)
    changed, done = stage.changed, dict(stage.tensors)
    changes: list[tuple[Consumer, dict[str, Tensor]]] = []

    def hook_of(consumer: Consumer, channels: Tensor | None) -> Any:
        def before(layer: nn.Module, given: Any) -> None:
            nonlocal changed
            # Layers before the first cut read what they read in the dense network.
            if channels is None and consumer.weight not in bench.masks and not changed:
                return
            changed = True
            kept = torch.arange(bench.state[consumer.weight].shape[consumer.into]) if channels is None else channels
            _, solution = refit(bench, consumer, layer, given, kept, quick=True)
            tensors = tensors_for(bench, plan, consumer, bench.layers[consumer.layer], *solution)
            prune.install(bench.model, tensors, bench.structure.model)
            changes.append((consumer, tensors))

        return before

    def end(layer: nn.Module, given: Any) -> None:
        raise Stop  # nothing is refitted behind the last layer

    handles = [hooks.before(bench.model.get_submodule(c.layer), hook_of(c, channels)) for c, channels in sequential]
    if sequential:
        handles.append(hooks.before(bench.model.get_submodule(sequential[-1][0].layer), end))
        try:
            with torch.no_grad(), hooks.attached(handles):
                held = _pass(bench, plan, start, stage)
        except RuntimeError as error:
            if bench.prefixes is None or bench.prefixes.replay is None:
                raise
            bench.prefixes.give_up(error)
            return reconstruct_sequential(bench, plan)
        for boundary, batch in held.items():
            earlier = [tensors for consumer, tensors in changes if _runs_before(bench, consumer, boundary)]
            merged = done | {name: tensor for tensors in earlier for name, tensor in tensors.items()}
            assert bench.prefixes is not None
            bench.prefixes.keep("calibration", plan, boundary, Stage([batch], merged, stage.changed or bool(earlier)))
    return set(fitted).union(*(tensors for _, tensors in changes))


def _runs_before(bench: Workbench, consumer: Consumer, boundary: int) -> bool:
    replay = bench.prefixes.replay if bench.prefixes else None
    return replay is not None and replay.first_call(consumer.layer) < boundary


def _pass(bench: Workbench, plan: Plan, start: int, stage: Stage) -> dict[int, Held]:
    """Run the network over the calibration examples until a hook raises `Stop`; gives what is held for later plans."""
    if bench.prefixes is None or bench.prefixes.replay is None:
        with contextlib.suppress(Stop):
            call(bench.model, bench.calibration.inputs)
        return {}
    hold = bench.prefixes.wanted("calibration", plan, start)
    batch = stage.batches[0] if stage.batches else None
    return bench.prefixes.replay.run(bench.model, bench.calibration.inputs, batch, hold)[1]


def refit(
    bench: Workbench, consumer: Consumer, layer: nn.Module, inputs: Any, channels: Tensor, quick: bool = False
) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """Second moments of what a consumer reads here and now, and the weights and constants that best rebuild its dense outputs.

    Where `quick`, the moments are good for these alone (see `moments.products`).
    """
    targets, cached = bench.targets[consumer], bench.moments()[consumer]
    x = consumers.rows(consumer, layer, inputs, None, targets.picked)
    if cached.constant:
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
    count = x.shape[1]
    prior = cached.dense[:, cached.features(channels)]
    mask = bench.masks.get(consumer.weight)
    if quick and mask is None and count >= shrinkage.FEW_ROWS * x.shape[2]:
        gram, cross = moments.products(x, targets.outputs, quick=True)
        solution = moments.try_solve(gram, cross, prior)
        if solution is not None:
            return gram, moments.split(solution, cached.constant)
    gram, cross = moments.products(x, targets.outputs)
    if mask is not None:
        solution = masked.solve(gram, cross, prior, _free(consumer, layer, mask, cached.constant))
    elif count < shrinkage.FEW_ROWS * gram.shape[-1]:
        power = targets.outputs.double().square().mean(1).sum(1)
        solution = shrinkage.solve(gram, cross, prior, power, count, cached.constant)
    else:
        solution = moments.solve(gram, cross, prior)
    return gram, moments.split(solution, cached.constant)


def collect_targets(
    model: nn.Module, found: Sequence[Consumer], cached: Mapping[Consumer, Moments], calibration: Split
) -> dict[Consumer, Targets]:
    """Sampled dense outputs of every consumer that runs once a forward pass; all calibration examples are one batch."""
    generator = torch.Generator().manual_seed(0)
    targets: dict[Consumer, Targets] = {}
    runs = dict.fromkeys(found, 0)
    padding = Padding(model)

    def observe(consumer: Consumer, layer: Any, inputs: Any, output: Any) -> None:
        runs[consumer] += 1
        moment = cached[consumer]
        real = padding.real_rows(layer, inputs)
        total = consumers.row_count(consumer, layer, inputs, output) if real is None else len(real)
        wanted = min(total, MOST_ROWS, ROWS_PER_FEATURE * moment.gram.shape[-1] * len(moment.gram))
        picked = torch.randperm(total, generator=generator)[:wanted].sort().values
        if real is not None:
            picked = real[picked]
        x = consumers.rows(consumer, layer, inputs, output, picked).double()
        weight = moment.dense[:, :-1] if moment.constant else moment.dense
        outputs = x @ weight + (moment.dense[:, -1:] if moment.constant else 0)
        targets[consumer] = Targets(picked, outputs.float())

    moments.run_observed(model, [c for c in found if c.hidden is None], calibration, len(calibration), observe, padding)
    return {consumer: target for consumer, target in targets.items() if runs[consumer] == 1}
