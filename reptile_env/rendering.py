"""What an episode looks like: text, an image, or a window."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled

from reptile_env.errors import unknown

RENDER_MODES = ("ansi", "rgb_array", "human")
_BAR = 24  # characters of a dense bar in text


@dataclass(frozen=True)
class Frame:
    """One moment of an episode.

    Attributes:
        task: name of the task.
        metric_name: name of its metric.
        names: groups in network order.
        sizes: dense channels of each group.
        widths: kept channels of each group.
        current: index of the group to decide on next; None at the end.
        metric: last measured metric.
        dense_metric: metric of the dense network.
        cost_name: which cost is shown.
        relative_cost: cost of the plan relative to dense.
        budget: cap on `relative_cost`, or None.
        total: sum of rewards so far.
        history: (metric relative to dense, relative cost) of every measurement of the episode, the dense network first.
        bits: of each group's weights, where decisions are about them.
        ranks: of each group's layers, where decisions are about them.
    """

    task: str
    metric_name: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    current: int | None
    metric: float
    dense_metric: float
    cost_name: str
    relative_cost: float
    budget: float | None
    total: float
    history: tuple[tuple[float, float], ...]
    bits: tuple[int, ...] | None = None
    ranks: tuple[float, ...] | None = None

    @property
    def labels(self) -> list[str]:
        """What stands beside each group's bar: kept and dense channels, then bits and rank where they are decided on."""
        digits = len(str(max(self.sizes)))
        labels = [f"{kept:>{digits}}/{dense}" for kept, dense in zip(self.widths, self.sizes, strict=True)]
        if self.bits is not None:
            labels = [f"{label}, {bits} bits" for label, bits in zip(labels, self.bits, strict=True)]
        if self.ranks is not None:
            labels = [f"{label}, rank {rank:g}" for label, rank in zip(labels, self.ranks, strict=True)]
        return labels


class Renderer:
    """Draws frames in one render mode.

    Raises:
        ValueError: unknown render mode.
    """

    def __init__(self, mode: str | None) -> None:
        if mode is not None and mode not in RENDER_MODES:
            raise unknown("render_mode", mode, RENDER_MODES)
        self._mode = mode
        self._window: Any = None

    def render(self, frame: Frame, fps: int) -> Any:
        """The frame as text or image, or None after showing it in a window.

        Raises:
            gymnasium.error.DependencyNotInstalled: an image or a window without pygame.
            gymnasium.error.Error: a window without a display.
        """
        if self._mode is None:
            gym.logger.warn(f"render() shows nothing without a render mode; make the environment with one of {RENDER_MODES}")
            return None
        if self._mode == "ansi":
            return as_text(frame)
        drawing = _drawing()
        if self._mode == "rgb_array":
            return drawing.as_array(frame)
        if self._window is None:
            self._window = drawing.Window()
        self._window.show(frame, fps)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def __getstate__(self) -> dict[str, Any]:
        # A window belongs to one process and one environment; a copy opens its own.
        return self.__dict__ | {"_window": None}


def as_text(frame: Frame) -> str:
    """A header line, then a line for each group: ``#`` kept, ``.`` removed, ``>`` the group to decide on next."""
    cost = f"{frame.cost_name} {frame.relative_cost:.3f}"
    if frame.budget is not None:
        cost += f" (cap {frame.budget:g})"
    metric = f"{frame.metric_name} {frame.metric:.4g} (dense {frame.dense_metric:.4g})"
    lines = [f"{frame.task} | {metric} | {cost} | return {frame.total:.3f}"]
    name_width = max(map(len, frame.names))
    for index, (name, size, width, label) in enumerate(zip(frame.names, frame.sizes, frame.widths, frame.labels, strict=True)):
        # At least one mark while a channel is kept, and full only when nothing is gone.
        kept = max(1, _BAR * width // size)
        bar = "#" * kept + "." * (_BAR - kept)
        marker = ">" if index == frame.current else " "
        lines.append(f"{marker} {name:<{name_width}} [{bar}] {label}")
    return "\n".join(lines)


def _drawing() -> ModuleType:
    """The drawing module; pygame's import warnings stay unseen (Gymnasium hides its greeting)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from reptile_env import drawing
    except ImportError as error:
        raise DependencyNotInstalled('images and windows need pygame: pip install "reptile-env[render]"') from error
    return drawing
