"""A page in headless Chromium: what it complains of, and what is wider than the page."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from tests.tools import needed

__all__ = ["Tags", "looked_at", "outside_links"]

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    "--disable-dev-shm-usage",
)
_MEASURE = """<script>
const wide = [], most = document.documentElement.clientWidth + 1;
for (const one of document.querySelectorAll("body *")) {
  const box = one.getBoundingClientRect(), scrolls = one.tagName === "DIV" && one.scrollWidth > one.clientWidth + 1;
  if (box.right > most || scrolls)
    wide.push(one.tagName + "." + one.getAttribute("class") + " " + Math.round(box.right) + " " + one.scrollWidth);
}
const broken = [...document.images].filter(image => !image.naturalWidth).length;
document.title = JSON.stringify({page: document.documentElement.scrollWidth, wide, broken});
</script></body>"""


def looked_at(page: Path, folder: Path, width: int = 1280) -> tuple[dict, list[str]]:
    """Show a page and return what was measured, and the lines of the console.

    Args:
        page: the HTML file.
        folder: for a copy with a script that measures, and the browser's profile.
        width: of the window.

    Returns:
        ``page`` (width of the page), ``wide`` (elements wider than they may be), ``broken`` (images that are none).
    """
    [chromium] = needed("chromium")
    copy = folder / f"measured_{width}.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", _MEASURE), encoding="utf-8")
    profile = f"--user-data-dir={folder / f'profile_{width}'}"
    more = [profile, f"--window-size={width},2000", "--enable-logging=stderr", "--dump-dom"]
    closed = ["--host-resolver-rules=MAP * ~NOTFOUND"]  # nothing can be fetched
    done = subprocess.run(
        [chromium, *_FLAGS, *closed, *more, copy.as_uri()], capture_output=True, text=True, check=False, timeout=120
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)
    assert title, done.stderr[-2000:]
    return json.loads(unescape(title[1])), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


class Tags(HTMLParser):
    """Check that every element that is opened is closed, and note them all.

    Attributes:
        seen: tag and attributes of each element.
        text: what is between them.
    """

    _VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data


def outside_links(page: str) -> list[str]:
    """Return everything in a page that a browser would fetch from elsewhere."""
    found = re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"'<)]*""", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    for tag, given in Tags(page).seen:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            value = given.get(name) or ""
            if value and not value.startswith(("data:image/", "#")):
                found.append(f"{tag} {name}={value}")
        if tag in {"script", "iframe", "object", "embed", "link", "base"}:
            found.append(tag)
    return found + re.findall(r"@import|url\(", page)
