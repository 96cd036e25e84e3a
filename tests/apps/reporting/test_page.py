"""The page itself: whole, closed, escaped, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.apps.reporting.page import (
    Cases,
    Chart,
    Code,
    Estimate,
    Figures,
    Noted,
    Page,
    Panel,
    Section,
    Table,
    Text,
    Tile,
    write_page,
)  # fmt: skip
from genseg_monai.apps.reporting.svg import Axis, Series, legend, line_chart
from tests.apps.reporting.browser import Tags, outside_links

EVIL = "<script>alert('x')</script>&\"|"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def page(name: str = EVIL) -> Page:
    chart = line_chart([Series(name, (0, 1), (0, 1))], name, Axis(name), Axis(name))
    case = dict.fromkeys(("rank", "name", "dice", "others"), name) | {"image": PIXEL, "overlay": PIXEL}
    blocks = [
        Text(name),
        Text(name, small=True),
        Table((name, "", "Dice", "p"), [(name, "<svg></svg>", Estimate(0.5, 0.4, 0.6), Noted(name, name))], name),
        Figures([Chart(chart, name, legend([(name, 0)]))]),
        Cases([case]),
        Panel([name], [[PIXEL]]),
        Code(name),
    ]
    return Page(name, "no", f"No: {name}.", [Tile(name, name, name)], [Section("All of it", blocks), Section("-", [])])


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    html, _ = write_page(page(), tmp_path)
    text = html.read_text()
    tags = Tags(text)
    assert not [given for tag, given in tags.seen if tag == "script"]
    assert EVIL in tags.text
    assert outside_links(text) == []


def test_sections_without_blocks_are_left_out(tmp_path: Path) -> None:
    tags = Tags(write_page(page(), tmp_path)[0].read_text())
    assert [given["id"] for tag, given in tags.seen if tag == "section"] == ["all-of-it"]


def test_pictures_have_words_and_the_page_a_language(tmp_path: Path) -> None:
    tags = Tags(write_page(page("a"), tmp_path)[0].read_text())
    images = [given for tag, given in tags.seen if tag == "img"]
    assert len(images) == 3
    assert all(given.get("alt") for given in images)
    drawings = [given for tag, given in tags.seen if tag == "svg" and "viewbox" in given]
    assert all(given.get("aria-label") or given.get("aria-hidden") for given in drawings)
    assert ("html", {"lang": "en"}) in tags.seen
    assert [tag for tag, _ in tags.seen if tag in ("h1", "h2")] == ["h1", "h2"]


def test_the_twin_has_the_same_numbers_and_no_picture(tmp_path: Path) -> None:
    _, markdown = write_page(page("a"), tmp_path)
    text = markdown.read_text()
    assert text.startswith("# GenSeg report: a\n\n**No: a.**\n")
    assert "| a | Dice | p |\n|---|---|---|\n| a | 0.500 [0.400, 0.600] | a (a) |" in text
    assert "svg" not in text
    assert "base64" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("broken", ["<p><b></p></b>", "<p>", "</p>"])
def test_the_check_itself_sees_what_is_not_closed(broken: str) -> None:
    with pytest.raises(AssertionError):
        Tags(broken)


@pytest.mark.parametrize("tag", ['<img src="https://a.org/b.png">', "<script></script>", "<a href='//b.de'></a>",
                                 '<p style="background:url(x)"></p>'])  # fmt: skip
def test_the_check_itself_sees_what_comes_from_elsewhere(tag: str) -> None:
    assert outside_links(tag)
