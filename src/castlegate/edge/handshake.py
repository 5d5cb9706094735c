"""A client's connection until its TLS handshake is done.

Who speaks no TLS, or does not finish its handshake in time, is refused; nobody who does so is worth more than a line in
the log.
"""

from __future__ import annotations

import math
import ssl
from asyncio import BaseTransport
from typing import TYPE_CHECKING

from castlegate.edge.connection import ClientConnection
from castlegate.edge.tls import Certificates
from castlegate.wire.client_hello import read_hello
from castlegate.wire.tls import TlsStream

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

_FIRST_BYTE = 22  # of a TLS connection: the type of a handshake record
_LARGEST_HELLO = 64 * 1024  # bytes; those of browsers have up to 2 KB
_NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"  # a fatal alert (RFC 8446 §6, RFC 7301 §3.2)
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 29\r\nconnection: close\r\n\r\n"
    b"Only https:// is spoken here."
)


class TlsConnection(TlsStream):
    """A client's connection; until the handshake is done the listener counts and times it like any other."""

    __slots__ = ("_certificates", "_hello", "_listener", "_peer", "expires")

    def __init__(self, listener: Listener, certificates: Certificates) -> None:
        super().__init__(ClientConnection(listener))
        self._certificates = certificates
        self._hello: bytearray | None = bytearray()  # until it is complete
        self._listener = listener
        self._peer = "unknown"
        self.expires = listener.loop.time() + certificates.handshake_timeout

    def connection_made(self, transport: BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unknown"
        listener = self._listener
        if len(listener.connections) >= listener.max_connections or listener.draining:
            self._refuse("connections")  # a handshake to say so would cost more than the answer is worth
        else:
            listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        received = self._hello
        if received is None or self._closing:
            super().data_received(data)
            return
        if not received and data[0] != _FIRST_BYTE:
            self._refuse("not_tls", _NOT_TLS if data[:1].isalpha() else b"")
            return
        received += data
        hello = read_hello(received)
        if hello is None:
            if len(received) > _LARGEST_HELLO:
                self._refuse("tls_handshake")
            return
        self._hello = None
        context = self._certificates.context(hello)
        if context is None:
            self._refuse("tls_handshake", _NO_APPLICATION_PROTOCOL)
            return
        self.begin(context, server_side=True)
        super().data_received(bytes(received))

    def handshaken(self) -> None:
        """It is a client like any other."""
        self.expires = math.inf
        self._listener.connections.discard(self)
        super().handshaken()

    def failed(self, error: Exception) -> None:
        """It never became one. Who connects and leaves, as balancers do to see whether we live, was not refused."""
        if self.expires != math.inf and isinstance(error, ssl.SSLError):
            self._listener.refused("tls_handshake")
            reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
            self._certificates.failures.tell(self._peer, reason or str(error))
        self.expires = math.inf

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        super().connection_lost(exc)
        self._listener.forget(self)

    # Listener's side.

    def expire(self) -> None:
        """The handshake takes too long."""
        self._refuse("tls_timeout")

    def drain(self) -> None:
        """No request was begun."""
        self.abort()

    def _refuse(self, reason: str, answer: bytes = b"") -> None:
        self.expires = math.inf
        self._listener.refused(reason)
        self._certificates.failures.tell(self._peer, reason)
        if answer:
            self._closing = True
            self._transport.write(answer)
            self._transport.close()
        else:
            self.abort()
