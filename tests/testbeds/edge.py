"""The edge without a socket: bytes of a client in, what its handler saw and what went back out.

The listener, the connection and the routing are the real ones; the transport is a list, and the loop is turned by hand.
"""

import asyncio
import itertools
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from castlegate.body import Budget
from castlegate.config.report import Report
from castlegate.edge.connection import ClientConnection
from castlegate.edge.listener import Listener
from castlegate.edge.settings import Listen
from castlegate.errors import GatewayError
from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.problem import problem
from castlegate.routing.route import Route
from castlegate.routing.router import Router
from castlegate.routing.template import ANY, parse_key
from castlegate.telemetry.metrics import Registry

BODY_LIMIT = 100
ROUTES = ("ANY /a/{rest...}", "GET /item/{id}", "GET /admin", "GET /only.example/x")


class Seen(NamedTuple):
    """A request as its handler saw it, whole."""

    method: bytes
    host: bytes
    path: bytes
    query: bytes
    fields: bytes
    forwarded: bytes
    body: bytes


class MemoryTransport(asyncio.Transport):
    """What is written is kept; nothing of it waits."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "socket": self})
        self.written = bytearray()
        self.closed = self.ended = self.paused = self.late = False

    def fileno(self) -> int:
        raise OSError("no file")

    def write(self, data: Any) -> None:
        self.late = self.late or self.closed
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


class Edge:
    """A listener whose one handler keeps what it is given, body and all, and answers 200."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.seen: list[Seen] = []
        self.listener = self.loop.run_until_complete(self._listen())

    async def _listen(self) -> Listener:
        registry, report = Registry(), Report()
        routes = []
        for name in ROUTES:
            key = parse_key(name, report.place("routes", name))
            assert key is not None
            routes.append(
                (key, Route(name, self._handle, BODY_LIMIT, registry, timeout=10.0, takes_options=key.method == ANY))
            )
        unrouted = Route("", self._handle, BODY_LIMIT, registry)
        return Listener(Listen(), Router(routes), unrouted, None, registry)

    async def _handle(self, request: Request) -> Response:
        try:
            await request.collect(BODY_LIMIT, Budget(sys.maxsize))
        except GatewayError as error:
            return problem(error, request)
        self.seen.append(
            Seen(
                request.method,
                request.host,
                request.path,
                request.query,
                request.headers.wire,
                request.forwarded,
                request.body,
            )
        )
        return Response(200, Headers(), b"ok")

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def play(self, pieces: Iterable[bytes]) -> tuple[list[Seen], list[int], bool]:
        """What was seen of a connection that sends these, the statuses that it was answered, whether it was closed."""
        self.seen = []
        transport, connection = MemoryTransport(), ClientConnection(self.listener)
        asyncio._set_running_loop(self.loop)
        try:
            connection.connection_made(transport)
        finally:
            asyncio._set_running_loop(None)
        for piece in pieces:
            for _ in range(100):  # what a paused transport would keep
                if not transport.paused:
                    break
                self.turn()
            if transport.closed:
                break
            self.loop.call_soon(connection.data_received, piece)
            self.turn()
        for _ in range(200):
            self.turn()
            if (
                connection.answerer.current is None
                and not connection.answerer.waiting
                and not connection.receiver.unread
            ):
                break
        closed = transport.closed or transport.ended
        transport.closed = True
        self.loop.call_soon(connection.connection_lost, None)
        self.turn()
        assert not self.listener.connections
        assert not transport.late, "something was written behind the end of the connection"
        return self.seen, statuses(bytes(transport.written)), closed

    def close(self) -> None:
        """The end."""
        self.loop.close()


def statuses(data: bytes) -> list[int]:
    """Of each answer, by its framing; fails on what is none."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        version, status = line.split(b" ")[:2]
        assert version == b"HTTP/1.1"
        found.append(int(status))
        lengths = [field for field in fields if field.startswith(b"content-length: ")]
        assert len(lengths) <= 1
        if lengths:
            data = data[int(lengths[0].removeprefix(b"content-length: ")) :]
    return [status for status in found if status >= 200]


def split(message: bytes, cuts: Iterable[int]) -> list[bytes]:
    """A message in pieces, cut at these places."""
    places = sorted({0, len(message), *(cut % (len(message) + 1) for cut in cuts)})
    return [message[start:end] for start, end in itertools.pairwise(places)]
