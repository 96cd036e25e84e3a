"""The charts of a report, each a function of numbers that returns SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from genseg_monai.apps.reporting.svg import Axis, Canvas, Series, line_chart, marker, nice_ticks

__all__ = ["alpha_chart", "distance_chart", "genotype_drawing", "history_chart", "interval_bar", "pair_chart",
           "reliability_chart", "size_chart"]  # fmt: skip


def interval_bar(mean: float, low: float, high: float, scale: tuple[float, float], style: int) -> str:
    """Return an interval as a small picture for a table's cell: a line with a mark, on a scale all rows share."""
    width, height = 130, 22

    def at(value: float) -> float:
        return round(6 + (width - 12) * (value - scale[0]) / max(scale[1] - scale[0], 1e-9), 1)

    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<line class="axis" x1="6" y1="11" x2="{width - 6}" y2="11"/>'
        f'<line class="whisker s{style}" x1="{at(low)}" y1="11" x2="{at(high)}" y2="11"/>'
        f"{marker(at(mean), 11, style, radius=4.5)}</svg>"
    )


def size_chart(series: Sequence[Series], metric: str) -> str:
    """Return the sample-efficiency curves: a score against the number of training cases."""
    sizes = sorted({x for one in series for x in one.x})
    about = f"Mean {metric} on the test cases against the number of training cases, one line for each arm."
    return line_chart(
        series, about, Axis("training cases", log=sizes[-1] > 4 * sizes[0], ticks=sizes), Axis(f"mean {metric}"),
        width=640, height=340,
    )  # fmt: skip


def history_chart(rows: Sequence[Mapping[str, str]], names: Sequence[tuple[str, str, int]], label: str) -> str:
    """Return curves over the iterations of a run, its phases shaded and named.

    Args:
        rows: of ``logs/history.csv``.
        names: column, name, style.
        label: of the vertical axis; "loss" makes it logarithmic.
    """
    series = []
    for column, name, style in names:
        points = [(int(row["iteration"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name, x, y, style=style, markers=label != "loss"))
    last = max((int(row["iteration"]) for row in rows), default=1)
    values = [value for one in series for value in one.y if value > 0] or [0.1, 1.0]
    log = label == "loss"
    y_axis = Axis(label, min(values) * 0.8, max(values) * 2, log=True) if log else Axis(label, 0, 1)
    canvas = Canvas(f"{label} over the iterations of the run", Axis("iteration", 0, last), y_axis, 640, 250)
    begin, names_above = 0, []
    for number, (phase, end) in enumerate(_blocks([(row["phase"], int(row["iteration"])) for row in rows])):
        (x1, top), (x2, bottom) = canvas.at(begin, y_axis.high or 1), canvas.at(end, y_axis.low or 0)
        canvas.add(f'<rect class="phase{number % 2}" x="{x1}" y="{top}" width="{x2 - x1}" height="{bottom - top}"/>')
        if x2 - x1 > 6 * len(phase) - 6:
            names_above.append(_label((x1 + x2) / 2, top + 11, phase.replace("_", " ")))
        begin = end
    for name in names_above:
        canvas.add(name)
    canvas.axes()
    for one in series:
        canvas.series(one)
    return canvas.render()


def reliability_chart(curves: Sequence[tuple[str, Mapping[str, Any], int]]) -> str:
    """Return how often voxels were foreground against the probability they were given; the diagonal is right.

    Args:
        curves: name, reliability as in ``temperature.json``, style.
    """
    about = "Share of voxels that are foreground against the predicted probability: " + ", ".join(c[0] for c in curves)
    canvas = Canvas(about, Axis("predicted probability of foreground", 0, 1), Axis("share that is foreground", 0, 1),
                    360, 340)  # fmt: skip
    canvas.axes()
    (x1, y1), (x2, y2) = canvas.at(0, 0), canvas.at(1, 1)
    canvas.add(f'<line class="guide" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for name, curve, style in curves:
        kept = [
            (p, f)
            for p, f, n in zip(curve["probability"], curve["frequency"], curve["count"], strict=True)
            if n and p is not None
        ]
        if kept:
            x, y = zip(*kept, strict=True)
            canvas.series(Series(name, x, y, style=style))
    return canvas.render()


def pair_chart(ours: Sequence[float], theirs: Sequence[float], names: tuple[str, str]) -> str:
    """Return case against case: above the diagonal ours is better."""
    low = max(0.0, math.floor(10 * min([*ours, *theirs], default=0)) / 10)
    about = f"Dice of each test case, {names[0]} against {names[1]}; above the diagonal {names[0]} is better."
    canvas = Canvas(about, Axis(f"Dice, {names[1]}", low, 1), Axis(f"Dice, {names[0]}", low, 1), 360, 340)
    canvas.axes()
    (x1, y1), (x2, y2) = canvas.at(low, low), canvas.at(1, 1)
    canvas.add(f'<line class="guide" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    canvas.series(Series("case", list(theirs), list(ours), style=0, joined=False))
    return canvas.render()


def distance_chart(rows: Sequence[tuple[str, Sequence[float], int]]) -> str:
    """Return one dot an image: how far its nearest training image is.

    Args:
        rows: name, distances, style; the names stand at the left.
    """
    highest = max((max(values) for _, values, _ in rows if values), default=1.0)
    width, line, left = 640, 46, 190
    height = line * len(rows) + 46
    canvas = Canvas("Distance of each image to its nearest training image: " + ", ".join(r[0] for r in rows),
                    Axis("", 0, highest * 1.05), Axis("", 0, 1), width, height)  # fmt: skip
    right = width - 14

    def at(value: float) -> float:
        return round(left + (right - left) * value / (highest * 1.05), 1)

    base = line * len(rows) + 4
    canvas.add(f'<line class="axis" x1="{left}" y1="{base}" x2="{right}" y2="{base}"/>')
    for value in nice_ticks(0, highest * 1.05):
        canvas.add(f'<line class="axis" x1="{at(value)}" y1="{base}" x2="{at(value)}" y2="{base + 4}"/>')
        canvas.add(f'<text class="tick" x="{at(value)}" y="{base + 17}" text-anchor="middle">{value:.3g}</text>')
    canvas.add(f'<text class="label" x="{(left + right) / 2}" y="{base + 35}" text-anchor="middle">'
               "distance to the nearest training image (root mean squared difference)</text>")  # fmt: skip
    for i, (name, values, style) in enumerate(rows):
        middle = line * i + line / 2
        canvas.add(f'<text class="label" x="{left - 12}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        canvas.add(f'<line class="grid" x1="{left}" y1="{middle}" x2="{right}" y2="{middle}"/>')
        for k, value in enumerate(sorted(values)):
            canvas.add(marker(at(value), middle + ((k * 7) % 5 - 2) * 4, style, f"<title>{value:.4f}</title>"))
    return canvas.render()


def alpha_chart(rows: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[str, int]]]:
    """Return small charts, one a cell, of the shares of its candidates over the search; and names for the legend."""
    cells: dict[str, list[str]] = {}
    for column in rows[0]:
        if ":" in column:
            cells.setdefault(column.split(":")[0], []).append(column)
    across, wide, high = 4, 160, 120
    down = -(-len(cells) // across)
    x = [int(row["iteration"]) for row in rows]
    start, end = x[0], max(x[-1], x[0] + 1)
    shares = [float(row[c]) for row in rows for columns in cells.values() for c in columns if row[c]]
    low, top = max(0.0, min(shares) - 0.02), min(1.0, max(shares) + 0.02)
    parts, names = [], []
    for i, (cell, columns) in enumerate(cells.items()):
        left, up = (i % across) * wide + 34, (i // across) * high + 22
        inner_w, inner_h = wide - 44, high - 46
        parts.append(f'<text class="label" x="{left}" y="{up - 6}">{escape(cell.replace(".", " "))}</text>')
        parts.append(f'<rect class="frame" x="{left}" y="{up}" width="{inner_w}" height="{inner_h}"/>')
        for value in (low, top):
            y = up + inner_h * (1 - (value - low) / (top - low))
            parts.append(f'<text class="tick" x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        for value, at, anchor in ((start, left, "start"), (end, left + inner_w, "end")):
            parts.append(f'<text class="tick" x="{at}" y="{up + inner_h + 13}" text-anchor="{anchor}">{value}</text>')
        for style, column in enumerate(columns):
            name = column.split(":")[1]
            if (name, style) not in names:
                names.append((name, style))
            points = " ".join(
                f"{left + inner_w * (a - start) / (end - start):.1f},"
                f"{up + inner_h * (1 - (float(row[column]) - low) / (top - low)):.1f}"
                for a, row in zip(x, rows, strict=True)
            )
            parts.append(f'<polyline class="line s{style}" points="{points}"/>')
    width, height = across * wide, down * high
    about = "Share of each candidate in each cell of the generator over the search"
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{about}">'
        f"{''.join(parts)}</svg>",
        names,
    )


def genotype_drawing(genotype: Mapping[str, Any], shares: Mapping[str, float]) -> str:
    """Return the generator found: encoder cells down the left, decoder cells up the right, skips between them.

    Args:
        genotype: `encoder` and `decoder`, names of the candidates kept.
        shares: ``CELL:CANDIDATE`` -> share at the end of the search.
    """
    encoder, decoder = list(genotype["encoder"]), list(genotype["decoder"])
    depth, step, wide, high = len(encoder), 58, 158, 42
    left, right, width = 70, 412, 640
    height = step * depth + 30
    parts = [_label(left + wide / 2, 14, "mask in"), _label(right + wide / 2, 14, "image out")]
    for side, names, x in (("encoder", encoder, left), ("decoder", decoder, right)):
        for i, name in enumerate(names):
            level = i if side == "encoder" else depth - 1 - i
            y = 24 + step * level
            share = shares.get(f"{side}.{i}:{name}")
            parts.append(f'<rect class="cell" x="{x}" y="{y}" width="{wide}" height="{high}" rx="6"/>')
            parts.append(f'<text class="celltext" x="{x + 10}" y="{y + 18}">{escape(name.replace("_", " "))}</text>')
            if share is not None:
                parts.append(f'<text class="tick" x="{x + wide - 10}" y="{y + 18}" text-anchor="end">'
                             f"{share:.0%}</text>")  # fmt: skip
                parts.append(f'<rect class="sharebar" x="{x + 10}" y="{y + 27}" width="{wide - 20}" height="6"/>')
                parts.append(f'<rect class="share" x="{x + 10}" y="{y + 27}" width="{share * (wide - 20):.1f}" '
                             'height="6"/>')  # fmt: skip
            if side == "encoder" and level < depth - 1:
                middle = y + high / 2
                parts.append(f'<line class="skip" x1="{left + wide + 4}" y1="{middle}" x2="{right - 6}" '
                             f'y2="{middle}"/>')  # fmt: skip
                parts.append(_label((left + wide + right) / 2, middle - 5, "skip" if level == 0 else ""))
            if level < depth - 1:
                parts.append(f'<line class="axis" x1="{x + wide / 2}" y1="{y + high}" x2="{x + wide / 2}" '
                             f'y2="{y + step}"/>')  # fmt: skip
    y = 24 + step * (depth - 1) + high // 2
    parts.append(f'<line class="axis" x1="{left + wide}" y1="{y}" x2="{right}" y2="{y}"/>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="The generator found: {escape(", ".join(encoder))} down, {escape(", ".join(decoder))} up">'
        f"{''.join(parts)}</svg>"
    )


def _label(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>' if text else ""


def _blocks(rows: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return each phase with its last iteration, in order."""
    found: list[tuple[str, int]] = []
    for phase, iteration in rows:
        if found and found[-1][0] == phase:
            found.pop()
        found.append((phase, iteration))
    return found
