"""pynetdicom, tuned and fenced: no waiting for small packets, larger reads, bounds before memory, nothing in the log.

pynetdicom 3.0 leaves Nagle's algorithm on (40 ms a message on some systems), reads 4 kB at a time, sends each 16 kB
through a queue, and believes the length a peer announces for a message. The hook on the opened connection changes this
for one association; nothing of the library is patched for others.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from genseg_monai._optional import require
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.settings import PacsSettings
from genseg_monai.pacs.tls import tls_fault, watch

if TYPE_CHECKING:
    from pynetdicom import AE
    from pynetdicom.association import Association
    from pynetdicom.events import Event

__all__ = ["SYNTAXES", "Line", "make_entity", "opened", "quiet"]

# what a series may arrive in. Not deflated (a bomb is one kilobyte) and no video.
SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit little endian
    "1.2.840.10008.1.2",  # implicit little endian
    "1.2.840.10008.1.2.2",  # explicit big endian
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.5",  # RLE
)
_READ = 2**18
_WRITE = 2**20


def quiet() -> None:
    """Keep identifiers out of every log: these libraries write queries, URLs and headers into theirs."""
    config: Any = require("pynetdicom._config", "talking to an archive")
    config.LOG_HANDLER_LEVEL = "none"
    config.LOG_REQUEST_IDENTIFIERS = config.LOG_RESPONSE_IDENTIFIERS = False
    for name in ("pynetdicom", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def make_entity(settings: PacsSettings) -> AE:
    """Return an application entity with our title and time limits."""
    quiet()
    entity = require("pynetdicom", "talking to an archive").AE(ae_title=settings.aet)
    idle = settings.limits.idle_seconds
    entity.acse_timeout = entity.connection_timeout = min(idle, 30.0)
    entity.dimse_timeout = entity.network_timeout = idle
    entity.maximum_pdu_size = settings.limits.pdu_bytes
    return entity


def opened(
    pdu_bytes: int,
    idle: float,
    count: Callable[[int], None] | None = None,
    sockets: list[socket.socket] | None = None,
    faults: list[BaseException] | None = None,
) -> Callable[[Event], None]:
    """Return the hook for a connection that has just opened.

    Args:
        pdu_bytes: the longest message to believe.
        idle: seconds after which a connection that stands still is given up.
        count: told each number of bytes before they are kept; may raise ArchiveError to end the association.
        sockets: collects the connection, for whoever closes it.
        faults: collects what TLS complains of while it reads: an archive may refuse our certificate as late as that.
    """

    def hook(event: Event) -> None:
        wrapped: Any = event.assoc.dul.socket
        raw = wrapped.socket
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sockets is not None:
            sockets.append(raw)

        def receive(size: int) -> bytearray:
            # ends up as a broken connection: the caller asks its inbox why
            if size > pdu_bytes + 4096:
                raise OSError("a message longer than agreed")
            if count:
                try:
                    count(size)
                except ArchiveError as error:
                    raise OSError(str(error)) from None
            buffer = bytearray(size)
            with memoryview(buffer) as view:
                got = 0
                while got < size:
                    try:
                        now = raw.recv_into(view[got:], min(size - got, _READ))
                    except ssl.SSLError as error:
                        if faults is not None:
                            faults.append(error)
                        raise
                    if not now:
                        break
                    got += now
            del buffer[got:]
            return buffer

        wrapped.recv = receive
        raw.settimeout(idle)
        if not isinstance(raw, ssl.SSLSocket):  # one TLS connection is not to be used by two threads at once
            dul: Any = event.assoc.dul
            dul.send_pdu = _straight(raw, dul, dul.send_pdu)

    return hook


def _straight(raw: socket.socket, dul: Any, through_queue: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a way to send data that does not hand each 16 kB to the reactor thread: whole messages, one call."""
    waiting = bytearray()

    def send(primitive: Any) -> None:
        pieces = getattr(primitive, "presentation_data_value_list", None)
        if pieces is None:  # association control, which has states
            through_queue(primitive)
            return
        last = False
        for context, value in pieces:  # PS3.8 9.3.5: P-DATA-TF with one presentation data value
            waiting.extend(struct.pack(">BBIIB", 4, 0, len(value) + 5, len(value) + 1, context))
            waiting.extend(value)
            last = bool(value[0] & 2)
        if last or len(waiting) > _WRITE:
            try:
                raw.sendall(waiting)
            except OSError:
                dul.event_queue.put("Evt17")  # the connection is closed
            waiting.clear()

    return send


class Line:
    """An association to the archive as a context: released at its end, aborted after a fault, its socket closed.

    Args:
        settings: of the archive.
        route: what to name in an error.
        models: SOP classes of the services to use.
        offers: (SOP class, transfer syntaxes) to propose on top, each as a context of its own.
        roles: negotiated roles, for C-GET.
        handlers: of pynetdicom events.
        count: handed on to `opened`.

    Raises:
        ArchiveError: nobody there, or not with these titles.
    """

    def __init__(
        self,
        settings: PacsSettings,
        route: str,
        models: Sequence[str] = (),
        offers: Sequence[tuple[str, Sequence[str]]] = (),
        *,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
        count: Callable[[int], None] | None = None,
    ) -> None:
        entity = make_entity(settings)
        for model in models:
            entity.add_requested_context(model)
        presentation = require("pynetdicom.presentation", "talking to an archive")
        # add_requested_context would merge the syntaxes of one class into one offer
        more = [presentation.build_context(kind, list(syntaxes)) for kind, syntaxes in offers]
        entity.requested_contexts = [*entity.requested_contexts, *more]
        events = require("pynetdicom.events", "talking to an archive")
        self._sockets: list[socket.socket] = []
        faults: list[BaseException] = []
        hook = opened(settings.limits.pdu_bytes, settings.limits.idle_seconds, count, self._sockets, faults)
        try:
            self._association = entity.associate(
                settings.host,
                settings.port,
                ae_title=settings.called_aet,
                ext_neg=list(roles) or None,
                max_pdu=settings.limits.pdu_bytes,
                evt_handlers=[(events.EVT_CONN_OPEN, hook), *handlers],
                tls_args=(watch(settings.tls.context(), faults), settings.host) if settings.tls else None,
            )
        except (OSError, RuntimeError):
            raise ArchiveError(route, NetFault.UNREACHABLE, "could not open a connection to host and port") from None
        if self._association.is_established:
            return
        self._close()
        if fault := next((found for error in faults if (found := tls_fault(route, error))), None):
            raise fault
        if self._is_rejected():
            problem = "wanted to be let in, the archive refused; are aet and called_aet known to it?"
            raise ArchiveError(route, NetFault.REJECTED, problem)
        if self._association.rejected_contexts and not self._association.accepted_contexts:
            raise ArchiveError(route, NetFault.REJECTED, "the archive takes none of these kinds of object, or service")
        problem = "wanted an archive at host and port, none answered; are host, port and tls in pacs.yaml right?"
        raise ArchiveError(route, NetFault.UNREACHABLE, problem)

    def _is_rejected(self) -> bool:
        """Say whether the archive refused us: pynetdicom overlooks an answer that is there before it looks for one."""
        association: Any = self._association
        unread = list(association.dul.to_user_queue.queue)
        return association.is_rejected or any(getattr(one, "result", None) in (1, 2) for one in unread)

    @property
    def connection(self) -> socket.socket:
        """Return the socket."""
        return self._sockets[0]

    def __enter__(self) -> Association:
        return self._association

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._association.is_established and kind is None:
            self._association.release()
        else:
            self._association.abort()
        self._close()

    def _close(self) -> None:
        """Close the socket: pynetdicom leaves it open where the other side was first."""
        if self._association.is_alive():
            self._association.join(2)
        for one in self._sockets:
            one.close()
