"""From a plan to a network: one working copy that takes the tensors of each plan in turn."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor, nn

from reptile_env.compression import consumers, moments, prune, recovery
from reptile_env.compression.groups import Group, Structure, tensors_of
from reptile_env.compression.importance import IMPORTANCES
from reptile_env.compression.macs import cost_model
from reptile_env.compression.plan import Plan
from reptile_env.compression.producers import CONVS
from reptile_env.tasks.splits import Split
from reptile_env.tasks.task import BATCH_SIZE


class Engine:
    """Cuts a network to plans and lets it recover. The network is really smaller; dense tensors are shared, never written.

    Args:
        structure: the dense network and its groups.
        example: inputs of the validation split, for tracing and counting.
        calibration: training examples that recovery sees.
        recovery_name: name of the recovery.
        importance: name of the importance.

    Raises:
        ValueError: a recovery that does not fit the network.
    """

    def __init__(self, structure: Structure, example: Split, calibration: Split, recovery_name: str, importance: str) -> None:
        recovery.check(recovery_name, structure.model, len(calibration))
        self.structure, self.calibration = structure, calibration
        self.names, self.sizes = structure.names, structure.sizes
        self.dense = Plan.dense(self.names, self.sizes)
        self.state = tensors_of(structure.model)
        self.costs = cost_model(structure, example.inputs)
        self._steps = recovery.parse(recovery_name)
        modules = dict(structure.model.named_modules())
        self.features = tuple(_features(g, i, self, modules) for i, g in enumerate(structure.groups))
        found = consumers.find_consumers(structure, example.inputs)
        wanted = recovery_name.split("+")
        refits = any(name.startswith("reconstruct") for name in wanted)
        self.moments = moments.collect(structure.model, found, calibration, BATCH_SIZE) if refits else {}
        sequential = "reconstruct-sequential" in wanted
        self._targets = recovery.collect_targets(structure.model, found, self.moments, calibration) if sequential else {}
        self._consumers = found
        scores = [IMPORTANCES[importance](g, i, self.state, structure, modules).numpy() for i, g in enumerate(structure.groups)]
        # Stable: equal scores leave in a fixed order on every machine.
        self._rank = [np.argsort(np.argsort(score, kind="stable"), kind="stable") for score in scores]
        self._model = copy.deepcopy(structure.model)
        self._replaced: set[str] = set()

    def cut(self, plan: Plan, group: int, count: int) -> Plan:
        """`plan` with the `count` least important of the group's remaining channels removed."""
        if count == 0:
            return plan
        rank = self._rank[group]
        kept = sorted(plan.keep[group], key=rank.__getitem__)[count:]
        return plan.replace(group, sorted(kept))

    def build(self, plan: Plan) -> nn.Module:
        """The network cut to `plan` and recovered; it is the engine's own, and the next call changes it."""
        shrunk = prune.cut(self.state, self.structure, plan)
        whole: dict[str, Tensor] = {name: self.state[name] for name in self._replaced - shrunk.keys()}
        replaced, self._replaced = set(shrunk), set(self.state)  # until it is known: an interrupt must leave no stale tensor
        prune.install(self._model, whole | shrunk, self.structure.model)
        if plan != self.dense:
            bench = recovery.Workbench(
                model=self._model,
                structure=self.structure,
                state=self.state,
                consumers=self._consumers,
                moments=self.moments,
                targets=self._targets,
                calibration=self.calibration,
                batch_size=BATCH_SIZE,
            )
            for step in self._steps:
                replaced |= step(bench, plan)
        self._replaced = replaced
        return self._model


def _features(group: Group, index: int, engine: Engine, modules: dict[str, nn.Module]) -> dict[str, Any]:
    layer: Any = modules[group.producers[0]]
    convolution = isinstance(layer, CONVS)
    dense = engine.costs.all(engine.sizes)
    without = list(engine.sizes)
    without[index] = 0
    gone = engine.costs.all(without)
    inputs = layer.in_channels if convolution else layer.input_size if isinstance(layer, nn.RNNBase) else layer.in_features
    return {
        "kind": group.kind,
        "in": inputs,
        "out": group.size,
        "kernel": layer.kernel_size[0] if convolution else 1,
        "stride": layer.stride[0] if convolution else 1,
        "params": (dense["params"] - gone["params"]) / dense["params"],
        "macs": (dense["macs"] - gone["macs"]) / max(dense["macs"], 1),
    }
