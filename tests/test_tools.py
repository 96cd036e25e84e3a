"""Missing programs are told: a skip on a desk, a failure in CI."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tools import needed


def test_what_is_there_is_found() -> None:
    assert Path(needed("sh")[0]).name == "sh"
    assert needed(__file__) == [__file__]


@pytest.mark.parametrize(("value", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_missing(value: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    with pytest.raises(outcome, match="not installed: no-such-program of"):
        needed("sh", "no-such-program")


def test_nothing_about_archives_skips_otherwise(repository: Path) -> None:
    found = []
    for folder in ("dicom", "pacs"):
        for path in (repository / "tests" / folder).rglob("*.py"):
            calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
            names = {ast.unparse(call.func) for call in calls}
            found += [path.name] * bool(names & {"pytest.skip", "pytest.importorskip", "pytest.mark.skipif"})
    assert not found, f"use tests.tools.needed, which fails in CI: {found}"
