"""How long networks and layers take, on this machine, with torch's number of threads as it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reptile_env.compression import hooks
from reptile_env.errors import number
from reptile_env.tasks.splits import Inputs, call

FEWEST, MOST = 5, 50  # runs of anything


def measure_latency(model: nn.Module, inputs: Inputs, seconds: float = 1.0) -> float:
    """Median seconds of a forward pass from end to end, on this machine, with torch's number of threads as it is.

    Args:
        model: any network; it is run as it is, in evaluation mode.
        inputs: a tensor, a tuple (``model(*inputs)``) or a dict (``model(**inputs)``); its batch is what is timed.
        seconds: how long to measure, above 0; at least 5 passes.

    Raises:
        TypeError: `model` is no network, or `seconds` no number.
        ValueError: `seconds` not above 0.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not number("seconds", seconds) > 0:
        raise ValueError(f"seconds={seconds}; it must be above 0")
    was_training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.inference_mode():
            return statistics.median(times(lambda: call(model, inputs), seconds))
    finally:
        for module in was_training:
            module.training = True


def in_place(model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module], seconds: float) -> tuple[dict[str, float], float]:
    """Seconds of all calls of each layer in a pass of the network, and of all that lies between them.

    Each stretch counts as in the pass in which it was fastest: on a busy machine hardly a whole pass is left in peace.
    """
    stamps: list[float] = []
    called: list[str] = []
    stretches: list[NDArray[np.float64]] = []

    def hook_of(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(layer: nn.Module, given: Any) -> None:
            called.append(name)
            stamps.append(time.perf_counter())

        def after(layer: nn.Module, given: Any, output: Any) -> None:
            stamps.append(time.perf_counter())

        return before, after

    def run() -> None:
        called.clear()
        stamps[:] = [time.perf_counter()]
        call(model, inputs)
        stretches.append(np.diff([*stamps, time.perf_counter()]))

    pairs = [(layer, *hook_of(name)) for name, layer in layers.items()]
    handles = [handle for layer, before, after in pairs for handle in (hooks.before(layer, before), hooks.after(layer, after))]
    with hooks.attached(handles):
        times(run, seconds)
    fastest = np.min(stretches[2:], axis=0)  # the first two warm up
    taken: dict[str, float] = {}
    for name, took in zip(called, fastest[1::2].tolist(), strict=True):
        taken[name] = taken.get(name, 0.0) + took
    return taken, float(fastest[0::2].sum())


def least(run: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest run: whatever else the machine does only adds to it."""
    return min(times(run, seconds))


def times(run: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each of several runs; the first two warm up."""
    start = time.perf_counter()
    run()
    run()
    taken: list[float] = []
    while len(taken) < FEWEST or (len(taken) < MOST and time.perf_counter() - start < seconds):
        before = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before)
    return taken
