from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from genseg_monai import __main__, __version__
from genseg_monai._outcome import RunFailed, exit_code, one_line
from genseg_monai.apps import predict as predict_module
from genseg_monai.errors import UserError


@pytest.fixture(autouse=True)
def _no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSEG_DEBUG", raising=False)


def _run(monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str) -> int:
    def fail(*, name: str = "") -> None:
        raise error

    monkeypatch.setattr(predict_module, "predict", fail)
    return __main__.main(["predict", *words])


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec(f"genseg_monai.apps.{__main__.COMMANDS[command][0]}") is None:
        pytest.skip(f"no module for {command} yet")
    assert __main__.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: genseg {command} ")
    assert "\nexample:\n  genseg" in said or "\nexample:\n  python" in said
    rows = said[said.index("arguments:") :].split("\n\n")[0].splitlines()[1:]
    assert rows
    assert all(len(row.split("  ", 2)) == 3 for row in rows), "an argument is not explained"


def test_help_is_light_and_needs_no_pager() -> None:
    """In a process of its own: what was imported cannot be taken back here."""
    code = (
        "import sys; from genseg_monai.__main__ import main; main(['predict', '--help']); main(['--help']);"
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--bundle BUNDLE" in done.stdout


def test_defaults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main(["generate", "--help"])
    assert "(default: 1)" in capsys.readouterr().out


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 2
    assert __main__.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {command}" in said for command in __main__.COMMANDS)
    assert __main__.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["predcit"]) == 2
    assert (
        capsys.readouterr().err
        == f"genseg: predcit: there is no such command; there are {', '.join(__main__.COMMANDS)}\n"
    )


def test_result_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(predict_module, "predict", lambda: "3 masks")
    assert __main__.main(["predict"]) == 0
    assert capsys.readouterr() == ("3 masks\n", "")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("a.png", "wanted a mask,\n got none"), 2, "genseg: a.png: wanted a mask, got none\n"),
        (RunFailed("predict", "1 of 2 inputs failed"), 1, "genseg: predict: 1 of 2 inputs failed\n"),
        (OSError("disk full\nmore"), 1, "genseg: OSError: disk full (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "genseg: stopped by the user\n"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, error) == code
    assert capsys.readouterr() == ("", told)


def test_debug_adds_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, UserError("a", "b"), "--debug") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("genseg: a: b\n")
    monkeypatch.setenv("GENSEG_DEBUG", "1")
    _run(monkeypatch, UserError("a", "b"))
    assert "Traceback" in capsys.readouterr().err


def test_the_error_for_the_user_is_found_below_others() -> None:
    outer = RuntimeError("applying transform LoadImaged")
    outer.__cause__ = UserError("a.png", "wanted more")
    assert one_line(outer) == "a.png: wanted more"
    assert exit_code(outer) == 2
