"""A client's connection: bytes to requests, responses to bytes, in order.

    idle ──first byte──▶ head ──complete──▶ body ──last byte──▶ (next head, while the request is being answered)

Heads are collected whole before they are parsed; a body that came whole with its head is `bytes`, any other a `Body`
that this connection feeds. Requests are answered one after the other; those that came early wait in `_queue`, and when
it is full, or a body's reader is slow, nothing more is read. Only the callbacks of this class change its state, and
`_rearm` alone says from it what is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from castlegate.edge.exchange import WITHOUT_BODY, Exchange
from castlegate.edge.framing import Fields, locate
from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.message import Body, Handler, Headers, Request, Response
from castlegate.problem import problem
from castlegate.routing.path import normalise
from castlegate.routing.route import Route
from castlegate.telemetry.trace import acceptable_request_id, continue_trace
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.chunked import ChunkedDecoder
from castlegate.wire.fields import LAST_CHUNK, Malformed, encode_chunk
from castlegate.wire.untaken import untaken

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

logger = logging.getLogger("castlegate.edge")

_HEAD_END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CALL = 1.0  # seconds in which a connection made while draining must begin its request
_LINGER = 2.0  # seconds in which a client that is still sending may read its refusal
_MOST_KEPT = 2048  # bytes of fields that a connection keeps for the next request
_BIG = 64 * 1024  # bytes of body from which head and body are written apart


class ClientConnection(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_bodies_held", "_buffered", "_closing", "_current", "_deaf", "_decoder", "_empty_line", "_fields", "_full",
        "_head_since",
        "_left", "_limits", "_lingering", "_listener", "_now", "_partial", "_peer", "_queue", "_queue_held", "_reader",
        "_receiving", "_task", "_timeouts", "_transport", "_unread", "_writable", "certificate", "expires",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        # For the connection's life.
        self._listener = listener
        self._limits = listener.settings.limits
        self._timeouts = listener.settings.timeouts
        self._now = listener.loop.time
        self._reader = listener.reader
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._peer = ""
        self.certificate: dict[str, Any] | None = None  # the client's, if it was verified, as `ssl` parses it
        self.expires = math.inf  # loop time; what has expired is told by the state
        # Of what is being read.
        self._fields: Fields | None = None  # of the head before
        self._partial = bytearray()
        self._left = 0  # bytes of an announced body still to come
        self._decoder: ChunkedDecoder | None = None
        self._receiving: Exchange | None = None
        self._deaf = False  # what comes is thrown away: the connection ends with the answer
        self._head_since = 0.0  # loop time of the first byte of `_partial`
        self._empty_line = False  # one came before the head that is expected
        self._bodies_held = 0  # whose readers are slow
        self._queue_held = False  # it is full, `_unread` waits
        self._unread = b""
        # Of what is being answered.
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._task: DirectTask[None] | None = None
        self._writable: Waiter[None] | None = None
        self._full = False
        self._buffered = 0  # bytes that the client had yet to take when the write timeout was set
        self._closing = False
        self._lingering = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unknown"
        self.certificate = transport.get_extra_info("peercert")
        listener = self._listener
        if len(listener.connections) >= listener.max_connections:
            listener.refused("connections")
            self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
                                  b"connection: close\r\n\r\n")  # fmt: skip
            self._transport.close()
            self._deaf = self._closing = True
            return
        listener.connections.add(self)
        listener.accepted.value += 1
        # One that was accepted as the listener closed is still served, if it has something to ask.
        self.expires = self._now() + (_LAST_CALL if listener.draining else self._timeouts.header)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        self._listener.bytes_in.value += len(data)
        self._process(self._unread + data if self._unread else data)

    def eof_received(self) -> None:
        """The client sends no more: it has gone, as far as anyone can tell (nginx and Envoy judge alike)."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        del exc
        self._deaf = self._closing = True
        self.expires = math.inf
        self._drop_queue()
        self._unread = b""
        if self._task is not None:
            self._task.cancel()  # before its body fails: it would answer that
        if self._receiving is not None and self._receiving.body is not None:
            self._receiving.body.fail(RequestRefused(Kinds.CLIENT_GONE))
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._full = True
        self._rearm()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._rearm()
        self._write_on()

    # Listener's side.

    def expire(self) -> None:
        """A timeout has passed."""
        self.expires = math.inf
        receiving = self._receiving
        buffered = untaken(self._transport)
        if 0 < buffered < self._buffered and not self._lingering:
            self._buffered = buffered
            self.expires = self._now() + self._timeouts.write
        elif self._closing:
            self.abort()
        elif self._full:
            logger.info("a client took nothing of its response in time: cut")
            self.abort()
        elif receiving is not None and receiving.body is not None:
            self._deaf = True
            self._fail_body(receiving, RequestRefused(Kinds.REQUEST_TIMEOUT, "The body did not arrive in time."))
        elif self._partial:
            self._refuse(RequestRefused(Kinds.REQUEST_TIMEOUT, "The head did not arrive in time."))
        elif self._current is None:
            self._close()

    def exchanges(self) -> list[Exchange]:
        """Requests that have begun and not ended."""
        begun = [exchange for exchange in (self._current, self._receiving) if exchange is not None]
        return [*begun, *self._queue]

    def drain(self) -> None:
        """Close when idle, else after the answer."""
        if self._current is None and not self._partial:
            self._close()

    def abort(self) -> None:
        """Cut it."""
        self._closing = True
        self._transport.abort()

    # Its end and its timeouts.

    def _rearm(self) -> None:
        """Set when what is waited for now has taken too long."""
        if self._closing:
            return
        if self._full:
            self._buffered = untaken(self._transport)
            self.expires = self._now() + self._timeouts.write
        elif self._receiving is not None and not (self._deaf or self._bodies_held or self._queue_held):
            self.expires = self._now() + self._timeouts.body
        elif self._current is not None:
            self.expires = math.inf
        elif self._partial:
            self.expires = self._head_since + self._timeouts.header
        else:
            self.expires = self._now() + self._timeouts.idle

    def _close(self) -> None:
        """Let what is written leave. A client that is still sending gets time to read why nobody listens: closing on
        unread input resets the connection, which can take the answer along (RFC 9112 §9.6).
        """
        if self._closing:
            return
        self._closing = True
        if self._deaf and not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._lingering = True
            self.expires = self._now() + _LINGER
        else:
            self._deaf = True
            self._buffered = untaken(self._transport)
            self._transport.close()
            self.expires = self._now() + self._timeouts.write

    def _hold(self, *, bodies: int, queue: bool) -> None:
        """Read nothing while either holds back."""
        before, after = self._bodies_held or self._queue_held, bodies or queue
        self._bodies_held, self._queue_held = bodies, queue
        if self._closing or bool(before) == bool(after):
            return
        if after:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Reading.

    def _process(self, data: bytes) -> None:
        """Take requests out of what has arrived; what the queue has no room for stays unread."""
        self._unread = b""
        try:
            while data and not self._deaf:
                if len(self._queue) >= self._limits.pipelined:
                    self._unread = data
                    self._hold(bodies=self._bodies_held, queue=True)
                    return
                if self._receiving is None:
                    raw, data = self._cut_head(data)
                    if raw:
                        data = self._take(raw, data)
                    continue
                data = self._receive_body(data)
                if data and self._receiving is not None:  # a decoder's turn is over: others are served in between
                    self._unread = data
                    self._hold(bodies=self._bodies_held, queue=True)
                    self._listener.loop.call_soon(self._go_on)
                    return
        except RequestRefused as refusal:
            self._refuse(refusal)

    def _cut_head(self, data: bytes) -> tuple[bytes, bytes]:
        """A head from the front of `data`, empty if it is not complete, and what stands behind it."""
        if self._partial == b"\r":  # of an empty line, perhaps
            data = b"\r" + data
            self._partial.clear()
        start = max(0, len(self._partial) - 3)
        if self._partial:
            self._partial += data
            end = self._partial.find(_HEAD_END, start) + 4
            if end > 3:
                data = bytes(self._partial)
                self._partial.clear()
        else:
            if data.startswith(b"\r\n"):  # one empty line before the request line is passed over (RFC 9112 §2.2)
                if self._empty_line:
                    raise RequestRefused(Kinds.FRAMING, "There are empty lines before the request.")
                self._empty_line = True
                return b"", data[2:]
            end = data.find(_HEAD_END) + 4
            if end <= 3:
                self._partial += data
                self._head_since = self._now()
                self._rearm()
        if (end if end > 3 else len(self._partial)) > self._limits.header_size:
            raise RequestRefused(Kinds.HEADERS_TOO_LARGE, f"The head is larger than {self._limits.header_size} bytes.")
        if end <= 3:
            if _BARE_LF.search(self._partial, start):  # the end of a head with such is waited for in vain
                self._reader.read(bytes(self._partial) + _HEAD_END, None)  # refuses it, for the first of its faults
                raise RequestRefused(Kinds.FRAMING, "A header line is malformed.")
            return b"", b""
        self._empty_line = False
        return (data, b"") if len(data) == end else (data[:end], data[end:])

    def _take(self, raw: bytes, rest: bytes) -> bytes:
        """Make a request of a head and what has arrived behind it; what is left over is returned."""
        method, target, fields = self._reader.read(raw, self._fields)
        if fields is not self._fields or fields.judged_by is not self._listener.forwarding:
            self._adopt(fields)
        exchange = self._exchange(method, target, fields)
        request, length = exchange.request, fields.length
        request.deadline = request.arrived + exchange.route.timeout
        if not length and not fields.chunked:
            self._accept(exchange)
            return rest
        if exchange.error is None and length > exchange.route.max_body:
            exchange.error = _too_large(exchange.route.max_body)
        if exchange.error is not None:
            self._deaf = True  # its body is not read, so nothing behind it can be
            exchange.keep_alive = False
            self._accept(exchange)
            return b""
        if length and len(rest) >= length:
            request.body = rest[:length]
            self._accept(exchange)
            return rest[length:]
        return self._take_stream(exchange, fields, rest)

    def _take_stream(self, exchange: Exchange, fields: Fields, rest: bytes) -> bytes:
        """The same for a body that is still arriving."""
        request, limits = exchange.request, self._limits
        request.deadline = math.inf
        body = Body(self, fields.length or None)
        body.limit = exchange.route.max_body
        if b"expect" in fields.read and exchange.chunked and not rest:
            body.on_wanted = lambda: self._send_continue(exchange)
        request.body = exchange.body = body
        self._receiving = exchange
        self._left = fields.length
        self._decoder = ChunkedDecoder(limits.headers, limits.header_size) if fields.chunked else None
        if rest:
            try:
                rest = self._receive_body(rest)
            except RequestRefused as refusal:
                self._deaf = True
                self._receiving = None
                exchange.error = refusal
                exchange.keep_alive = False
                rest = b""
        self._rearm()
        self._accept(exchange)
        return rest

    def _adopt(self, fields: Fields) -> None:
        """What follows of fields for every request with them; the next one often repeats them."""
        forwarding = fields.judged_by = self._listener.forwarding
        fields.client = forwarding.client(self._peer, fields.read)
        fields.log_client = fields.client.encode()
        fields.forwarded = forwarding.fields(self._peer, self._listener.scheme, fields.host, fields.read)
        self._fields = fields if len(fields.block) <= _MOST_KEPT else None

    def _exchange(self, method: bytes, target: bytes, fields: Fields) -> Exchange:
        """The request of a head, with its route or what it is refused for."""
        listener, read = self._listener, fields.read
        host, forwarded = fields.host, fields.forwarded
        if not target.startswith(b"/"):
            named, target = locate(method, target)
            if named is not None:
                host = named
                forwarded = listener.forwarding.fields(self._peer, listener.scheme, named, read)
        path, _, query = target.partition(b"?")
        if fields.identified:
            request_id = acceptable_request_id(read.get(b"x-request-id")) or listener.ids.take(32)
            trace = continue_trace(read.get(b"traceparent"), read.get(b"tracestate"), listener.ids)
        else:
            request_id, trace = listener.ids.fresh()
        request = Request(
            request_id,
            trace,
            fields.client,
            listener.scheme,
            host,
            method,
            path,
            query,
            fields.headers,
            b"",
            self._now(),
        )
        request.forwarded = forwarded
        route, handler, error = listener.unrouted, listener.unrouted.handler, None
        try:
            if path != b"*":
                request.path = normalise(path)
            if method == b"OPTIONS" and not self._takes_options(request):
                route, handler = self._options(request)
            else:
                route, request.params = listener.router.match(method, host, request.path)
                handler = route.handler
                if request.path is not path:
                    listener.router.confirm(method, host, request.path, route)
        except RequestRefused as refusal:
            error = refusal
        request.route = route
        exchange = Exchange(
            request,
            route,
            handler,
            fields,
            keep_alive=fields.keep_alive and not listener.closing,
        )
        if error is not None:
            exchange.error = error
            if error.kind is Kinds.BAD_PATH:
                exchange.keep_alive = False  # who says this has more to try
        return exchange

    def _takes_options(self, request: Request) -> bool:
        """Whether a route answers OPTIONS itself."""
        try:
            return self._listener.router.match(b"OPTIONS", request.host, request.path)[0].takes_options
        except RequestRefused:
            return False

    def _options(self, request: Request) -> tuple[Route, Handler]:
        """The answer for a route. A preflight is counted as the route that it asks about, whose endpoint it must never
        reach: asking whether a DELETE is allowed is no DELETE (Fetch standard, CORS-preflight fetch).
        """
        listener, route = self._listener, self._listener.unrouted
        if request.path == b"*":
            return route, _answer_options
        wanted = request.headers.get(b"access-control-request-method")
        if wanted is not None:
            route = listener.router.match(wanted, request.host, request.path)[0]
            if route.preflight is not None:
                return route, route.preflight
        allow = listener.router.allowed(request.host, request.path)
        if allow is None:
            raise RequestRefused(Kinds.NOT_FOUND)
        response = Response(204, Headers.of([(b"allow", allow)]))

        async def answer(_request: Request) -> Response:
            return response

        return route, answer

    def _receive_body(self, data: bytes) -> bytes:
        """Feed the body that is arriving; what stands behind it is returned."""
        exchange = self._receiving
        assert exchange is not None
        assert exchange.body is not None
        body = exchange.body
        if self._decoder is None:
            chunk, rest = data[: self._left], data[self._left :]
            self._left -= len(chunk)
            body.feed(chunk)
            done = not self._left
        else:
            try:
                chunks, rest = self._decoder.feed(data)
            except Malformed as malformed:
                raise RequestRefused(malformed.kind, malformed.detail) from malformed
            if chunks:
                body.feed(b"".join(chunks))
            done = self._decoder.done
        if done:
            exchange.request.deadline = self._now() + exchange.route.timeout
            self._receiving = None
            self._rearm()
            body.end(self._decoder.trailers if self._decoder is not None else None)
        else:
            self._rearm()
        return rest

    def _send_continue(self, exchange: Exchange) -> None:
        if exchange is self._current and not exchange.sent:
            self._transport.write(_CONTINUE)

    # A body's source (message.BodySource).

    def pause_body(self) -> None:
        """Its reader is slow: that is not the client's fault."""
        self._hold(bodies=self._bodies_held + 1, queue=self._queue_held)
        self._rearm()

    def resume_body(self) -> None:
        """Its reader has caught up."""
        self._hold(bodies=self._bodies_held - 1, queue=self._queue_held)
        self._rearm()

    def drop_body(self) -> None:
        """Nobody wants the rest: the connection cannot be used for another request."""
        if self._receiving is not None:
            self._deaf = True
            self._receiving.keep_alive = False
            self._rearm()

    # Answering.

    def _refuse(self, refusal: RequestRefused) -> None:
        """Answer a message that cannot be read, after those before it, and close."""
        self._deaf = True
        self._partial.clear()
        receiving = self._receiving
        if receiving is not None and receiving.body is not None:
            self._fail_body(receiving, refusal)
            return
        listener = self._listener
        request_id, trace = listener.ids.fresh()
        request = Request(
            request_id, trace, self._peer, listener.scheme, b"", b"-", b"-", b"", Headers(), b"", self._now()
        )
        fields = Fields(b"", b"1")
        fields.log_client = self._peer.encode()
        unrouted = listener.unrouted
        exchange = Exchange(request, unrouted, unrouted.handler, fields, keep_alive=False)
        exchange.error = refusal
        self._accept(exchange)

    def _fail_body(self, exchange: Exchange, refusal: RequestRefused) -> None:
        """The body that is arriving will never be whole. A request whose turn has not come is not begun at all."""
        exchange.keep_alive = False
        if exchange is not self._current:
            exchange.error = refusal
        assert exchange.body is not None
        exchange.body.fail(refusal)

    def _accept(self, exchange: Exchange) -> None:
        """Answer it, or queue it behind the one being answered."""
        # Between an answer and the turn in which the next one begins, `_current` is None while others wait before it.
        if self._current is None and not self._queue:
            self._begin(exchange)
        else:
            self._queue.append(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        if self._full or self._receiving is not None:
            self._rearm()
        else:
            self.expires = math.inf
        self._task = DirectTask(self._answer(exchange), self._ended)
        self._task.start()

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
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
        if self._full:
            self._writable = Waiter()
            await self._writable

    def _send_whole(self, exchange: Exchange, response: Response, body: bytes) -> None:
        bare = response.status in WITHOUT_BODY or exchange.request.method == b"HEAD"
        data = exchange.head(response, None if bare else len(body), self._listener.date)
        if not bare:
            if len(body) >= _BIG:
                self._write(exchange, data)
                data = body
            else:
                data += body
        exchange.sent += len(data)
        self._transport.write(data)

    async def _send_stream(self, exchange: Exchange, response: Response, body: Body) -> None:
        bare = exchange.bare(response)
        chunked = body.length is None and exchange.chunked and not bare
        body.on_cut = self._write_on
        try:
            if body.length is None and not exchange.chunked:
                exchange.keep_alive = False  # the end of the body is the end of the connection
            self._write(exchange, exchange.head(response, None if bare else body.length, self._listener.date))
            if bare:
                return
            while chunk := await body.read():
                self._write(exchange, encode_chunk(chunk) if chunked else chunk)
                if self._full:
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
            elif self._full or not chunked:
                self.abort()
        finally:
            body.close()

    def _reset(self) -> None:
        """Cut it so that the client sees it: an ordinary end would complete a body without framing."""
        cut = struct.pack("ii", 1, 0)  # lingering for no time: RST
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, cut)
        self.abort()

    def _write_on(self) -> None:
        """Whoever waits for the client to take something looks again."""
        waiter, self._writable = self._writable, None
        if waiter is not None:
            waiter.settle(None)

    def _write(self, exchange: Exchange, data: bytes) -> None:
        exchange.sent += len(data)
        self._transport.write(data)

    def _ended(self, _result: None, error: BaseException | None) -> None:
        """The answer is written, or will never be."""
        exchange = self._current
        assert exchange is not None
        if isinstance(error, asyncio.CancelledError):
            exchange.keep_alive = False
            exchange.status = exchange.status or Kinds.CLIENT_GONE.status
        elif error is not None:
            logger.error("answering request %s failed", exchange.request.id.decode(), exc_info=error)
            exchange.keep_alive = False
            self.abort()
        if exchange.body is not None:
            exchange.body.close()
        now = self._now()
        exchange.account(self._listener, now, cut=exchange.cut or error is not None)
        self._current = self._task = None
        if not exchange.keep_alive:
            self._drop_queue()
            self._close()
        elif self._queue:
            # Through the loop: a long row of pipelined requests must not nest.
            self._listener.loop.call_soon(self._begin_next)
        elif self._listener.closing:
            self._close()
        elif self._full or self._partial or self._receiving is not None:
            self._head_since = now  # the answer was waited for by us, not by who sends the next head
            self._rearm()
        else:
            self.expires = now + self._timeouts.idle

    def _begin_next(self) -> None:
        if self._queue and self._current is None and not self._closing:
            self._begin(self._queue.popleft())
        if len(self._queue) <= self._limits.pipelined // 2:
            self._go_on()

    def _drop_queue(self) -> None:
        """Nobody will be there to be answered."""
        for exchange in self._queue:
            exchange.ended = True
        self._queue.clear()

    def _go_on(self) -> None:
        """Process what stayed unread."""
        if self._queue_held and not self._closing:
            self._hold(bodies=self._bodies_held, queue=False)
            self._process(self._unread)


async def _answer_options(_request: Request) -> Response:
    """`OPTIONS *`: the gateway is there."""
    return Response(204)


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
