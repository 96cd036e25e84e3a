"""Our side of C-STORE: instances that an archive sends, on its C-GET association or to our own receiver."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from genseg_monai._optional import require
from genseg_monai.errors import UserError
from genseg_monai.pacs.faults import NetFault
from genseg_monai.pacs.identify import identify
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.settings import PacsSettings, is_loopback
from genseg_monai.pacs.tls import watch
from genseg_monai.pacs.wire import SYNTAXES, make_entity, opened

if TYPE_CHECKING:
    from pynetdicom.events import Event

__all__ = ["Receiver", "storing"]

_SUCCESS, _REFUSED, _NOT_MATCHING = 0x0000, 0xA700, 0xA900
_PAUSE = 0.02
_IMPLEMENTATION = "2.25.198012853120957322141071963451207341253"


def storing(inbox: Inbox) -> Callable[[Event], int]:
    """Return the handler that hands each instance, unparsed, to an inbox."""

    def handle(event: Event) -> int:
        request: Any = event.request
        syntax, data = str(event.context.transfer_syntax), request.DataSet.getbuffer() if request.DataSet else b""
        identity = identify(data, syntax)
        taken = False
        # announced as one thing and being another: neither
        if identity is None or identity.sop_instance == str(request.AffectedSOPInstanceUID or ""):
            head = file_head(identity.sop_class, identity.sop_instance, syntax) if identity else b""
            taken = inbox.take([head, data], identity)
        else:
            inbox.take([], None)
        if inbox.fault is not None:
            event.assoc.abort()  # also ends an archive that does not stop
            event.assoc.dimse.msg_queue.put((None, None))  # else a C-GET waits for its next message until time is out
            return _REFUSED
        return _SUCCESS if taken else _NOT_MATCHING

    return handle


def file_head(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Return preamble and file meta information (PS3.10 section 7.1); pydicom takes a millisecond for it.

    Example:
        >>> head = file_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
        >>> import io, pydicom
        >>> pydicom.dcmread(io.BytesIO(head)).file_meta.MediaStorageSOPInstanceUID
        '1.2.3'
    """
    body = b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
    for number, uid in ((2, sop_class), (3, sop_instance), (16, syntax), (18, _IMPLEMENTATION)):
        value = uid.encode("ascii")
        value += b"\0" * (len(value) % 2)
        body += struct.pack("<HH2sH", 2, number, b"UI", len(value)) + value
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


class Receiver:
    """A storage receiver for the time of one C-MOVE.

    Takes associations from the archive's AE title to ours only, few at a time, and hands every instance to the inbox,
    which refuses what was not asked for.

    Args:
        settings: of the archive; `move_port` is where to listen.
        inbox: where instances go.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, settings: PacsSettings, inbox: Inbox) -> None:
        evt = require("pynetdicom.events", "C-MOVE")
        entity = make_entity(settings)
        entity.require_called_aet = True
        entity.require_calling_aet = [settings.called_aet]
        entity.maximum_associations = settings.limits.associations
        for context in require("pynetdicom", "C-MOVE").AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, list(SYNTAXES))
        local = is_loopback(settings.host)
        address = settings.move_host or ("127.0.0.1" if local else "0.0.0.0")
        self._sockets: list[socket.socket] = []
        self._faults: list[BaseException] = []
        hook = opened(settings.limits.pdu_bytes, settings.limits.idle_seconds, inbox.count_bytes, self._sockets)
        try:
            self._server: Any = entity.start_server(
                (address, settings.move_port),
                block=False,
                evt_handlers=[(evt.EVT_CONN_OPEN, hook), (evt.EVT_C_STORE, storing(inbox))],
                ssl_context=watch(settings.tls.context(server=True), self._faults) if settings.tls else None,
            )
        except OSError:
            problem = f"wanted to listen at port {settings.move_port}, it is taken or not allowed; name another"
            raise UserError("pacs.yaml: move_port", problem) from None
        self._inbox = inbox

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with contextlib.suppress(OSError):
            self._server.shutdown()
        for one in self._sockets:
            one.close()

    def drain(self, seconds: float = 2.0) -> None:
        """Wait until the archive has closed its associations, for it may report the end before it does so."""
        end = time.monotonic() + seconds
        while self._server.active_associations and time.monotonic() < end and not self._inbox.complete:
            time.sleep(_PAUSE)
        if self._faults and not self._inbox.held:
            problem = "wanted the archive to send to us over TLS, one side refused the other's certificate; "
            problem += "do both trust each other's authority (tls ca, cert and key in pacs.yaml)?"
            self._inbox.stop(NetFault.CERTIFICATE, problem)
