"""Compressed pixels, decoded in worker processes that have little memory and little time.

Codecs are C and C++ that read bytes a stranger wrote: they may crash, hang or fill the memory. So they run in
processes of their own (`genseg_monai.dicom.codecs`), which are thrown away when they misbehave. One decoder is pinned
for each transfer syntax, so that the values do not depend on what else is installed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from genseg_monai.dicom.codecs import DECODERS
from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.header import NATIVE, Limits
from genseg_monai.dicom.image import ImageHeader
from genseg_monai.errors import UserError

__all__ = ["check_syntax", "decode_files"]

_PROCESSES = 4
_START_SECONDS = 60.0
_PACKAGES = str(Path(__file__).resolve().parents[2])


def check_syntax(header: ImageHeader) -> None:
    """Refuse a transfer syntax that nothing here decodes.

    Raises:
        SeriesError: the syntax is not native and has no pinned decoder, or is native yet encapsulated.
    """
    native = header.pixels.length is not None
    if (header.syntax in NATIVE) != native or not (native or header.syntax in DECODERS):
        raise SeriesError(
            header.path,
            SeriesFault.TRANSFER_SYNTAX,
            f"wanted a transfer syntax that can be decoded, got {header.syntax}; have it sent uncompressed",
        )


def decode_files(
    headers: Sequence[ImageHeader], sink: Callable[[ImageHeader, int, np.ndarray], None], limits: Limits
) -> None:
    """Decode every frame of every file.

    Args:
        headers: compressed files, their syntax checked.
        sink: called with (header, frame, stored values of shape (rows, columns)), from several threads.
        limits: memory and time of one file.

    Raises:
        SeriesError: a decoder failed, crashed, ran out of memory or time, or gave another size.
    """
    count = max(1, min(len(headers), os.cpu_count() or 1, _PROCESSES))

    def decode(header: ImageHeader) -> None:
        with _borrowed() as worker:
            for frame, stored in worker.frames(header, limits):
                sink(header, frame, stored)

    with ThreadPoolExecutor(count) as threads:
        waiting = [threads.submit(decode, header) for header in headers]
        try:
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()


class _Worker:
    """One process that decodes; after any trouble it is killed and not used again."""

    def __init__(self) -> None:
        paths = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH", ""))))
        # our own variables name keys and passwords: nothing for a process that a file may take over
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GENSEG_")}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "genseg_monai.dicom.codecs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a codec says may hold values of the file
            env=environment,
            bufsize=0,
        )
        self.owner = os.getpid()
        self._rest = b""
        try:
            self._line(time.monotonic() + _START_SECONDS)  # "ready"
        except (EOFError, TimeoutError):
            self.kill()
            raise UserError(
                "pydicom", "wanted a process for the decoders, it did not start; check the installation"
            ) from None

    def frames(self, header: ImageHeader, limits: Limits) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (frame, stored values) of one file."""
        request = {
            "path": str(header.path),
            "syntax": header.syntax,
            "frames": header.frames,
            "memory": min(limits.worker_bytes, (1 << 30) + 6 * header.rows * header.columns * header.allocated // 8),
        }
        deadline = time.monotonic() + limits.seconds
        try:
            self._send((json.dumps(request) + "\n").encode())
            for frame in range(header.frames):
                answer = json.loads(self._line(deadline))
                if "error" in answer:
                    raise _fault(header, f"the decoder failed ({answer['error']})")
                shape, kind = tuple(answer["shape"]), np.dtype(answer["dtype"])
                if shape != (header.rows, header.columns) or kind.kind not in "iu" or kind.itemsize > 4:
                    raise _fault(header, f"the decoder gave {shape}, the header says {header.rows} x {header.columns}")
                data = self._exactly(header.rows * header.columns * kind.itemsize, deadline)
                yield frame, np.frombuffer(data, kind).reshape(shape)
        except TimeoutError:
            self.kill()
            raise _fault(header, f"the decoder took more than {limits.seconds:.0f} s") from None
        except (EOFError, BrokenPipeError, ValueError, KeyError) as error:
            self.kill()
            if isinstance(error, SeriesError):
                raise
            raise _fault(header, "the decoder crashed or ran out of memory") from None
        except BaseException:
            self.kill()  # half an answer may still be in the pipe
            raise

    def kill(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def _more(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        if not select.select([number], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        data = os.read(number, size)
        if not data:
            raise EOFError
        return data

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            if len(self._rest) > 1 << 16:
                raise EOFError
            self._rest += self._more(1 << 12, deadline)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts, self._rest = [self._rest[:size]], self._rest[size:]
        missing = size - len(parts[0])
        while missing:
            parts.append(self._more(missing, deadline))
            missing -= len(parts[-1])
        return b"".join(parts)


def _fault(header: ImageHeader, what: str) -> SeriesError:
    return SeriesError(header.path, SeriesFault.PIXELS, f"wanted pixels that decode, got none: {what}")


_idle: list[_Worker] = []


@contextlib.contextmanager
def _borrowed() -> Iterator[_Worker]:
    """Lend a process; starting one takes a third of a second, so that good ones are kept for the next file."""
    worker = None
    while _idle and worker is None:
        candidate = _idle.pop()
        worker = candidate if candidate.alive else None
    worker = worker or _Worker()
    try:
        yield worker
    finally:
        if worker.alive:
            _idle.append(worker)


@atexit.register
def _end() -> None:
    while _idle:
        worker = _idle.pop()
        if worker.owner == os.getpid():
            worker.kill()
