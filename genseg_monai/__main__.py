"""The command line: ``python -m genseg_monai COMMAND`` or ``genseg COMMAND``.

Errors are one line on stderr, ``genseg: WHERE: problem``; the exit code is 2 for wrong use or input, 1 for a failure
in the run. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from genseg_monai import __version__
from genseg_monai._outcome import exit_code, one_line
from genseg_monai.errors import UserError

__all__ = ["COMMANDS", "main"]

# command -> (the module below genseg_monai.apps that has a function of the command's name, what it does)
COMMANDS = {
    "check": ("check", "list every fault of a data set, and what training would do with it"),
    "train": ("train", "train the generator and the segmenter together on a few labelled cases"),
    "predict": ("predict", "segment images with a trained bundle"),
    "evaluate": ("evaluate", "score a trained bundle on held-out cases"),
    "study": ("study", "compare the arms on your own cases: does it help, by how much, how sure is that"),
    "report": ("report", "one page on a training or a study: verdict, scores, cases, synthetic images, cost"),
    "generate": ("generate", "make images for masks with a trained bundle"),
    "incontext": ("incontext", "segment images by a few labelled ones, without training"),
    "rank": ("rank", "order unlabelled cases: which one to annotate next"),
    "tasks": ("tasks", "turn labelled data sets into tasks to train UniverSeg on"),
    "pacs-check": ("pacs_check", "ask an archive whether it answers, by every route of its settings"),
    "pull": ("pull", "fetch series and annotations from an archive into a de-identified data set"),
    "push": ("push", "send segmentations to an archive"),
    "deidentify": ("deidentify", "take the identity out of DICOM files"),
    "label": ("label", "serve images to 3D Slicer and OHIF: segment, correct, train again, label what helps most"),
    "convert": ("convert", "turn DICOM files into a data set that train reads"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: the words after ``genseg``; those of this process if not given.

    Returns:
        The exit code: 0, 1 (failure in the run), 2 (wrong use or input) or 130 (interrupted).

    Example:
        >>> main(["--version"])
        genseg 0.1.0
        0
    """
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words or os.environ.get("GENSEG_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    # read by OpenMP when torch is imported: threads that spin while they wait make a busy machine ten times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _messages(debug):
            return _run(words)
    except KeyboardInterrupt:
        print("genseg: stopped by the user", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"genseg: {one_line(error)}", file=sys.stderr)
        return exit_code(error)


def _run(words: list[str]) -> int:
    from genseg_monai.apps.help_text import command_help, overview

    if not words or words[0] in ("--help", "-h", "help"):
        print(overview({name: about for name, (_, about) in COMMANDS.items()}, __version__), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"genseg {__version__}")
        return 0
    function = _find(words[0])
    if "--help" in words or "-h" in words:
        print(command_help(words[0], function), end="")
        return 0
    from genseg_monai.apps.command_line import bind

    result = function(**bind(function, words[1:]))
    if isinstance(result, int):
        return result
    if result is not None:
        print(result)
    return 0


def _find(command: str) -> Callable[..., Any]:
    """Import the function of a command; nothing else is imported."""
    if command not in COMMANDS:
        raise UserError(command, "there is no such command; there are " + ", ".join(COMMANDS))
    module = importlib.import_module(f"genseg_monai.apps.{COMMANDS[command][0]}")
    function: Callable[..., Any] = getattr(module, command.replace("-", "_"))
    return function


@contextmanager
def _messages(debug: bool) -> Iterator[None]:
    """Send our messages, and the warnings of others, to stderr while a command runs."""
    root, ours = logging.getLogger(), logging.getLogger("genseg_monai")
    handler, level = logging.StreamHandler(sys.stderr), ours.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
