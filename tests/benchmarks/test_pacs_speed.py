"""What the table of the ways from and to an archive says of a promise."""

from __future__ import annotations

import pytest

from benchmarks.pacs_speed import row


@pytest.mark.parametrize(("wanted", "verdict"), [(0.9, "kept"), (2.0, "kept"), (2.1, "broken"), (None, "-")])
def test_verdict_is_that_of_the_medians(wanted: float | None, verdict: str) -> None:
    ours, theirs = (1.0, 2.0, 9.0), (4.0, 4.0, 4.0)
    made = row("a", "b", [((mine, 1.0), (other, 1.0)) for mine, other in zip(ours, theirs, strict=True)], wanted)
    assert (made["ratio"], made["verdict"]) == (2.0, verdict)
