"""Which methods the quality table compares, and the goals that it holds them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.quality_rows import Method, Row, macs_share, uniform, uniform_to
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator

HALF = 0.5
DENSE = Method("dense", lambda evaluator: evaluator.dense, {"recovery": "none"})
FINETUNE: dict[str, Any] = {"steps": 400}


def cnn_methods() -> list[Method]:
    """Every method on a convolutional network."""
    at_half = uniform_to(macs_share, HALF)
    methods = [DENSE]
    for recovery in ("none", "recalibrate", "reconstruct", "reconstruct-sequential"):
        methods.append(Method(f"uniform channels, {recovery}", at_half, {"recovery": recovery}))
    for recovery in ("finetune", "reconstruct-sequential+finetune"):
        methods.append(Method(f"uniform channels, {recovery}", at_half, {"recovery": recovery, "finetune": FINETUNE}))
    for importance in ("random", "obs", "auto"):
        settings = {"recovery": "reconstruct-sequential", "importance": importance}
        methods.append(Method(f"uniform channels by {importance}, reconstruct-sequential", at_half, settings))
    for rate in (0.5, 0.8):
        for recovery in ("none", "reconstruct", "reconstruct-sequential"):
            settings = {"recovery": recovery, "granularity": "unstructured"}
            methods.append(Method(f"weights {rate:.0%} removed, {recovery}", uniform(rate), settings))
    for recovery in ("none", "reconstruct-sequential"):
        methods.append(Method(f"2:4, {recovery}", uniform(0.5), {"recovery": recovery, "granularity": "2:4"}))
    for rank in (0.7, 0.5):
        for recovery in ("none", "reconstruct-sequential"):
            methods.append(Method(f"low rank, {rank:.0%} of params, {recovery}", uniform(0.0, rank=rank), {"recovery": recovery}))
    return methods + quantized((8, 4, 3)) + joint(at_half)


def quantized(depths: tuple[int, ...]) -> list[Method]:
    """Weights of few bits, plain rounding beside data-aware rounding."""
    return [
        Method(f"{bits}-bit weights, {rounding} rounding", uniform(0.0, bits=bits), {"recovery": "none", "rounding": rounding})
        for bits in depths
        for rounding in ("nearest", "data-aware")
    ]


def joint(at_half: Callable[[LiveEvaluator], Plan]) -> list[Method]:
    """Channels, rank and bits together, uniform in all three."""

    def plan(bits: int, rank: float) -> Callable[[LiveEvaluator], Plan]:
        def made(evaluator: LiveEvaluator) -> Plan:
            cut = at_half(evaluator)
            for group in range(len(evaluator.sizes)):
                cut = cut.replace(group, bits=bits, rank=rank)
            return cut

        return made

    settings = {"recovery": "reconstruct-sequential"}
    tuned = {"recovery": "reconstruct-sequential+finetune", "finetune": FINETUNE}
    return [
        Method("channels and 4 bits, reconstruct-sequential", plan(4, 1.0), settings),
        Method("channels, rank 80 % and 4 bits, reconstruct-sequential", plan(4, 0.8), settings),
        Method("channels, rank 80 % and 4 bits, reconstruct-sequential+finetune", plan(4, 0.8), tuned),
    ]


def _with_bits(plan: Callable[[LiveEvaluator], Plan], bits: int) -> Callable[[LiveEvaluator], Plan]:
    def made(evaluator: LiveEvaluator) -> Plan:
        cut = plan(evaluator)
        for group in range(len(evaluator.sizes)):
            cut = cut.replace(group, bits=bits)
        return cut

    return made


def transformer_methods(encoder_share: Callable[[LiveEvaluator, Plan], float]) -> list[Method]:
    """The methods that fit a Transformer without batch norm, cut to 80 % of its encoder's parameters."""
    smaller = uniform_to(encoder_share, 0.8)
    methods = [DENSE]
    for recovery in ("none", "reconstruct", "reconstruct-sequential"):
        methods.append(Method(f"heads and feed-forward units, {recovery}", smaller, {"recovery": recovery}))
    settings = {"recovery": "reconstruct", "importance": "auto"}
    methods.append(Method("heads and feed-forward units by auto, reconstruct", smaller, settings))
    for recovery in ("none", "reconstruct"):
        methods.append(
            Method(f"weights 50% removed, {recovery}", uniform(0.5), {"recovery": recovery, "granularity": "unstructured"})
        )
    methods.append(Method("2:4, reconstruct", uniform(0.5), {"recovery": "reconstruct", "granularity": "2:4"}))
    for recovery in ("none", "reconstruct"):
        methods.append(Method(f"low rank, 80% of params, {recovery}", uniform(0.0, rank=0.8), {"recovery": recovery}))
    joint_settings = {"recovery": "reconstruct"}
    methods.append(Method("heads, feed-forward units and 4 bits, reconstruct", _with_bits(smaller, 4), joint_settings))
    return methods + quantized((4,))


def goals(done: list[Row]) -> list[dict[str, Any]]:
    """What was measured against what was set out to be reached; of the rows that are there."""
    by_name = {(row.network, row.method): row for row in done if not row.error}
    checks = []

    def check(what: str, measured: float, goal: float, network: str) -> None:
        checks.append({"what": f"{network}: {what}", "measured": measured, "goal": f"at most {goal}", "met": measured <= goal})

    for network in dict.fromkeys(row.network for row in done):
        here = {method: row.valid for (name, method), row in by_name.items() if name == network}
        lost = {method: here["dense"] - value for method, value in here.items()} if "dense" in here else {}
        recalibrated = lost.get("uniform channels, recalibrate")
        for recovery, goal in (("reconstruct-sequential", 0.35), ("reconstruct", 0.55)):
            channels = f"uniform channels, {recovery}"
            if recalibrated and channels in lost:
                check(f"loss of {recovery} relative to recalibrate's", lost[channels] / recalibrated, goal, network)
            other = "torch-pruning magnitude, recalibrated"
            if other in lost and channels in lost:
                check(f"loss of {recovery} relative to torch-pruning's", lost[channels] / lost[other], 1.0, network)
            heads = f"heads and feed-forward units, {recovery}"
            if heads in lost:
                check(f"loss of metric, {recovery}", lost[heads], 0.02, network)
        plain, aware = (lost.get(f"4-bit weights, {r} rounding") for r in ("nearest", "data-aware"))
        if plain is not None and aware is not None and plain > 0:  # where plain rounding loses nothing there is nothing to halve
            check("4-bit loss, data-aware relative to nearest rounding", aware / plain, 0.5, network)
    return checks
