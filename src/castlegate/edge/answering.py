"""What a client gets: exchanges are answered one after the other, in the order in which they were accepted.

    nobody's turn ──accept──▶ current ──answer written, or never to be──▶ the next one's turn, or the connection's end

One exchange is `current`; the others are `waiting`. What was written and not taken is the connection's business, which
says when the client is slow and when it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from castlegate.body import Body
from castlegate.edge.exchange import WITHOUT_BODY, Exchange
from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.message import Response
from castlegate.problem import problem
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.fields import LAST_CHUNK, encode_chunk

if TYPE_CHECKING:
    from castlegate.edge.connection import ClientConnection
    from castlegate.edge.listener import Listener

logger = logging.getLogger("castlegate.edge")

_BIG = 64 * 1024  # bytes of body from which head and body are written apart


class Answerer:
    """The writing half of a connection. Every exchange that it accepts is accounted for once, or dropped unbegun."""

    __slots__ = ("_connection", "_few", "_listener", "_task", "_writable", "current", "waiting")

    def __init__(self, connection: ClientConnection, listener: Listener) -> None:
        # For the connection's life.
        self._connection = connection
        self._listener = listener
        self._few = listener.settings.limits.pipelined // 2  # wait: more may be received
        # What is being answered; others only look.
        self.waiting: deque[Exchange] = deque()
        self.current: Exchange | None = None
        self._task: DirectTask[None] | None = None
        self._writable: Waiter[None] | None = None

    # The connection's and the receiver's side.

    def accept(self, exchange: Exchange) -> None:
        """Answer it, or have it wait for the one being answered."""
        # Between an answer and the turn in which the next one begins, nobody is current while others wait before it.
        if self.current is None and not self.waiting:
            self._begin(exchange)
        else:
            self.waiting.append(exchange)

    def write_on(self) -> None:
        """Whoever waits for the client to take something looks again."""
        waiter, self._writable = self._writable, None
        if waiter is not None:
            waiter.settle(None)

    def stop(self) -> None:
        """Nobody is there to be answered."""
        self._drop_waiting()
        if self._task is not None:
            self._task.cancel()

    # Whose turn it is.

    def _begin(self, exchange: Exchange) -> None:
        self.current = exchange
        connection = self._connection
        if connection.full or connection.receiver.receiving is not None:
            connection.rearm()
        else:
            connection.expires = math.inf
        self._task = DirectTask(self._answer(exchange), self._ended)
        self._task.start()

    def _ended(self, _result: None, error: BaseException | None) -> None:
        """The answer is written, or will never be."""
        exchange, connection, listener = self.current, self._connection, self._listener
        assert exchange is not None
        if isinstance(error, asyncio.CancelledError):
            exchange.keep_alive = False
            exchange.status = exchange.status or Kinds.CLIENT_GONE.status
        elif error is not None:
            logger.error("answering request %s failed", exchange.request.id.decode(), exc_info=error)
            exchange.keep_alive = False
            connection.abort()
        if exchange.body is not None:
            exchange.body.close()
        now = connection.now()
        exchange.account(listener, now, cut=exchange.cut or error is not None)
        self.current = self._task = None
        if not exchange.keep_alive:
            self._drop_waiting()
            connection.close()
        elif self.waiting:
            # Through the loop: a long row of pipelined requests must not nest.
            listener.loop.call_soon(self._begin_next)
        elif listener.closing:
            connection.close()
        else:
            connection.answered(now)

    def _begin_next(self) -> None:
        if self.waiting and self.current is None and not self._connection.closing:
            self._begin(self.waiting.popleft())
        if len(self.waiting) <= self._few:
            self._connection.receiver.go_on()

    def _drop_waiting(self) -> None:
        if self.waiting:
            self._connection.receiver.deaf = True  # who sends so much may be sending still
            for exchange in self.waiting:
                exchange.ended = True
            self.waiting.clear()

    # One answer.

    async def _answer(self, exchange: Exchange) -> None:
        request, connection = exchange.request, self._connection
        error = exchange.error
        if error is None:
            try:
                response = await exchange.handler(request)
            except GatewayError as raised:
                error = raised
            except Exception:
                logger.exception("request %s failed inside of the gateway", request.id.decode())
                error = GatewayError(Kinds.INTERNAL)
        if error is not None:
            response = problem(error, request)
            for dress in exchange.route.dressers:
                dress(request, response)
        if isinstance(response.error, RequestRefused):
            self._listener.refused(response.error.kind.name)
        exchange.error = response.error
        exchange.status = response.status
        if exchange.body is not None and not exchange.body.complete:
            exchange.keep_alive = False  # what is left of the request's body stands in the way of the next
        if self._listener.closing:
            exchange.keep_alive = False
        body = response.body
        if isinstance(body, bytes):
            self._send_whole(exchange, response, body)
        else:
            await self._send_stream(exchange, response, body)
        if connection.full:
            self._writable = Waiter()
            await self._writable

    def _send_whole(self, exchange: Exchange, response: Response, body: bytes) -> None:
        bare = response.status in WITHOUT_BODY or exchange.request.method == b"HEAD"
        data = exchange.head(response, None if bare else len(body), self._listener.date)
        if not bare:
            if len(body) >= _BIG:
                self._write(exchange, data)
                self._write(exchange, body)
                return
            data += body
        exchange.sent += len(data)
        self._connection.write_soon(data)

    async def _send_stream(self, exchange: Exchange, response: Response, body: Body) -> None:
        bare = exchange.bare(response)
        chunked = body.length is None and exchange.chunked and not bare
        connection = self._connection
        body.on_cut = self.write_on
        try:
            if body.length is None and not exchange.chunked:
                exchange.keep_alive = False  # the end of the body is the end of the connection
            self._write(exchange, exchange.head(response, None if bare else body.length, self._listener.date))
            if bare:
                return
            while chunk := await body.read():
                self._write(exchange, encode_chunk(chunk) if chunked else chunk)
                if connection.full:
                    self._writable = Waiter()
                    await self._writable
            if chunked:
                self._write(exchange, LAST_CHUNK)
        except GatewayError as error:
            # A cut body must not look complete: no last chunk, the connection is closed (RFC 9112 §8). Where chunks
            # tell, a client that keeps up gets what was written before it.
            exchange.error = error
            exchange.keep_alive = False
            exchange.cut = True
            if not exchange.chunked:
                self._reset()
            elif connection.full or not chunked:
                connection.abort()
        finally:
            body.close()

    def _reset(self) -> None:
        """Cut it so that the client sees it: an ordinary end would complete a body without framing."""
        cut = struct.pack("ii", 1, 0)  # lingering for no time: RST
        transport = self._connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, cut)
        self._connection.abort()

    def _write(self, exchange: Exchange, data: bytes) -> None:
        exchange.sent += len(data)
        self._connection.write(data)
