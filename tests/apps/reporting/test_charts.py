"""Charts: points where they belong, every name escaped, numbers readable."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from genseg_monai.apps.reporting import charts
from genseg_monai.apps.reporting.svg import STYLES, Axis, Canvas, Series, legend, line_chart, nice_ticks


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline class="line s\d" points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


def test_a_line_goes_where_its_numbers_say() -> None:
    canvas = Canvas("", Axis("", 0, 10), Axis("", 0, 1), 500, 300)
    (left, bottom), (right, top) = canvas.at(0, 0), canvas.at(10, 1)
    assert left < right
    assert top < bottom
    assert canvas.at(5, 0.5) == ((left + right) / 2, (bottom + top) / 2)
    [line] = points(line_chart([Series("a", (0, 10), (0, 1))], "", Axis("", 0, 10), Axis("", 0, 1), width=500))
    assert line == [(left, bottom), (right, top)]


def test_a_logarithmic_axis() -> None:
    canvas = Canvas("", Axis("", 1, 100, log=True), Axis("", 0, 1))
    assert canvas.at(10, 0)[0] == pytest.approx((canvas.at(1, 0)[0] + canvas.at(100, 0)[0]) / 2)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.31, 0.47), (0, 1234), (-2, 3), (1e-6, 2e-6)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert low - 1e-9 <= min(ticks) <= max(ticks) <= high + 1e-9
    assert nice_ticks(2, 2) == [2]


def test_one_point_and_equal_values_do_not_divide_by_zero() -> None:
    for x, y in (((5,), (0.5,)), ((1, 2), (0.5, 0.5))):
        for log in (False, True):
            parsed(line_chart([Series("a", x, y)], "", Axis("x", log=log), Axis("y")))


def test_names_are_escaped() -> None:
    evil = '<script>"&'
    for svg in (
        line_chart([Series(evil, (0, 1), (0, 1))], evil, Axis(evil), Axis(evil)),
        charts.pair_chart([0.5], [0.6], (evil, evil)),
        charts.distance_chart([(evil, [0.1, 0.2], 0)]),
    ):
        assert "<script>" not in svg
        parsed(svg)
    assert "<script>" not in legend([(evil, 0)])


def test_every_style_looks_different() -> None:
    drawn = {legend([("a", style)]) for style in range(STYLES)}
    assert len(drawn) == STYLES


def test_the_curves_of_a_run() -> None:
    rows = [
        {"iteration": "10", "phase": "warm_up", "loss": "", "generator_loss": "3.0", "validation": ""},
        {"iteration": "20", "phase": "search", "loss": "1.5", "generator_loss": "2.0", "validation": "0.5"},
        {"iteration": "30", "phase": "search", "loss": "1.0", "generator_loss": "", "validation": "0.75"},
    ]
    svg = charts.history_chart(rows, [("loss", "segmenter", 0), ("generator_loss", "generator", 3)], "loss")
    assert [len(line) for line in points(svg)] == [2, 2]
    assert "warm up" in svg
    [line] = points(charts.history_chart(rows, [("validation", "GenSeg", 0)], "validation Dice"))
    assert line[1][0] > line[0][0]
    assert line[1][1] < line[0][1]  # higher Dice is higher on the page
    parsed(charts.history_chart(rows[:1], [("loss", "segmenter", 0)], "loss"))


def test_reliability_leaves_empty_bins_out() -> None:
    curve = {"probability": [0.1, None, 0.9], "frequency": [0.2, None, 0.7], "count": [5, 0, 5]}
    [line] = points(charts.reliability_chart([("as trained", curve, 1)]))
    assert len(line) == 2


def test_the_architecture() -> None:
    genotype = {"space": "paper", "encoder": ["conv_4", "conv_6"], "decoder": ["conv_8", "conv_4"]}
    svg = charts.genotype_drawing(genotype, {"encoder.0:conv_4": 0.5})
    texts = [text.text for text in parsed(svg).iter("text")]
    assert sorted(t for t in texts if t.startswith("conv")) == ["conv 4", "conv 4", "conv 6", "conv 8"]
    assert "50%" in texts
    rows = [{"iteration": str(i), "encoder.0:conv_4": str(0.3 + i / 100), "encoder.0:conv_6": "0.4"} for i in (0, 10)]
    svg, names = charts.alpha_chart(rows)
    assert names == [("conv_4", 0), ("conv_6", 1)]
    assert len(points(svg)) == 2


def test_intervals_of_a_table_share_their_scale() -> None:
    marks = [float(re.search(r'cx="([\d.]+)"', charts.interval_bar(m, m - 0.1, m + 0.1, (0.2, 0.9), 0))[1]) for m in
             (0.4, 0.6)]  # fmt: skip
    assert marks[0] < marks[1]
