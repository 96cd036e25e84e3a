"""Progress with the time left: a bar on a terminal, a few log lines elsewhere; and the log file of a run."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
from ignite.engine import Events

from genseg_monai.handlers import Progress, RunLog
from tests.engines.tiny import EPOCHS, LENGTH, make_trainer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_an_epoch_with_the_time_left(caplog, capsys):
    trainer = make_trainer(train_handlers=[Progress()])
    with caplog.at_level(logging.INFO, logger="genseg_monai"):
        trainer.run()
    lines = [text for text in caplog.messages if " left" in text]
    assert len(lines) == EPOCHS
    pattern = r"search: iteration 4 of 24, loss \d+\.\d+, about \d+ (s|min) left"
    assert re.fullmatch(pattern, lines[0])
    assert lines[-1].startswith("augment: iteration 24 of 24")
    assert lines[-1].endswith("about 0 s left")
    assert "it/s" not in capsys.readouterr().err


@pytest.mark.parametrize(("epochs", "lines"), [(2, 3), (6, 1), (None, 6)])
def test_lines_come_every_few_epochs(caplog, epochs, lines):
    with caplog.at_level(logging.INFO, logger="genseg_monai"):
        make_trainer(train_handlers=[Progress(epochs)]).run()
    assert len([text for text in caplog.messages if " left" in text]) == lines


def test_on_a_terminal_a_bar(monkeypatch, caplog):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO, logger="genseg_monai"):
        make_trainer(train_handlers=[Progress()]).run()
    assert f"{EPOCHS * LENGTH}/{EPOCHS * LENGTH}" in screen.getvalue()
    assert "augment" in screen.getvalue()
    assert "loss " in screen.getvalue()
    assert not [text for text in caplog.messages if " left" in text]


def test_the_log_file_has_the_lines_of_this_run_alone(tmp_path):
    logger = logging.getLogger("genseg_monai")
    before, level = list(logger.handlers), logger.level

    def fail(engine: object) -> None:
        raise KeyError("x")

    failing = make_trainer(train_handlers=[RunLog(tmp_path / "a"), Progress(1)])
    failing.add_event_handler(Events.EPOCH_COMPLETED, fail)
    with pytest.raises(KeyError):
        failing.run()
    make_trainer(train_handlers=[RunLog(tmp_path / "b"), Progress(1)]).run()
    logs = [(tmp_path / name / "logs" / "train.log").read_text().splitlines() for name in "ab"]
    assert [len([line for line in lines if "iteration" in line]) for lines in logs] == [1, EPOCHS]
    assert all(" INFO " in line for line in logs[1])
    assert (logger.handlers, logger.level) == (before, level)
