"""TLS over a socket's transport, for either side: a protocol to the socket, a transport to the protocol inside of it.

    handshake ──done──▶ open ──close_notify, a cut or our own close──▶ closed

The protocol inside is told of the connection when the handshake is done, and sees plain bytes. An end that the peer did
not announce by close_notify is no orderly one: it is told as a reset (RFC 9112 §9.8). Nothing is held here between two
calls but an incomplete record, so that flow control and what a peer has yet to take are the socket's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, cast

_RECORD = 16 * 1024  # bytes of plain text in a record, at most (RFC 8446 §5.1)
_MOST_UNTAKEN = 1024 * 1024  # bytes; a peer that takes no answers to its key updates is cut


class TlsStream(asyncio.Protocol, asyncio.Transport):
    """One connection."""

    __slots__ = (
        "_closing", "_ended", "_failure", "_incoming", "_open", "_outgoing", "_read", "_ssl", "_transport", "_write",
        "inner",
    )  # fmt: skip

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl: ssl.SSLObject = cast("ssl.SSLObject", None)
        self._read: Callable[[int], bytes]
        self._write: Callable[[Any], int]
        self._open = False  # the handshake is done
        self._ended = False  # the peer said close_notify: whatever becomes of the socket, all of it has come
        self._failure: Exception | None = None  # that ended it
        self._closing = False  # an end was said, by either side: what still comes is thrown away

    # What those who use it call and add.

    def begin(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        """Shake hands, once there is a socket; a client speaks first."""
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        self._read, self._write = self._ssl.read, self._ssl.write
        if not server_side:
            self._shake_hands()

    def handshaken(self) -> None:
        """The handshake is done; to be extended."""
        self.inner.connection_made(self)

    def failed(self, error: Exception) -> None:
        """The connection ended before the handshake was done; may be told twice."""

    def broken(self, error: ssl.SSLError) -> None:
        """The peer sent an alert, or what is no TLS; `connection_lost` follows."""

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Records, or parts of them."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._open or self._shake_hands():
            self._decrypt()

    def eof_received(self) -> None:
        """The peer sends no more; `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        exc = None if self._ended else exc or self._failure
        if exc is None and not self._closing:
            exc = ConnectionResetError("closed without close_notify")
        self._closing = True
        if self._open:
            self.inner.connection_lost(exc)
        else:
            self.failed(exc or ConnectionAbortedError())

    def pause_writing(self) -> None:
        """The peer reads slower than we write."""
        if self._open:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._open:
            self.inner.resume_writing()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.write(self._outgoing.read())
            return False
        except ssl.SSLError as error:
            self._transport.write(self._outgoing.read())  # the alert
            self._closing = True
            self._transport.close()
            self.failed(error)
            return False
        self._transport.write(self._outgoing.read())
        self._open = True
        self.handshaken()
        return True

    def _decrypt(self) -> None:
        """Hand on what has arrived whole."""
        chunks: list[bytes] = []
        try:
            while self._incoming.pending or self._ssl.pending():
                chunk = self._read(_RECORD)
                if not chunk:
                    self._ended = True
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:  # a record that is forged or malformed, or an alert
            self._failure = error
            self._closing = True  # what came before it is sound, but nothing can be written any more
        if self._outgoing.pending:
            self._send_own()
        if chunks:
            self.inner.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if isinstance(self._failure, ssl.SSLError):
            self.broken(self._failure)
            self._transport.abort()
        elif self._ended and not self._closing:
            self.inner.eof_received()
            self.close()

    def _send_own(self) -> None:
        """Write what TLS itself has to say, such as the answer to a key update."""
        if self._transport.get_write_buffer_size() > _MOST_UNTAKEN:
            self._failure = ConnectionAbortedError("nothing is taken")
            self.abort()
        else:
            self._transport.write(self._outgoing.read())

    def _notify(self) -> None:
        """Say that nothing follows; the peer's own close_notify is not waited for (RFC 8446 §6.1)."""
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._transport.write(self._outgoing.read())

    # The side of the protocol inside: asyncio.Transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peercert` is the peer's certificate in DER, if it was verified; the rest is the socket's."""
        if name == "peercert":
            verified = self._ssl.context.verify_mode is not ssl.CERT_NONE
            return (self._ssl.getpeercert(binary_form=True) if verified else None) or default
        return self._ssl if name == "ssl_object" else self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send."""
        if self._closing or not data:
            return
        sent = self._write(data)
        if sent < len(data):  # one record is written at a time
            view = memoryview(data)[sent:]
            while view:
                view = view[self._write(view) :]
        self._transport.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        """It is a close_notify."""
        return True

    def write_eof(self) -> None:
        """Nothing follows from us. What the peer goes on to send is read and thrown away."""
        if not self._closing:
            self._closing = True
            self._notify()
            self._transport.write_eof()

    def close(self) -> None:
        """Close when what was written has left."""
        if not self._closing:
            self._closing = True
            if self._open:
                self._notify()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """Read nothing for a while."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken."""
        return self._transport.get_write_buffer_size()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The one inside."""
        return self.inner

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another one inside."""
        self.inner = cast("asyncio.Protocol", protocol)
