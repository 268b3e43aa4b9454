"""Low rank: a layer as the product of two thinner ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import consumers, hooks, moments, prune, reconstruct, workbench
from reptile_env.compression.consumers import Consumer
from reptile_env.compression.cost import factor_rank
from reptile_env.compression.groups import Structure
from reptile_env.compression.macs import is_ranked
from reptile_env.compression.modules import Factored, factored
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import TRANSPOSED
from reptile_env.compression.workbench import Workbench
from reptile_env.tasks.splits import call

# Two factors of a layer's matrix, ``(features, rank)`` and ``(rank, outputs)``, float64.
Factors = tuple[Tensor, Tensor]
# A batch norm expects the variance that its inputs had; the projection takes some of it, layer after layer. It is given back,
# but an output of which little is left is mostly wrong and is stretched no further.
MOST_STRETCH = 2.0
_NO_POWER = 1e-13  # relative to the first principal component, whose square float64 knows to 2e-16


def factor(bench: Workbench, plan: Plan) -> set[str]:
    """Replace every layer to which `plan` gives a rank below 1 by two thinner ones.

    Their product is the one of its rank whose outputs are nearest to the layer's on what the layer reads in the dense network
    (see `decompose`). The bias, or the running mean of the batch norm that follows, takes the mean of what is lost. With a batch
    norm outputs are compared as it scales them, and the second factor is stretched so that each keeps its variance.

    Where the recovery is ``reconstruct-sequential``, it is what the layer reads in the compressed network, and each layer from
    the first factored one on is first refitted to its dense outputs: the asymmetric fit of Zhang et al., TPAMI 2016.

    Returns:
        Names of the tensors that were replaced in the network.
    """
    ranks = _ranks(bench, plan)
    replaced: set[str] = set()
    for consumer, rank in ranks.items():
        if consumer not in bench.targets:
            replaced |= _from_dense(bench, plan, consumer, rank)
    if any(consumer in bench.targets for consumer in ranks):
        replaced |= _sequential(bench, plan, ranks)
    return replaced


def decompose(gram: Tensor, weight: Tensor, rank: int) -> Factors:
    """The product of rank `rank` whose outputs are nearest to those of `weight`: it minimises ``trace((W - AB)ᵀ G (W - AB))``.

    A singular value decomposition of the weights (Denton et al., NeurIPS 2014) in the metric of the inputs' second moments
    (DRONE, Chen et al., NeurIPS 2021): the outputs are projected on their principal components (Zhang et al., TPAMI 2016).

    Args:
        gram: second moments ``G`` of the inputs, ``(features, features)``, float64.
        weight: ``W``, ``(features, outputs)``, float64.
        rank: at most the smaller of both.
    """
    root = torch.linalg.cholesky(moments.regular(gram[None], weight[None], weight[None])[0][0])
    seen = root.mT @ weight  # its rows are as good as the outputs: the same second moments
    # Eigenvectors of the smaller square: a tenth of the time of torch.linalg.svd.
    if len(weight) < weight.shape[1]:
        squares, vectors = torch.linalg.eigh(seen @ seen.mT)
        vectors = nn.functional.normalize(seen.mT @ vectors, dim=0)
    else:
        squares, vectors = torch.linalg.eigh(seen.mT @ seen)
    power = squares[-rank:].clamp_min(0)
    # Directions of no power are rounding errors of the eigenvectors, not orthogonal to the others.
    components = vectors[:, -rank:] * (power > _NO_POWER * squares[-1])
    # Half of each singular value goes to either factor, so that both are of like scale when they are quantized.
    scale = torch.where(power > 0, power, 1).pow(0.25)
    return weight @ components / scale, scale[:, None] * components.mT


def merged(factors: Factored, layer: Any) -> Any:
    """The whole layer that two factors stand for, their product: `layer`, of which kind it is, takes the weights."""
    product: Any = factors
    first, second = product.first.weight.double(), product.second.weight.double()
    # ``(outputs, rank)`` times ``(rank, ...)``, where inputs and outputs are the other way round in transposed convolutions.
    if isinstance(layer, TRANSPOSED):
        weight = torch.einsum("ir...,ro->io...", first, second.flatten(1))
    else:
        weight = torch.einsum("or,ri...->oi...", second.flatten(1), first)
    bias = {} if layer.bias is None else {"bias": product.second.bias.detach()}
    prune.install(layer, {"weight": weight.to(layer.weight.dtype)} | bias)
    return layer


def can_factor_group(structure: Structure, group: int) -> bool:
    """Whether a rank below 1 changes any layer of the group."""
    ranked = [path for path, owner in structure.owners.items() if owner == group and is_ranked(structure, path)]
    return any(_rank(structure.model.get_submodule(path), 0.0) for path in ranked)


def _rank(layer: Any, fraction: float) -> int:
    outputs = layer.weight.shape[int(isinstance(layer, TRANSPOSED))]
    return int(factor_rank(layer.weight.numel() // outputs, outputs, fraction))


def _ranks(bench: Workbench, plan: Plan) -> dict[Consumer, int]:
    """Rank of each layer that is to be factored; layers that never run are left alone, as costs take them to be."""
    ranks, owners = {}, bench.structure.owners
    for consumer in bench.moments():
        fraction = plan.ranks[owners[consumer.layer]]
        if fraction < 1 and is_ranked(bench.structure, consumer.layer):
            rank = _rank(bench.model.get_submodule(consumer.layer), fraction)
            if rank:
                ranks[consumer] = rank
    return ranks


def _from_dense(bench: Workbench, plan: Plan, consumer: Consumer, rank: int) -> set[str]:
    """Factor a layer by cached moments of its dense inputs; no data pass."""
    cached, channels = bench.moments()[consumer], workbench.kept_of(bench, plan, consumer, consumer.into)
    gram = cached.gram[0]
    if channels is not None:
        kept = cached.features(channels)
        gram = gram[kept][:, kept]
    layer: Any = bench.model.get_submodule(consumer.layer)
    weight = consumers.matrix(consumer, layer, layer.weight)[0].double()
    factors, lost = _split(gram, weight, rank, cached.constant, _worth(bench.model, consumer))
    shifts: dict[str, Tensor] = {}
    if consumer.shift is not None:
        shifts[consumer.shift] = _shifted(consumer, _tensor(bench.model, consumer.shift), lost)
    prune.install(bench.model, shifts, bench.structure.model)
    _swap(bench, consumer, factors)
    return set(shifts)


def _sequential(bench: Workbench, plan: Plan, ranks: dict[Consumer, int]) -> set[str]:
    """Refit the network layer by layer in one pass over the calibration examples, and factor it on the way."""
    modules = dict(bench.structure.model.named_modules())
    factors: dict[Consumer, Factors] = {}
    replaced: set[str] = set()
    changed = False

    def hook_of(consumer: Consumer) -> Any:
        channels = workbench.kept_of(bench, plan, consumer, consumer.into)
        every = torch.arange(bench.state[consumer.weight].shape[consumer.into]) if channels is None else channels

        def before(layer: Any, given: Any) -> None:
            nonlocal changed
            # What runs before the first factor reads what it read when it was refitted without.
            if consumer not in ranks and not changed:
                return
            changed = True
            gram, solution = reconstruct.refit(bench, consumer, layer, given, every)
            tensors = workbench.tensors_for(bench, plan, consumer, modules[consumer.layer], *solution)
            if consumer in ranks:
                weight = consumers.matrix(consumer, layer, tensors[consumer.weight])[0].double()
                worth = _worth(bench.model, consumer)
                factors[consumer], lost = _split(gram[0], weight, ranks[consumer], consumer.shift is not None, worth)
                product = (factors[consumer][0] @ factors[consumer][1])[None]
                tensors[consumer.weight] = consumers.weight_of(consumer, layer, product, layer.weight)
                if consumer.shift is not None:
                    tensors[consumer.shift] = _shifted(consumer, tensors[consumer.shift], lost)
            prune.install(bench.model, tensors, bench.structure.model)
            replaced.update(tensors)

        return before

    layers = dict(bench.model.named_modules())
    handles = [hooks.before(layers[consumer.layer], hook_of(consumer)) for consumer in bench.consumers if consumer in bench.targets]
    with torch.no_grad(), hooks.attached(handles):
        call(bench.model, bench.calibration.inputs)
    for consumer, pair in factors.items():
        _swap(bench, consumer, pair)
    return replaced


def _split(gram: Tensor, weight: Tensor, rank: int, constant: bool, worth: Tensor | None) -> tuple[Factors, Tensor]:
    """Factors and the mean of the outputs that they lose, ``(outputs,)``; 0 where no constant can make up for it."""
    mean = gram[-1, :-1] if constant else gram.new_zeros(len(gram))
    spread = gram[:-1, :-1] - torch.outer(mean, mean) if constant else gram
    if worth is None:
        first, second = decompose(spread, weight, rank)
    else:
        first, second = decompose(spread, weight * worth, rank)
        second = second / worth
        whole, left = ((matrix * (spread @ matrix)).sum(0) for matrix in (weight, first @ second))
        lost = whole.clamp_min(0) / left.clamp_min(torch.finfo(left.dtype).tiny)
        second = second * lost.sqrt().clamp(1, MOST_STRETCH)
    return (first, second), mean @ (weight - first @ second)


def _worth(model: nn.Module, consumer: Consumer) -> Tensor | None:
    """What the batch norm that follows multiplies each output by, ``(outputs,)``, above 0; None: there is none."""
    if consumer.shift is None or consumer.sign > 0:
        return None
    norm: Any = model.get_submodule(consumer.shift.rpartition(".")[0])
    scale: Tensor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double().abs()
    return scale.clamp_min(1e-3 * scale.max().clamp_min(1e-30))


def _shifted(consumer: Consumer, shift: Tensor, lost: Tensor) -> Tensor:
    return (shift.double() + consumer.sign * lost).to(shift.dtype)


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), leaf)
    return tensor.detach()


def _swap(bench: Workbench, consumer: Consumer, factors: Factors) -> None:
    layer: Any = bench.model.get_submodule(consumer.layer)
    point = layer.weight[(..., *[slice(1)] * (layer.weight.dim() - 2))]  # a weight of kernel 1
    first, second = (consumers.weight_of(consumer, layer, f[None], w) for f, w in zip(factors, (layer.weight, point), strict=True))
    bench.swapped[consumer.layer] = layer
    bench.model.set_submodule(consumer.layer, factored(layer, first, second))
