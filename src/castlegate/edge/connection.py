"""A client's connection: its transport, its timeouts, its end.

    open ──close──▶ closing ──all is taken, or the client was given time to read it──▶ lost

What the client sends is the receiver's, what it gets is the answerer's, and each owns its state; exchanges go from the
one to the other. `rearm` alone says, from what both of them wait for, when it has taken too long.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, cast

from castlegate.edge.answering import Answerer
from castlegate.edge.exchange import Exchange
from castlegate.edge.forwarded import HIDDEN
from castlegate.edge.receiving import Receiver
from castlegate.errors import Kinds, RequestRefused
from castlegate.wire.untaken import untaken

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

logger = logging.getLogger("castlegate.edge")

_LAST_CALL = 1.0  # seconds in which a connection made while draining must begin its request
_MOST_HELD = 64 * 1024  # bytes of answers that one turn of the loop may hold back
_LINGER = 2.0  # seconds in which a client that is still sending may read its refusal


class ClientConnection(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_buffered", "_held", "_lingering", "_listener", "_timeouts", "answerer", "certificate", "closing", "expires",
        "full", "now", "peer", "receiver", "transport",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        # For the connection's life.
        self._listener = listener
        self._timeouts = listener.settings.timeouts
        self.now = listener.loop.time
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer = ""
        self.certificate: bytes | None = None  # the client's in DER, if it was verified
        self.receiver = Receiver(self, listener)
        self.answerer = Answerer(self, listener)
        # Changed by the callbacks of this class; the halves only look, but for `expires`.
        self.expires = math.inf  # loop time; what has expired is told by the state
        self.full = False  # the client reads slower than we write
        self._held = b""  # to be written at the end of the loop's turn
        self._buffered = 0  # bytes that the client had yet to take when the write timeout was set
        self.closing = False
        self._lingering = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        # A socket of IPv6 that takes clients of IPv4 too has them mapped: they are the same clients.
        self.peer = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else HIDDEN
        self.certificate = transport.get_extra_info("peercert")
        listener = self._listener
        if len(listener.connections) >= listener.max_connections:
            listener.refused("connections")
            self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
                                 b"connection: close\r\n\r\n")  # fmt: skip
            self.receiver.deaf = self.closing = True
            if listener.send_away(self):
                self._linger()
            else:
                self.transport.close()
            return
        listener.connections.add(self)
        listener.accepted.value += 1
        # One that was accepted as the listener closed is still served, if it has something to ask.
        self.expires = self.now() + (_LAST_CALL if listener.draining else self._timeouts.header)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        self._listener.bytes_in.value += len(data)
        self.receiver.receive(data)

    def eof_received(self) -> None:
        """The client sends no more: it has gone, as far as anyone can tell (nginx and Envoy judge alike). What it was
        answered in this very turn is still written.
        """
        self.write_held()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        del exc
        self.receiver.deaf = self.closing = True
        self.expires = math.inf
        self._held = b""
        self.answerer.stop()  # before its body fails: it would answer that
        self.receiver.stop()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self.full = True
        self.rearm()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.full = False
        self.rearm()
        self.answerer.write_on()

    # Listener's side.

    def expire(self) -> None:
        """A timeout has passed."""
        self.expires = math.inf
        receiver = self.receiver
        buffered = untaken(self.transport)
        if 0 < buffered < self._buffered and not self._lingering:
            self._buffered = buffered
            self.expires = self.now() + self._timeouts.write
        elif self.closing:
            self.abort()
        elif self.full:
            logger.info("a client took nothing of its response in time: cut")
            self.abort()
        elif receiver.receiving is not None:
            receiver.refuse(RequestRefused(Kinds.REQUEST_TIMEOUT, "The body did not arrive in time."))
        elif receiver.partial:
            receiver.refuse(RequestRefused(Kinds.REQUEST_TIMEOUT, "The head did not arrive in time."))
        elif self.answerer.current is None:
            self.close()

    def exchanges(self) -> list[Exchange]:
        """Requests that have begun and not ended."""
        current, receiving = self.answerer.current, self.receiver.receiving
        begun = [exchange for exchange in (current, receiving) if exchange is not None]
        return [*begun, *self.answerer.waiting]

    def drain(self) -> None:
        """Close when idle, else after the answer."""
        if self.answerer.current is None and not self.receiver.partial:
            self.close()

    def write_held(self) -> None:
        """Write what was held back for this moment (`Burst`)."""
        held = self._held
        if held:
            self._held = b""
            self.transport.write(held)

    def abort(self) -> None:
        """Cut it."""
        self.closing = True
        self._held = b""
        self.transport.abort()

    # The side of its halves.

    def write(self, data: bytes) -> None:
        """Write now, behind what is held back."""
        self.write_held()
        self.transport.write(data)

    def write_soon(self, data: bytes) -> None:
        """Write at the end of the loop's turn, with what others have to write then; `full` is told only there."""
        if not self._held:
            self._held = data
            self._listener.burst.join(self)
        else:
            self._held += data
            if len(self._held) > _MOST_HELD:
                self.write_held()

    def rearm(self) -> None:
        """Set when what is waited for now has taken too long."""
        if self.closing:
            return
        receiver = self.receiver
        if self.full:
            self._buffered = untaken(self.transport)
            self.expires = self.now() + self._timeouts.write
        elif receiver.receiving is not None and not (receiver.deaf or receiver.bodies_held or receiver.queue_held):
            self.expires = self.now() + self._timeouts.body
        elif self.answerer.current is not None:
            self.expires = math.inf
        elif receiver.partial:
            self.expires = receiver.head_since + self._timeouts.header
        else:
            self.expires = self.now() + self._timeouts.idle

    def answered(self, now: float) -> None:
        """Nobody waits for an answer."""
        receiver = self.receiver
        if self.full or receiver.partial or receiver.receiving is not None:
            receiver.head_since = now  # the answer was waited for by us, not by who sends the next head
            self.rearm()
        else:
            self.expires = now + self._timeouts.idle

    def close(self) -> None:
        """Let what is written leave. A client that is still sending gets time to read why nobody listens: closing on
        unread input resets the connection, which can take the answer along (RFC 9112 §9.6).
        """
        if self.closing:
            return
        self.closing = True
        self.write_held()
        if self.receiver.interrupted and not self.transport.is_closing():
            self.receiver.deaf = True
            self._linger()
        else:
            self.receiver.deaf = True
            self._buffered = untaken(self.transport)
            self.transport.close()
            self.expires = self.now() + self._timeouts.write

    def _linger(self) -> None:
        """Read and throw away what the client still sends, for a while."""
        self.transport.write_eof()
        self.transport.resume_reading()
        self._lingering = True
        self.expires = self.now() + _LINGER
