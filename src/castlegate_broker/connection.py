"""One client's connection: requests in, answers out, one at a time and in order.

As in Kafka itself the next request is taken up only when the former is answered and the answer has gone to the
socket: that keeps the order, and bounds what a client that sends much or reads slowly can make us hold.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from castlegate_broker.codec import Message
from castlegate_broker.dispatch import Dispatcher, Pending
from castlegate_broker.errors import Malformed
from castlegate_broker.framing import Frames
from castlegate_broker.request import Peer

logger = logging.getLogger(__name__)

# What may lie unread in the buffer, whole frames included, while a request waits for its answer.
_READ_AHEAD = 256 * 1024


class Connection(asyncio.Protocol):
    """Bytes of a client to requests and back."""

    def __init__(
        self, dispatcher: Dispatcher, max_request_bytes: int, connections: set["Connection"], limit: int
    ) -> None:
        self._dispatcher = dispatcher
        self._frames = Frames(max_request_bytes)
        self._connections = connections
        self._limit = limit
        self._transport: asyncio.Transport
        self._peer: Peer
        self._pending: asyncio.Future[Message] | None = None
        self._can_write = True
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        ours, theirs = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._peer = Peer(theirs[0], (ours[0], ours[1]))
        self._connections.add(self)
        if len(self._connections) > self._limit:
            logger.warning("refused a connection of %s: %d are open", theirs[0], self._limit)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Release what waits for the client."""
        self._connections.discard(self)
        if self._pending is not None:
            self._pending.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        self._frames.feed(data)
        self._advance()

    def pause_writing(self) -> None:
        """The client reads slower than it asks."""
        self._can_write = False

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._can_write = True
        self._advance()

    def close(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def _advance(self) -> None:
        """Answer requests until one must wait or none is left."""
        try:
            while self._pending is None and self._can_write and not self._transport.is_closing():
                frame = self._frames.next_frame()
                if frame is None:
                    break
                self._settle(self._dispatcher.dispatch(frame, self._peer))
        except Malformed as error:
            logger.warning("closed the connection of %s: it sent %s", self._peer.host, error)
            self._transport.abort()
            return
        self._bound_reading()

    def _settle(self, pending: Pending) -> None:
        answer = pending.answer
        if answer is None:
            return
        if isinstance(answer, dict):
            self._transport.write(pending.encode(answer))
            return
        self._pending = answer
        answer.add_done_callback(self._when_done(pending))

    def _when_done(self, pending: Pending) -> Callable[[asyncio.Future[Message]], None]:
        def deliver(future: asyncio.Future[Message]) -> None:
            self._pending = None
            if not future.cancelled() and not self._transport.is_closing():
                self._transport.write(pending.encode(future.result()))
                self._advance()

        return deliver

    def _bound_reading(self) -> None:
        waiting = self._pending is not None or not self._can_write
        read = not (waiting and self._frames.buffered > _READ_AHEAD)
        if read != self._reading and not self._transport.is_closing():
            self._reading = read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
