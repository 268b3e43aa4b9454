"""What each way of compressing costs in quality, side by side on real networks: ``python -m benchmarks quality``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.picture import BLACK, BLUE, GREEN, GREY, ORANGE
from benchmarks.quality_methods import cnn_methods, goals, transformer_methods
from benchmarks.quality_rows import Row, rows, save, torch_pruning_row
from reptile_env.compression.plan import Plan
from reptile_env.evaluation.live import LiveEvaluator
from reptile_env.tasks.fashion import task as fashion_task
from reptile_env.tasks.sts import task as minilm_task

NETWORKS = ("fashion-resnet20", "minilm")
FASHION_VALID = 5_000  # every image that the network was not trained on; its task measures fewer, for speed

Progress = Callable[[str, float], None]


def measure(network: str, data: Path | None, folder: Path, done: list[Row], progress: Progress) -> None:
    """Measure every method on a network, adding rows to `done`; what is there is on disk after each of them.

    Args:
        network: one of `NETWORKS`.
        data: folder of its data; None: where its package or `REPTILE_DATA` puts it.
        folder: of the results.
        done: rows so far.
        progress: told what is done and the fraction of it.
    """
    if network == "fashion-resnet20":
        task = fashion_task("fashion-resnet20", data, FASHION_VALID)
        methods, others = cnn_methods(), iter([lambda: torch_pruning_row(task, 0.5)])
    else:
        task = minilm_task(folder=data, valid=None)
        methods, others = transformer_methods(_encoder_share), iter([])
    total = len(methods) + (network == "fashion-resnet20")
    made = itertools.chain(rows(task, methods), (other() for other in others))
    for number, row in enumerate(made, 1):
        done.append(row)
        save(folder, done, goals(done))
        draw(folder / "quality.png", done)
        progress(f"{network}: measuring", number / total)


def _encoder_share(evaluator: LiveEvaluator, plan: Plan) -> float:
    """Parameters of a Transformer's layers, embeddings left out, relative to dense."""
    model = evaluator.structure.model
    encoder = sum(p.numel() for name, p in model.named_parameters() if ".encoder." in f".{name}")
    removed = evaluator.costs.cost("params", *evaluator.dense.levels) - evaluator.costs.cost("params", *plan.levels)
    return 1 - float(removed) / encoder


def draw(path: Path, done: list[Row]) -> None:
    """Validation metric of every method, one panel a network, as bars from the dense network's."""
    networks = list(dict.fromkeys(row.network for row in done))
    lines = max(sum(row.network == name for row in done) for name in networks)
    figure = Figure(figsize=(11 * len(networks), 0.3 * lines + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        here = [row for row in done if row.network == name and not row.error]
        colors = [_color(row.method) for row in here]
        axes.barh(range(len(here)), [row.valid for row in here], color=colors, height=0.75)
        for position, row in enumerate(here):
            text = f"{row.valid:.4f}  ({row.macs:.0%} MACs, {row.bytes:.0%} bytes)"
            place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the dashed line
            axes.annotate(text, (row.valid, position), (4, 0), bbox=behind, **place)
        axes.set_yticks(range(len(here)), [row.method for row in here], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max([row.valid for row in here], default=1.0))
        axes.axvline(here[0].valid if here else 0, color=BLACK, lw=1, ls="--")
        axes.set_xlabel("validation metric (dashed: dense)")
        axes.set_title(name, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _color(method: str) -> str:
    if "reconstruct" in method or "data-aware" in method:
        return GREEN if "finetune" not in method else BLUE
    return BLACK if method == "dense" else ORANGE if "recalibrate" in method else BLUE if "finetune" in method else GREY
