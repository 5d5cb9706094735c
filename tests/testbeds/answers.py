"""A connection to a service without a socket: bytes of an answer in, what the caller got out."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from tests.kafka.calls import make_request
from tests.testbeds.edge import MemoryTransport

from castlegate.body import Body
from castlegate.errors import CallFailed
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.rules.instances import Instance
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpPool
from castlegate.waiting import DirectTask
from castlegate.wire.timer import Timer


class Got(NamedTuple):
    """What a caller was given: an error's kind instead of a status, or behind the body where it was cut."""

    status: int | None
    fields: bytes
    body: bytes
    error: str | None
    reused: bool  # whether the connection went back to its pool


class Answers:
    """Connections of one pool, which is never asked to connect."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._reader = AnswerReader(HttpPool().headers)
        self._timer = Timer(self.loop)

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def play(self, method: bytes, pieces: Iterable[bytes], *, closes: bool) -> Got:
        """What comes of a call that is answered in these pieces, by a service that then closes or stays."""
        instance = Instance("127.0.0.1:1")
        instance.in_flight = 1
        pool = Pool(instance, "127.0.0.1", 1, HttpPool(), self._reader, self._timer)
        connection, transport = ServerConnection(pool), MemoryTransport()
        connection.connection_made(transport)
        connection.handed_over, pool._open = True, 1
        call = Call(make_request(), method, b"/", Headers(), b"", None, 1.0, idempotent=False)
        got: list[Got] = []

        async def ask() -> None:
            status, fields, body, error = None, b"", b"", None
            try:
                reply: Reply = await connection.send(call, b"", self.loop.time() + 1000, None)
                status, fields = reply.status, reply.headers.wire
                if isinstance(reply.body, Body):
                    while chunk := await reply.body.read():
                        body += chunk
                else:
                    body = reply.body
            except CallFailed as failed:
                error = failed.kind.name
            got.append(Got(status, fields, body, error, connection in pool._idle))

        task = DirectTask(ask(), lambda _result, _error: None)
        self.loop.call_soon(task.start)
        self.turn()
        for piece in filter(None, pieces):
            while transport.paused and not transport.closed:
                self.turn()
            if transport.closed:
                break
            self.loop.call_soon(connection.data_received, piece)
            self.turn()
        if closes and not transport.closed:
            self.loop.call_soon(connection.eof_received)
            self.loop.call_soon(connection.connection_lost, None)
        self.turn()
        idle = connection in pool._idle
        if not closes and not got:
            task.cancel()
            self.turn()
            got.append(Got(None, b"", b"", "unfinished", reused=False))
        connection._stop_waiting()
        assert len(got) == 1
        assert pool._open == (1 if not connection.closed else 0)
        assert instance.in_flight == (1 if connection._call is not None else 0)
        assert not (idle and (connection.closed or transport.paused))
        return got[0]._replace(reused=idle)

    def close(self) -> None:
        """The end."""
        self.turn()
        self.loop.close()
