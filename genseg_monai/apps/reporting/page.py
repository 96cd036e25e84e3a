"""The page a report is: sections of blocks, written as one HTML file and as its Markdown twin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

import genseg_monai
from genseg_monai._atomic import whole_file
from genseg_monai._optional import require

__all__ = [
    "Cases",
    "Chart",
    "Code",
    "Estimate",
    "Figures",
    "Page",
    "Panel",
    "Section",
    "Table",
    "Text",
    "Tile",
    "write_page",
]

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Text:
    """A paragraph; `small` for remarks."""

    text: str
    small: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    r"""A table; a column without a title is a picture, which Markdown leaves out.

    Args:
        head: titles of the columns.
        rows: cells; SVG as `Chart.svg` has it.
        caption: above the table.
        numbers: whether the cells but the first are numbers.
        strong: rows to bring out.

    Example:
        >>> print(Table(("arm", "", "Dice"), [("a|b", "<svg/>", "0.9")]).markdown())
        | arm | Dice |
        |---|---|
        | a\|b | 0.9 |
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    numbers: bool = True
    strong: Sequence[int] = ()
    kind: str = "table"

    def markdown(self) -> str:
        """Return the table without pictures."""
        kept = [i for i, title in enumerate(self.head) if title]
        lines = [[self.head[i] for i in kept], ["---"] * len(kept), *([str(row[i]) for i in kept] for row in self.rows)]
        told = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        told[1] = "|" + "---|" * len(kept)
        return "\n".join(told)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, for a cell of a table.

    Example:
        >>> str(Estimate(0.5, 0.25, 0.75, 2)), str(Estimate(-0.5, -1, 0, 1, signed=True))
        ('0.50 [0.25, 0.75]', '−0.5 [−1.0, +0.0]')
    """

    mean: float
    low: float
    high: float
    digits: int = 3
    signed: bool = False

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self._told(self.mean)} [{self._told(self.low)}, {self._told(self.high)}]"

    def __html__(self) -> str:
        """Return the interval below the number."""
        interval = f"{self._told(self.low)} to {self._told(self.high)}"
        return f'<span class="estimate">{self._told(self.mean)}<small>{interval}</small></span>'

    def _told(self, value: float) -> str:
        return f"{value:{'+' if self.signed else ''}.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Noted:
    """A cell with a remark.

    Example:
        >>> str(Noted("0.03", "7 better, 2 worse"))
        '0.03 (7 better, 2 worse)'
    """

    text: str
    remark: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.text} ({self.remark})" if self.remark else self.text

    def __html__(self) -> str:
        """Return the remark below the text."""
        return f'<span class="estimate">{escape(self.text)}<small>{escape(self.remark)}</small></span>'


@dataclass(frozen=True)
class Chart:
    """A chart with its legend, both SVG or HTML of our own, and a caption.

    Example:
        >>> Chart('<svg width="360"/>', "a chart").width
        360
    """

    svg: str
    caption: str
    legend: str = ""

    @property
    def width(self) -> int:
        """Width of the picture in pixels; its caption is no wider."""
        found = re.search(r'width="(\d+)"', self.svg)
        return int(found[1]) if found else 640


@dataclass(frozen=True)
class Figures:
    """Charts beside each other where there is room."""

    figures: Sequence[Chart]
    kind: str = "figures"


@dataclass(frozen=True)
class Cases:
    """Cases as pictures: dictionaries with ``rank``, ``name``, ``dice``, ``others``, ``image``, ``overlay``."""

    cases: Sequence[dict[str, str]]
    kind: str = "cases"


@dataclass(frozen=True)
class Panel:
    """Rows of pictures (data URIs) under titles."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "panel"


@dataclass(frozen=True)
class Code:
    """Commands, to be typed as they stand."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Section:
    """A part of the page with a title.

    Example:
        >>> Section("Cost", []).id
        'cost'
    """

    title: str
    blocks: Sequence[Any]

    @property
    def id(self) -> str:
        """What links to it."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Tile:
    """One number that matters."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Page:
    """Everything a report shows.

    Args:
        title: what was reported on.
        answer: ``yes``, ``no`` or ``open``.
        verdict: the answer in one sentence.
        tiles: the numbers that matter.
        sections: the parts; those without blocks are left out.
        kind: ``run`` or ``study``.
        date: of the report.
        version: of this package.
    """

    title: str
    answer: str
    verdict: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    kind: str = "run"
    date: str = field(default_factory=lambda: date.today().isoformat())
    version: str = genseg_monai.__version__


def write_page(page: Page, folder: str | Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.md``; what comes from file names is escaped.

    Args:
        page: what to write.
        folder: where both go.

    Returns:
        The two files.
    """
    jinja2 = require("jinja2", "a report")
    places = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    written = []
    for name in ("report.html", "report.md"):
        shown = Page(**{**vars(page), "sections": [_trusted(one) for one in page.sections if one.blocks]})
        text = places.get_template(f"{name}.jinja").render(page=shown, style=_markup(style))
        with whole_file(Path(folder) / name) as temporary:
            temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
        written.append(Path(folder) / name)
    return written[0], written[1]


def _markup(text: str) -> Any:
    return require("markupsafe", "a report").Markup(text)


def _trusted(section: Section) -> Section:
    """Mark our own SVG as such: everything else is escaped."""
    blocks: list[Any] = []
    for block in section.blocks:
        if isinstance(block, Figures):
            block = Figures([Chart(_markup(c.svg), c.caption, _markup(c.legend)) for c in block.figures])
        elif isinstance(block, Table):
            pictures = [i for i, title in enumerate(block.head) if not title]
            rows = [[_markup(cell) if i in pictures else cell for i, cell in enumerate(row)] for row in block.rows]
            block = Table(block.head, rows, block.caption, block.numbers, block.strong)
        blocks.append(block)
    return Section(section.title, blocks)
