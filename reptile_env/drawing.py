"""Frames drawn with pygame, on surfaces in memory; only a window needs a display."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pygame
import pygame.font
from gymnasium.error import Error
from numpy.typing import NDArray

if TYPE_CHECKING:
    from reptile_env.rendering import Frame

SIZE = (800, 480)
_SCALE = 2  # drawn larger and scaled down: smooth edges

# Okabe & Ito's palette, told apart with every kind of colour vision; the greys differ from it in lightness.
_PAPER, _INK, _SOFT, _RULE = (255, 255, 255), (34, 34, 34), (110, 110, 110), (224, 224, 224)
_KEPT, _GONE, _NOW, _CAP = (0, 114, 178), (214, 220, 226), (230, 159, 0), (213, 94, 0)

_TOP, _BOTTOM, _MARGIN = 74, 28, 24
_BARS = pygame.Rect(_MARGIN, _TOP, 420, SIZE[1] - _TOP - _BOTTOM)
_PLOT = pygame.Rect(520, _TOP + 34, 256, SIZE[1] - _TOP - _BOTTOM - 72)
_LONGEST_COLUMN = 26  # groups below one another before a second column begins
_FLOORS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)  # where the plot's metric axis may begin


def as_array(frame: Frame) -> NDArray[np.uint8]:
    """A frame as an image, uint8 ``(480, 800, 3)``."""
    pixels: NDArray[np.uint8] = pygame.surfarray.array3d(_draw(frame)).transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


class Window:
    """A window that shows frames.

    Raises:
        gymnasium.error.Error: there is no display.
    """

    def __init__(self) -> None:
        try:
            pygame.display.init()
            self._screen = pygame.display.set_mode(SIZE)
        except pygame.error as error:
            raise Error(f"render_mode='human' needs a display ({error}); use 'rgb_array' or 'ansi' without one") from error
        pygame.display.set_caption("reptile_env")
        self._clock = pygame.time.Clock()

    def show(self, frame: Frame, fps: int) -> None:
        """Show a frame, at most `fps` of them a second."""
        self._screen.blit(_draw(frame), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(fps)

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()


class _Canvas:
    """Shapes and text in the picture's own units."""

    def __init__(self) -> None:
        pygame.font.init()
        self.surface = pygame.Surface((SIZE[0] * _SCALE, SIZE[1] * _SCALE), depth=32)
        self.surface.fill(_PAPER)
        # Not kept beyond a frame: pygame.quit() in somebody else's code invalidates fonts.
        self._fonts: dict[int, Any] = {}

    def box(self, colour: Sequence[int], rect: tuple[float, float, float, float], radius: int = 0, line: int = 0) -> None:
        scaled = pygame.Rect(*(round(v * _SCALE) for v in rect))
        pygame.draw.rect(self.surface, colour, scaled, line * _SCALE, border_radius=radius * _SCALE)

    def line(self, colour: Sequence[int], start: tuple[float, float], end: tuple[float, float], width: int = 1) -> None:
        (x0, y0), (x1, y1) = start, end
        points = (x0 * _SCALE, y0 * _SCALE), (x1 * _SCALE, y1 * _SCALE)
        pygame.draw.line(self.surface, colour, *points, width * _SCALE)
        if x0 != x1 and y0 != y1 and width > 1:  # round ends hide the slanted cuts of thick lines
            for x, y in points:
                pygame.draw.circle(self.surface, colour, (x, y), width * _SCALE / 2)

    def dot(self, colour: Sequence[int], centre: tuple[float, float], radius: float) -> None:
        pygame.draw.circle(self.surface, colour, (centre[0] * _SCALE, centre[1] * _SCALE), radius * _SCALE)

    def arrow(self, colour: Sequence[int], x: float, y: float, size: float) -> None:
        """A triangle that points right, its tip at ``(x, y)``."""
        corners = ((x, y), (x - size, y - 0.7 * size), (x - size, y + 0.7 * size))
        pygame.draw.polygon(self.surface, colour, [(a * _SCALE, b * _SCALE) for a, b in corners])

    def text(self, text: str, x: float, y: float, size: int = 13, colour: Sequence[int] = _INK, align: float = 0) -> float:
        """Text whose vertical middle is `y`; `align` 0, 0.5 or 1 puts its left end, middle or right end at `x`. Its width."""
        image = self._font(size).render(text, True, colour)
        width, height = image.get_size()
        self.surface.blit(image, (x * _SCALE - align * width, y * _SCALE - height / 2))
        return float(width / _SCALE)

    def width(self, text: str, size: int) -> float:
        """Width of a text."""
        return float(self._font(size).size(text)[0] / _SCALE)

    def shorten(self, text: str, room: float, size: int) -> str:
        """`text`, its beginning left out where it is wider than `room`: ends tell layers apart."""
        if self.width(text, size) <= room:
            return text
        while text and self.width("…" + text, size) > room:
            text = text[1:]
        return "…" + text

    def _font(self, size: int) -> Any:
        if size not in self._fonts:
            self._fonts[size] = pygame.font.Font(None, round(size * _SCALE * 1.35))
        return self._fonts[size]


def _draw(frame: Frame) -> pygame.Surface:
    canvas = _Canvas()
    _header(canvas, frame)
    _groups(canvas, frame)
    _path(canvas, frame)
    return pygame.transform.smoothscale(canvas.surface, SIZE)


def _header(canvas: _Canvas, frame: Frame) -> None:
    canvas.text(frame.task, _MARGIN, 25, 18)
    if frame.current is None:
        below = "all groups decided"
    else:
        name, channels = frame.names[frame.current], frame.widths[frame.current]
        below = f"next: {canvas.shorten(name, 200, 12)}, group {frame.current + 1} of {len(frame.names)}, {channels} channels"
    canvas.text(below, _MARGIN, 48, 12, _SOFT)
    values = (
        ("return", f"{frame.total:+.3f}"),
        (f"{frame.cost_name} of dense", f"{frame.relative_cost:.1%}"),
        (f"{canvas.shorten(frame.metric_name, 80, 12)} (dense {frame.dense_metric:.4g})", f"{frame.metric:.4g}"),
    )
    x = float(SIZE[0] - _MARGIN)
    for label, value in values:
        width = max(canvas.text(value, x, 25, 18, align=1), canvas.text(label, x, 48, 12, _SOFT, align=1))
        x -= width + 22


def _groups(canvas: _Canvas, frame: Frame) -> None:
    count = len(frame.names)
    columns = -(-count // _LONGEST_COLUMN)
    rows = -(-count // columns)
    labelled = columns <= 2
    gap = 22 if labelled else 12
    room = (_BARS.width - gap * (columns - 1)) / columns
    pitch = min(_BARS.height / rows, 46)
    size = min(12 if columns == 1 else 11, round(pitch * 0.8))
    names = _without_common_start(frame.names)
    numbers = [label.strip() for label in frame.labels]
    number_room = max(canvas.width(number, size) for number in numbers) + 8 if labelled else 0
    name_room = min(max(canvas.width(name, size) for name in names), room * 0.42) + 8 if labelled else 0
    height = min(20.0, pitch * 0.62)
    for index, (name, number, kept, dense) in enumerate(zip(names, numbers, frame.widths, frame.sizes, strict=True)):
        column, row = divmod(index, rows)
        x, y = _BARS.left + column * (room + gap), _BARS.top + (row + 0.5) * pitch
        now = index == frame.current
        start, length = x + name_room, room - name_room - number_room
        canvas.box(_GONE, (start, y - height / 2, length, height))
        canvas.box(_NOW if now else _KEPT, (start, y - height / 2, max(1.0, length * kept / dense), height))
        if labelled:
            canvas.text(canvas.shorten(name, name_room - 8, size), x, y, size, _INK if now else _SOFT)
            canvas.text(number, x + room, y, size, _INK if now else _SOFT, align=1)
        if now:
            canvas.arrow(_NOW, x - 5, y, min(11, pitch * 0.6) if labelled else 6)


def _without_common_start(names: Sequence[str]) -> list[str]:
    """Names without the modules that all of them lie in."""
    paths = [name.split(".") for name in names]
    same = 0
    while all(len(path) > same + 1 and path[same] == paths[0][same] for path in paths):
        same += 1
    return [".".join(path[same if len(paths) > 1 else 0 :]) for path in paths]


def _path(canvas: _Canvas, frame: Frame) -> None:
    lowest = min(min(quality for quality, _ in frame.history), 1.0)
    floor = next((f for f in _FLOORS if f <= lowest), 0.0)
    # A little head-room above 1: a cut network can beat the dense one.
    ceiling = max(1.0 + 0.1 * (1 - floor), *(quality for quality, _ in frame.history))

    def at(quality: float, cost: float) -> tuple[float, float]:
        height = (max(quality, floor) - floor) / (ceiling - floor)
        return _PLOT.left + min(cost, 1.0) * _PLOT.width, _PLOT.bottom - height * _PLOT.height

    canvas.text(f"{frame.metric_name} relative to dense", _PLOT.left - 34, _TOP + 4, 12, _SOFT)
    for k in range(6):
        quality, cost = floor + k * (1 - floor) / 5, k / 5
        left, y = at(quality, 0.0)
        canvas.line(_RULE, (left, y), (_PLOT.right, y))
        canvas.text(f"{quality:.2f}", left - 6, y, 11, _SOFT, align=1)
        x, bottom = at(floor, cost)
        canvas.line(_SOFT, (x, bottom), (x, bottom + 4))
        canvas.text(f"{cost:.0%}", x, bottom + 14, 11, _SOFT, align=0.5)
    canvas.line(_SOFT, (_PLOT.left, _PLOT.bottom), (_PLOT.right, _PLOT.bottom))
    canvas.text(f"{frame.cost_name} of dense", _PLOT.centerx, _PLOT.bottom + 34, 12, _SOFT, align=0.5)
    if frame.budget is not None:
        _cap(canvas, at(floor, frame.budget)[0], frame.budget)
    points = [at(*point) for point in frame.history]
    for start, end in itertools.pairwise(points):
        canvas.line(_KEPT, start, end, 2)
    for point in points:
        canvas.dot(_KEPT, point, 3)
    canvas.dot(_PAPER, points[0], 2)
    canvas.dot(_PAPER, points[-1], 7)
    canvas.dot(_NOW, points[-1], 6)


def _cap(canvas: _Canvas, x: float, budget: float) -> None:
    for y in range(_PLOT.top, _PLOT.bottom, 9):
        canvas.line(_CAP, (x, y), (x, min(y + 5, _PLOT.bottom)), 2)
    canvas.text(f"cap {100 * budget:.3g}%", x, _PLOT.top - 8, 12, _CAP, align=0.5)
