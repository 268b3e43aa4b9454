"""What the registry knows of a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskSpec:
    """A registered task.

    Attributes:
        name: what `make_task` takes.
        family: kind of network.
        data: what it was trained on.
        licence: of the data, and of weights that others published.
        builder: ``module:function``, called with the name to make the `Task`.
        trainer: ``module:function``, called with the name and a progress callback to train its checkpoint anew; empty where the
            weights are published ones.
        suite: ``core`` needs no data but what packages bring, ``real`` reads or downloads its data, ``transfer`` is one of a
            family of networks.
        split: ``train`` or ``test``: whether agents may train on this network.
        reported: what the literature, or a publisher of weights, reports for this data: the metric on test data, and of which
            network; empty where nothing is comparable.
    """

    name: str
    family: str
    data: str
    licence: str
    builder: str
    trainer: str = ""
    suite: str = "core"
    split: str = "train"
    reported: str = ""
