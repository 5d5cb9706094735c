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
from castlegate.edge.tls import Certificates, Handshake
from castlegate.wire.tls import TlsStream

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

_FIRST_BYTE = 22  # of a TLS connection: the type of a handshake record
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 29\r\nconnection: close\r\n\r\n"
    b"Only https:// is spoken here."
)


class TlsConnection(TlsStream):
    """A client's connection; until the handshake is done the listener counts and times it like any other."""

    __slots__ = ("_failures", "_handshake", "_listener", "_peer", "expires")

    def __init__(self, listener: Listener, certificates: Certificates) -> None:
        super().__init__(certificates.context, ClientConnection(listener), server_side=True)
        assert isinstance(self._ssl, Handshake)
        self._handshake = self._ssl
        self._handshake.hello = bytearray()
        self._failures = certificates.failures
        self._listener = listener
        self._peer = "unknown"
        self.expires = listener.loop.time() + certificates.handshake_timeout

    def connection_made(self, transport: BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unknown"
        listener = self._listener
        if len(listener.connections) >= listener.settings.limits.connections or listener.draining:
            self._refuse("connections")  # a handshake to say so would cost more than the answer is worth
        else:
            listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        hello = self._handshake.hello
        if hello is not None and not self._closing:
            if not hello and data[0] != _FIRST_BYTE:
                self._refuse("not_tls", _NOT_TLS if data[:1].isalpha() else b"")
                return
            hello += data
        super().data_received(data)

    def handshaken(self) -> None:
        """It is a client like any other."""
        self.expires = math.inf
        self._handshake.hello = None
        self._listener.connections.discard(self)
        super().handshaken()

    def failed(self, error: Exception) -> None:
        """It never became one. Who connects and leaves, as balancers do to see whether we live, was not refused."""
        if self.expires != math.inf and isinstance(error, ssl.SSLError):
            self._listener.refused("tls_handshake")
            self._failures.tell(self._peer, error.reason or str(error))
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
        self._failures.tell(self._peer, reason)
        if answer:
            self._closing = True
            self._transport.write(answer)
            self._transport.close()
        else:
            self.abort()
