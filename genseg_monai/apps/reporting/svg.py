"""Charts as inline SVG: text stays text, colours come from the style sheet of the page, nothing is fetched.

Every series has a colour, a dash pattern and a marker, so that none is told by colour alone. The palette is that of
Okabe and Ito (2008), which people of any colour vision tell apart, with the light ones darkened for white paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["STYLES", "Axis", "Canvas", "Series", "legend", "line_chart", "nice_ticks"]

STYLES = 8
"""Series styles that the style sheet knows: classes ``s0`` to ``s7``."""

_MARKERS = ("circle", "square", "triangle", "diamond", "circle", "square", "triangle", "diamond")
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 42


@dataclass(frozen=True)
class Series:
    """Points of one line.

    Args:
        name: for the legend.
        x: rising or not, as many as `y`.
        y: the values.
        low: lower ends of intervals, or none.
        high: upper ends.
        style: number of its colour, dash and marker.
        markers: whether points are marked.
        joined: whether points are joined.

    Example:
        >>> Series("plain", (1, 2), (0.5, 0.6)).style
        0
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int = 0
    markers: bool = True
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        label: with the unit.
        low: lowest value; None takes it from the data.
        high: highest value.
        log: logarithmic.
        ticks: where the axis is labelled; none for round numbers.

    Example:
        >>> Axis("Dice", 0, 1).log
        False
    """

    label: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: Sequence[float] = ()


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two others, about `count` of them.

    Example:
        >>> nice_ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class Canvas:
    """An SVG picture with two axes; `add` puts elements on it.

    Args:
        about: what the picture shows, for those who cannot see it.
        x: horizontal axis, with both ends.
        y: vertical axis, with both ends.
        width: in pixels of the page.
        height: likewise.

    Example:
        >>> Canvas("a chart", Axis("x", 0, 1), Axis("y", 0, 1)).render().startswith("<svg")
        True
    """

    def __init__(self, about: str, x: Axis, y: Axis, width: int = 520, height: int = 300) -> None:
        self.about, self.x, self.y, self.width, self.height = about, x, y, width, height
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies on the picture."""
        inner_width, inner_height = self.width - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM
        return (
            round(_LEFT + _share(self.x, x) * inner_width, 2),
            round(_TOP + (1 - _share(self.y, y)) * inner_height, 2),
        )

    def add(self, element: str) -> None:
        """Put an element on the picture."""
        self.parts.append(element)

    def axes(self, *, grid: bool = True) -> None:
        """Draw both axes with their labels."""
        (left, bottom), (right, top) = self.at(*_lows(self)), self.at(*_highs(self))
        for value in _ticks(self.y):
            _, y = self.at(self.x.low or 0, value)
            if grid:
                self.add(f'<line class="grid" x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>')
            self.add(f'<text class="tick" x="{left - 7}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
        for value in _ticks(self.x):
            x, _ = self.at(value, self.y.low or 0)
            self.add(f'<line class="axis" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}"/>')
            self.add(f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{_number(value)}</text>')
        self.add(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
        middle = (top + bottom) / 2
        self.add(f'<text class="label" x="{(left + right) / 2}" y="{bottom + 35}" text-anchor="middle">'
                 f"{escape(self.x.label)}</text>")  # fmt: skip
        self.add(f'<text class="label" x="13" y="{middle}" text-anchor="middle" '
                 f'transform="rotate(-90 13 {middle})">{escape(self.y.label)}</text>')  # fmt: skip

    def series(self, one: Series) -> None:
        """Draw a series: its band or its intervals, its line, its markers."""
        kind = f"s{one.style % STYLES}"
        points = [self.at(x, y) for x, y in zip(one.x, one.y, strict=True)]
        if one.low and one.joined and len(points) > 1:
            edge = [self.at(x, y) for x, y in zip(one.x, one.high, strict=True)]
            edge += [self.at(x, y) for x, y in reversed(list(zip(one.x, one.low, strict=True)))]
            self.add(f'<polygon class="band {kind}" points="{_path(edge)}"/>')
        elif one.low:
            for x, low, high in zip(one.x, one.low, one.high, strict=True):
                (x1, y1), (_, y2) = self.at(x, low), self.at(x, high)
                self.add(f'<line class="whisker {kind}" x1="{x1}" y1="{y1}" x2="{x1}" y2="{y2}"/>')
        if one.joined and len(points) > 1:
            self.add(f'<polyline class="line {kind}" points="{_path(points)}"/>')
        if one.markers:
            for (x, y), given, value in zip(points, one.x, one.y, strict=True):
                told = f"<title>{escape(one.name)}: {_number(given)}, {_number(value)}</title>"
                self.add(marker(x, y, one.style, told))

    def render(self) -> str:
        """Return the picture."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" role="img" '
            f'aria-label="{escape(self.about, quote=True)}">{"".join(self.parts)}</svg>'
        )


def line_chart(
    series: Sequence[Series], about: str, x: Axis, y: Axis, *, width: int = 520, height: int = 300
) -> str:  # fmt: skip
    """Return a chart of lines, with ends taken from the data where the axes leave them open.

    Args:
        series: what is drawn, the first below.
        about: what the chart shows, for those who cannot see it.
        x: horizontal axis.
        y: vertical axis.
        width: in pixels.
        height: likewise.

    Example:
        >>> "polyline" in line_chart([Series("a", (0, 1), (0, 1))], "a line", Axis("x"), Axis("y"))
        True
    """
    xs = [value for one in series for value in one.x]
    ys = [value for one in series for values in (one.y, one.low, one.high) for value in values]
    canvas = Canvas(about, _closed(x, xs), _closed(y, ys, room=0.06), width, height)
    canvas.axes()
    for one in series:
        canvas.series(one)
    return canvas.render()


def legend(names: Sequence[tuple[str, int]], *, markers: bool = True) -> str:
    """Return names with their line and, unless the chart has none, their marker, as HTML."""
    items = []
    for name, style in names:
        line = f'<line class="line s{style % STYLES}" x1="0" y1="7" x2="26" y2="7"/>'
        dot = marker(13, 7, style) if markers else ""
        items.append(f'<span class="key"><svg width="26" height="14" aria-hidden="true">{line}{dot}'
                     f"</svg>{escape(name)}</span>")  # fmt: skip
    return f'<p class="legend">{"".join(items)}</p>'


def marker(x: float, y: float, style: int, told: str = "", radius: float = 3.6) -> str:
    """Return the marker of a style at a place of a picture."""
    kind, r = f'class="mark s{style % STYLES}"', radius
    shape = _MARKERS[style % STYLES]
    if shape == "circle":
        return f'<circle {kind} cx="{x}" cy="{y}" r="{r}">{told}</circle>'
    if shape == "square":
        return f'<rect {kind} x="{x - r}" y="{y - r}" width="{2 * r}" height="{2 * r}">{told}</rect>'
    corners = {
        "triangle": [(x, y - 1.2 * r), (x + 1.1 * r, y + r), (x - 1.1 * r, y + r)],
        "diamond": [(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)],
    }[shape]
    return f'<polygon {kind} points="{_path(corners)}">{told}</polygon>'


def _closed(axis: Axis, values: Sequence[float], room: float = 0.0) -> Axis:
    """Return an axis with both ends."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high <= low:
        low, high = (low / 2, low * 2) if axis.log and low > 0 else (low - 0.5, high + 0.5)
    more = 0.0 if axis.log else room * (high - low)
    return Axis(
        axis.label,
        axis.low if axis.low is not None else low - more,
        axis.high if axis.high is not None else high + more,
        axis.log,
        axis.ticks,
    )


def _share(axis: Axis, value: float) -> float:
    low, high = float(axis.low or 0), float(axis.high if axis.high is not None else 1)
    if axis.log:
        low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _ticks(axis: Axis) -> Sequence[float]:
    low, high = float(axis.low or 0), float(axis.high if axis.high is not None else 1)
    if axis.ticks:
        return axis.ticks
    if axis.log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [10.0**p for p in powers if low * 0.999 <= 10.0**p <= high * 1.001]
        return found if len(found) > 1 else nice_ticks(low, high, 4)
    return nice_ticks(low, high)


def _lows(canvas: Canvas) -> tuple[float, float]:
    return float(canvas.x.low or 0), float(canvas.y.low or 0)


def _highs(canvas: Canvas) -> tuple[float, float]:
    return (
        float(canvas.x.high if canvas.x.high is not None else 1),
        float(canvas.y.high if canvas.y.high is not None else 1),
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{round(x, 2)},{round(y, 2)}" for x, y in points)
