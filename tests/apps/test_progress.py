"""The progress line: what is done of how much, and the time left, by a clock that the test moves."""

from __future__ import annotations

import pytest

from genseg_monai.apps.progress import bars


def test_counts_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with bars() as tell:
        tell("retrieve", 0, 10)
        now[0] += 20.0
        tell("retrieve", 5, 10)
        told = capsys.readouterr().err
        assert "retrieve:  50%" in told
        assert "5/10 [00:20<00:20" in told  # five took 20 s: five more take as long
        now[0] += 60.0
        tell("retrieve", 8, 10)
        told = capsys.readouterr().err
        assert "8/10" in told
        elapsed, left = told.rsplit("[", 1)[1].split(",")[0].split("<")
        assert elapsed == "01:20"
        minutes, seconds = map(int, left.split(":"))
        assert 10 <= 60 * minutes + seconds <= 45  # two more at 4 to 20 s each
        now[0] += 10.0
        tell("retrieve", 10, 10)
        tell("convert", 1, 4)
    told = capsys.readouterr().err
    assert "10/10 [01:30<00:00" in told
    assert "convert:" in told
    assert "1/4" in told


def test_a_total_that_grows(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        tell("query", 1, 2)
        tell("query", 3, 4)
    assert "3/4" in capsys.readouterr().err


def test_results_and_progress_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        tell("query", 1, 1)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err
