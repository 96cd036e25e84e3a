"""The command line in a process of its own, to send signals to; forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

__all__ = ["Command"]

_ROOT = Path(__file__).resolve().parents[2]


class Command:
    """``genseg WORDS`` running in another process.

    Args:
        words: after ``genseg``.
        log: file for its stdout and stderr.
    """

    def __init__(self, words: list[str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        context.set_forkserver_preload(["tests.engines.preloaded"])
        self.log = log
        self._process = context.Process(target=_run, args=(words, str(log)), daemon=True)
        self._process.start()

    def wait(self, seconds: float = 120) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(self.log.read_text(encoding="utf-8"))
        return self._process.exitcode

    def wait_for(self, folder: Path, pattern: str, seconds: float = 120) -> None:
        """Wait until a folder has a file of such a name."""
        end = time.monotonic() + seconds
        while not any(folder.glob(pattern)):
            if self._process.exitcode is not None or time.monotonic() > end:
                raise TimeoutError(f"{pattern} did not come: {self.log.read_text(encoding='utf-8')}")
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _run(words: list[str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from genseg_monai.__main__ import main

    sys.argv = ["genseg", *words]
    sys.exit(main(words))
