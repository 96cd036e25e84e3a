"""C-STORE by hand on an association that pynetdicom opened: from the file to the wire, and one look at the answer.

pynetdicom takes as much of the CPU for a slice as an archive takes to store it: two threads look for news a thousand
times a second, each 16 kB are an object, the answer is a data set. Here both threads stand still meanwhile. Messages:
PS3.7 section 9.3.1 and annex E, PS3.8 section 9.3.5.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genseg_monai.pacs.faults import ArchiveError, NetFault

if TYPE_CHECKING:
    from pynetdicom.association import Association

__all__ = ["StoreLine", "storing_by_hand"]

_DATA, _COMMAND, _LAST = 4, 1, 2
_RQ, _RSP = 0x0001, 0x8001
_BLOCK = 2**20  # bytes in memory at a time
_UNBOUNDED = 2**18  # bytes of one message to an archive that sets no limit
_MAX_ANSWER, _MAX_MESSAGES = 2**16, 100
_WAIT = 5.0


@contextmanager
def storing_by_hand(association: Association, connection: socket.socket) -> Iterator[StoreLine]:
    """Hold the threads of an association for as long as its connection is used here.

    Args:
        association: established.
        connection: its socket, with a time limit set.

    Raises:
        ArchiveError: the line broke.
    """
    inside: Any = association
    provider, look = inside.dul, inside.dul._is_transport_event
    entered, leave = threading.Event(), threading.Event()

    def hold() -> bool:
        entered.set()
        leave.wait()
        return False

    inside._reactor_checkpoint.clear()
    provider._is_transport_event = hold
    try:
        if not entered.wait(_WAIT):
            raise _broken()
        yield StoreLine(association, connection)
    except ArchiveError:
        provider.event_queue.put("Evt17")  # the connection is closed, for all that pynetdicom knows
        raise
    finally:
        provider._is_transport_event = look
        leave.set()
        inside._reactor_checkpoint.set()


class StoreLine:
    """Sends files, one after the other.

    Args:
        association: established, its threads held.
        connection: its socket.
    """

    def __init__(self, association: Association, connection: socket.socket) -> None:
        self._connection, self._number = connection, 0
        self._contexts = {
            (str(one.abstract_syntax), str(one.transfer_syntax[0])): one.context_id or 0
            for one in association.accepted_contexts
        }
        most = association.acceptor.maximum_length or _UNBOUNDED
        self._piece = min(most - 6, _UNBOUNDED)  # of which six bytes say what it is

    def takes(self, sop_class: str, syntax: str) -> bool:
        """Say whether the archive takes a class in a syntax."""
        return (sop_class, syntax) in self._contexts

    def send(self, path: Path, start: int, sop_class: str, sop_instance: str, syntax: str) -> int:
        """Send one file.

        Args:
            path: the file.
            start: where its data set begins.
            sop_class: of the object.
            sop_instance: of the object.
            syntax: transfer syntax of the file.

        Returns:
            The status of the answer, 0 for success.

        Raises:
            ArchiveError: the line broke, or what came is no answer.
            OSError: the file cannot be read.
        """
        self._number = self._number % 65_000 + 1
        context = self._contexts[sop_class, syntax]
        with path.open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - start
            if left < 1:
                raise OSError("the file has become shorter")
            file.seek(start)
            waiting = _message(context, _COMMAND | _LAST, store_request(sop_class, sop_instance, self._number))
            while left:
                for _ in range(max(1, _BLOCK // self._piece)):
                    piece = file.read(min(left, self._piece))
                    if not piece:
                        raise OSError("the file has become shorter")
                    left -= len(piece)
                    waiting += _message(context, 0 if left else _LAST, piece)
                    if not left:
                        break
                self._write(waiting)
                waiting = b""
        return self._answer()

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise _broken() from None

    def _answer(self) -> int:
        """Return the status of the next C-STORE answer."""
        command = bytearray()
        for _ in range(_MAX_MESSAGES):
            kind, length = struct.unpack(">BxI", self._exactly(6))
            if kind != _DATA or length > _MAX_ANSWER:
                raise _broken()
            body, at = self._exactly(length), 0
            while at + 6 <= length:
                size, control = struct.unpack_from(">IxB", body, at)
                if control & _COMMAND:
                    command += body[at + 6 : at + 4 + size]
                    if control & _LAST:
                        return self._status(bytes(command))
                at += 4 + max(2, size)
        raise _broken()

    def _status(self, command: bytes) -> int:
        found = dict(command_values(command))
        if found.get(0x0100) != _RSP or found.get(0x0120) != self._number or 0x0900 not in found:
            raise _broken()
        return found[0x0900]

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        try:
            while len(got) < size:
                piece = self._connection.recv(size - len(got))
                if not piece:
                    raise _broken()
                got += piece
        except OSError:
            raise _broken() from None
        return bytes(got)


def store_request(sop_class: str, sop_instance: str, number: int) -> bytes:
    """Return the command set of a C-STORE request (PS3.7 table 9.3-1), implicit little endian.

    Example:
        >>> dict(command_values(store_request("1.2", "1.2.3", 7)))[0x0110]
        7
    """
    body = _element(0x0002, sop_class.encode("ascii")) + _short(0x0100, _RQ) + _short(0x0110, number)
    body += _short(0x0700, 0) + _short(0x0800, 1) + _element(0x1000, sop_instance.encode("ascii"))
    return _element(0x0000, struct.pack("<I", len(body))) + body


def command_values(command: bytes) -> Iterator[tuple[int, int]]:
    """Yield (element, value) of the 16-bit numbers in a command set; what cannot be walked ends it."""
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHI", command, at)
        if group or at + 8 + length > len(command):
            return
        if length == 2:
            yield element, struct.unpack_from("<H", command, at + 8)[0]
        at += 8 + length


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def _short(number: int, value: int) -> bytes:
    return _element(number, struct.pack("<H", value))


def _message(context: int, control: int, value: bytes) -> bytes:
    """Return a P-DATA-TF with one presentation data value."""
    return struct.pack(">BBIIBB", _DATA, 0, len(value) + 6, len(value) + 2, context, control) + value


def _broken() -> ArchiveError:
    return ArchiveError("c-store", NetFault.BROKEN, "the connection ended, or no answer came in time")
