"""A log that a resumed run takes up where its checkpoint was."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.handlers.csv_log import CsvLog


@pytest.fixture
def log(tmp_path: Path) -> CsvLog:
    log = CsvLog(tmp_path / "logs" / "loss.csv", ["phase", "loss"])
    for i in (5, 10, 15):
        log.append(i, {"phase": "search", "loss": i / 10})
    return log


def test_rows_come_back(log):
    assert log.rows()[0] == {"iteration": "5", "phase": "search", "loss": "0.5"}
    assert log.path.read_text().splitlines()[0] == "iteration,phase,loss"


def test_a_value_that_is_missing_stays_empty(log):
    log.append(20, {"loss": 1})
    assert log.rows()[-1] == {"iteration": "20", "phase": "", "loss": "1"}


@pytest.mark.parametrize(("after", "kept"), [(0, []), (4, []), (5, ["5"]), (12, ["5", "10"]), (99, ["5", "10", "15"])])
def test_what_the_lost_part_of_a_run_wrote_is_cut(log, after, kept):
    log.cut(after=after)
    assert [row["iteration"] for row in log.rows()] == kept
    log.append(100, {})
    assert [row["iteration"] for row in log.rows()] == [*kept, "100"]
    assert [path.name for path in log.path.parent.iterdir()] == ["loss.csv"]


@pytest.mark.parametrize("end", ["20", "20,sea", "20,search"])
def test_a_line_cut_short_by_a_crash_is_left_out(log, end):
    with log.path.open("a") as stream:
        stream.write(end)
    assert [row["iteration"] for row in log.rows()] == ["5", "10", "15"]
    log.cut(after=15)
    log.append(20, {"phase": "plain", "loss": 2})
    assert log.rows()[-1] == {"iteration": "20", "phase": "plain", "loss": "2"}


def test_a_log_of_other_columns_is_made_to_fit(log):
    wider = CsvLog(log.path, ["phase", "loss", "validation"])
    wider.cut(after=10)
    wider.append(11, {"validation": 0.5})
    assert [row["validation"] for row in wider.rows()] == ["", "", "0.5"]


def test_cutting_what_is_not_there_makes_nothing(tmp_path):
    log = CsvLog(tmp_path / "none.csv", ["loss"])
    log.cut(after=3)
    assert log.rows() == []
    assert not log.path.exists()
