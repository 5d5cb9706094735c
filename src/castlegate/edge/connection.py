"""A client's connection: bytes to requests, responses to bytes, in order.

    idle ──first byte──▶ head ──complete──▶ body ──last byte──▶ (next head, while the request is being answered)

Heads are collected whole before they are parsed; a body that came whole with its head is `bytes`, any other a `Body`
that this connection feeds. Requests are answered one after the other; those that came early wait in `_queue`, and when
it is full, or a body's reader is slow, nothing more is read. Only the callbacks of this class change its state, and
`_rearm` alone says from it what is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import math
import termios
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from castlegate.edge.framing import Head, HeadReader
from castlegate.errors import GatewayError, Kinds, Outcome, RequestRefused
from castlegate.message import Body, Ended, Headers, Pairs, Request, Response
from castlegate.problem import problem
from castlegate.routing.path import normalise
from castlegate.routing.route import Route
from castlegate.telemetry.access_log import Line
from castlegate.telemetry.trace import acceptable_request_id, continue_trace
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.chunked import ChunkedDecoder
from castlegate.wire.fields import LAST_CHUNK, STATUS_LINES, encode_chunk, encode_fields

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

logger = logging.getLogger("castlegate.edge")

_HEAD_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY = frozenset((204, 304))
_LINGER = 2.0  # seconds in which a client that is still sending may read its refusal
_BIG = 64 * 1024  # bytes of body from which head and body are written apart


class _Exchange:
    """A request with what the connection must know to answer it."""

    __slots__ = ("body", "chunked", "error", "handler", "keep_alive", "request", "route")

    def __init__(self, request: Request, route: Route, *, keep_alive: bool, chunked: bool = True) -> None:
        self.request = request
        self.route = route
        self.handler = route.handler
        self.keep_alive = keep_alive
        self.chunked = chunked  # whether the client understands the chunked coding: HTTP/1.0 does not
        self.body: Body | None = None  # while it is still arriving
        self.error: GatewayError | None = None  # it is refused: answered without its handler


class ClientConnection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, listener: Listener) -> None:
        # For the connection's life.
        self._listener = listener
        self._limits = listener.settings.limits
        self._timeouts = listener.settings.timeouts
        self._now = listener.loop.time
        self._reader = HeadReader(self._limits.headers, self._limits.uri)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._peer = ""
        self.expires = math.inf  # loop time; what has expired is told by the state
        # Of what is being read.
        self._partial = bytearray()
        self._left = 0  # bytes of an announced body still to come
        self._decoder: ChunkedDecoder | None = None
        self._receiving: _Exchange | None = None
        self._deaf = False  # what comes is thrown away: the connection ends with the answer
        self._head_since = 0.0  # loop time of the first byte of `_partial`
        self._empty_line = False  # one came before the head that is expected
        self._bodies_held = 0  # whose readers are slow
        self._queue_held = False  # it is full, `_unread` waits
        self._unread = b""
        # Of what is being answered.
        self._queue: deque[_Exchange] = deque()
        self._current: _Exchange | None = None
        self._task: DirectTask[None] | None = None
        self._writable: Waiter[None] | None = None
        self._full = False
        self._sent = 0
        self._status = 0
        self._buffered = 0  # bytes that the client had yet to take when the write timeout was set
        self._closing = False
        self._lingering = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unknown"
        listener = self._listener
        if len(listener.connections) >= self._limits.connections or listener.draining:
            listener.refused("connections")
            self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
                                  b"connection: close\r\n\r\n")  # fmt: skip
            self._transport.close()
            self._deaf = self._closing = True
            return
        listener.connections.add(self)
        self.expires = self._now() + self._timeouts.header

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
        self._queue.clear()
        self._unread = b""
        if self._receiving is not None and self._receiving.body is not None:
            self._receiving.body.fail(RequestRefused(Kinds.CLIENT_GONE))
        if self._task is not None:
            self._task.cancel()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._full = True
        self._rearm()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._rearm()
        waiter, self._writable = self._writable, None
        if waiter is not None:
            waiter.settle(None)

    # Listener's side.

    def expire(self) -> None:
        """A timeout has passed."""
        self.expires = math.inf
        receiving = self._receiving
        buffered = self._untaken()
        if 0 < buffered < self._buffered and not self._lingering:
            self._buffered = buffered
            self.expires = self._now() + self._timeouts.write
        elif self._closing:
            self.abort()
        elif self._full:
            logger.info("a client took nothing of its response in time: cut")
            self.abort()
        elif receiving is not None and receiving.body is not None:
            self._listener.refused(Kinds.REQUEST_TIMEOUT.name)
            self._deaf = True
            receiving.keep_alive = False
            receiving.body.fail(RequestRefused(Kinds.REQUEST_TIMEOUT, "The body did not arrive in time."))
        elif self._partial:
            self._refuse(RequestRefused(Kinds.REQUEST_TIMEOUT, "The head did not arrive in time."))
        elif self._current is None:
            self._close()

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
            self._buffered = self._untaken()
            self.expires = self._now() + self._timeouts.write
        elif self._receiving is not None and not (self._deaf or self._bodies_held or self._queue_held):
            self.expires = self._now() + self._timeouts.body
        elif self._current is not None:
            self.expires = math.inf
        elif self._partial:
            self.expires = self._head_since + self._timeouts.header
        else:
            self.expires = self._now() + self._timeouts.idle

    def _untaken(self) -> int:
        """Bytes written that the client has not taken: ours, and what the system still holds (megabytes, on loopback),
        without which a slow reader would look like one that does not read.
        """
        held = array("i", [0])
        with contextlib.suppress(OSError):  # a system that does not tell
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
        return self._transport.get_write_buffer_size() + held[0]

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
            self._buffered = self._untaken()
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
                    data = self._receive_head(data)
                    continue
                data = self._receive_body(data)
                if data and self._receiving is not None:  # a decoder's turn is over: others are served in between
                    self._unread = data
                    self._hold(bodies=self._bodies_held, queue=True)
                    self._listener.loop.call_soon(self._go_on)
                    return
        except RequestRefused as refusal:
            self._refuse(refusal)

    def _receive_head(self, data: bytes) -> bytes:
        """Take a head from the front of `data`; what stands behind it is returned."""
        if self._partial:
            start = max(0, len(self._partial) - 3)
            self._partial += data
            end = self._partial.find(_HEAD_END, start)
            if end >= 0:
                data = bytes(self._partial)
                self._partial.clear()
        else:
            if data[:2] == b"\r\n":  # one empty line before the request line is passed over (RFC 9112 §2.2)
                if self._empty_line:
                    raise RequestRefused(Kinds.FRAMING, "There are empty lines before the request.")
                self._empty_line = True
                return data[2:]
            end = data.find(_HEAD_END)
            if end < 0:
                self._partial += data
                self._head_since = self._now()
                self._rearm()
        size = end + 4 if end >= 0 else len(self._partial)
        if size > self._limits.header_size:
            raise RequestRefused(Kinds.HEADERS_TOO_LARGE, f"The head is larger than {self._limits.header_size} bytes.")
        if end < 0:
            return b""
        self._empty_line = False
        if len(data) == size:
            self._take(self._reader.read(data), b"")
            return b""
        return self._take(self._reader.read(data[:size]), data[size:])

    def _take(self, head: Head, rest: bytes) -> bytes:
        """Make a request of a head and what has arrived behind it; what is left over is returned."""
        exchange = self._exchange(head)
        request = exchange.request
        length = head.length
        if not length and not head.chunked:
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
        body = Body(self, length or None)
        body.limit = exchange.route.max_body
        if b"expect" in head.read:
            if head.read[b"expect"].lower() != b"100-continue":
                raise RequestRefused(Kinds.EXPECTATION, "Only 100-continue can be expected.")
            if head.version and not rest:
                body.on_wanted = lambda: self._send_continue(exchange)
        request.body = exchange.body = body
        self._receiving = exchange
        self._left = length
        limits = self._limits
        self._decoder = ChunkedDecoder(limits.headers, limits.header_size) if head.chunked else None
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

    def _exchange(self, head: Head) -> _Exchange:
        """The request of a head, with its route or what it is refused for."""
        listener, read = self._listener, head.read
        path, mark, query = head.target.partition(b"?")
        request = Request(
            id=acceptable_request_id(read.get(b"x-request-id")) or listener.ids.take(32),
            trace=continue_trace(read.get(b"traceparent"), read.get(b"tracestate"), listener.ids),
            client=listener.forwarding.client(self._peer, read),
            scheme=b"http",
            host=head.host,
            method=head.method,
            path=path,
            query=query if mark else b"",
            headers=Headers(head.pairs),
            body=b"",
            arrived=self._now(),
        )
        request.forwarded = listener.forwarding.fields(self._peer, b"http", head.host, read)
        exchange = _Exchange(
            request,
            listener.unrouted,
            keep_alive=head.keep_alive and not listener.draining,
            chunked=head.version == 1,
        )
        try:
            request.path = normalise(path)
            self._find_route(exchange)
        except RequestRefused as refusal:
            exchange.error = refusal
        return exchange

    def _find_route(self, exchange: _Exchange) -> None:
        """Give it its route. Raises `RequestRefused`."""
        request, router = exchange.request, self._listener.router
        if request.method == b"OPTIONS" and not self._takes_options(request):
            self._answer_options(exchange)
            return
        exchange.route, request.params = router.match(request.method, request.host, request.path)
        exchange.handler = exchange.route.handler
        request.route = exchange.route

    def _takes_options(self, request: Request) -> bool:
        """Whether a route answers OPTIONS itself."""
        try:
            return self._listener.router.match(b"OPTIONS", request.host, request.path)[0].takes_options
        except RequestRefused:
            return False

    def _answer_options(self, exchange: _Exchange) -> None:
        """Answer for the route. A preflight is counted as the route that it asks about, whose endpoint it must never
        reach: asking whether a DELETE is allowed is no DELETE (Fetch standard, CORS-preflight fetch).
        """
        request, router = exchange.request, self._listener.router
        wanted = request.headers.get(b"access-control-request-method")
        if wanted is not None:
            exchange.route = request.route = router.match(wanted, request.host, request.path)[0]
        allow = router.allowed(request.host, request.path)
        if allow is None:
            raise RequestRefused(Kinds.NOT_FOUND)
        response = Response(204, Headers([(b"allow", allow)]))

        async def answer(_request: Request) -> Response:
            return response

        exchange.handler = answer

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
            chunks, rest = self._decoder.feed(data)
            if chunks:
                body.feed(b"".join(chunks))
            done = self._decoder.done
        if done:
            self._receiving = None
            self._rearm()
            body.end(self._decoder.trailers if self._decoder is not None else None)
        else:
            self._rearm()
        return rest

    def _send_continue(self, exchange: _Exchange) -> None:
        if exchange is self._current and not self._sent:
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
            self._listener.refused(refusal.kind.name)
            receiving.keep_alive = False
            receiving.body.fail(refusal)
            return
        listener = self._listener
        request = Request(
            id=listener.ids.take(32),
            trace=continue_trace(None, None, listener.ids),
            client=self._peer, scheme=b"http", host=b"", method=b"-", path=b"-", query=b"", headers=Headers(),
            body=b"", arrived=self._now(),
        )  # fmt: skip
        exchange = _Exchange(request, listener.unrouted, keep_alive=False)
        exchange.error = refusal
        self._accept(exchange)

    def _accept(self, exchange: _Exchange) -> None:
        """Answer it, or queue it behind the one being answered."""
        # Between an answer and the turn in which the next one begins, `_current` is None while others wait before it.
        if self._current is None and not self._queue:
            self._begin(exchange)
        else:
            self._queue.append(exchange)

    def _begin(self, exchange: _Exchange) -> None:
        self._current = exchange
        self._sent = 0
        self._status = 0
        self._rearm()
        self._task = DirectTask(self._answer(exchange), self._ended)
        self._task.start()

    async def _answer(self, exchange: _Exchange) -> None:
        request = exchange.request
        error = exchange.error
        if error is None:
            try:
                response = await exchange.handler(request)
            except GatewayError as raised:
                error = raised
            except Exception:
                logger.exception("request %s failed inside of the gateway", request.id)
                error = GatewayError(Kinds.INTERNAL)
        if error is not None:
            if isinstance(error, RequestRefused):
                self._listener.refused(error.kind.name)
            response = problem(error, request.id, request.path.decode("latin-1"))
        exchange.error = response.error
        await self._send(exchange, response)

    async def _send(self, exchange: _Exchange, response: Response) -> None:
        request, body = exchange.request, response.body
        if exchange.body is not None and not exchange.body.complete:
            exchange.keep_alive = False  # what is left of the request's body stands in the way of the next
        if self._listener.draining:
            exchange.keep_alive = False
        self._status = response.status
        bare = request.method == b"HEAD" or response.status in _NO_BODY
        if type(body) is bytes:
            head = self._head(exchange, response, None if bare else len(body))
            if bare or not body:
                self._write(head)
            elif len(body) < _BIG:
                self._write(head + body)
            else:
                self._write(head)
                self._write(body)
        else:
            await self._send_stream(exchange, response, cast("Body", body), bare)
        if self._full:
            self._writable = Waiter()
            await self._writable

    async def _send_stream(self, exchange: _Exchange, response: Response, body: Body, bare: bool) -> None:
        try:
            chunked = body.length is None and exchange.chunked and not bare
            if body.length is None and not exchange.chunked:
                exchange.keep_alive = False  # the end of the body is the end of the connection
            self._write(self._head(exchange, response, None if bare or body.length is None else body.length))
            if bare:
                return
            while chunk := await body.read():
                self._write(encode_chunk(chunk) if chunked else chunk)
                if self._full:
                    self._writable = Waiter()
                    await self._writable
            if chunked:
                self._write(LAST_CHUNK)
        except GatewayError as error:
            # A cut body must not look complete: no last chunk, the connection is closed (RFC 9112 §8).
            exchange.error = error
            exchange.keep_alive = False
            self.abort()
        finally:
            body.close()

    def _head(self, exchange: _Exchange, response: Response, length: int | None) -> bytes:
        """Status line and fields. `length` None: there is none to be said."""
        request = exchange.request
        index = response.headers.index
        if b"x-request-id" in index:
            response.headers.remove(b"x-request-id")
        pairs: Pairs = [*response.headers.pairs, (b"x-request-id", request.id.encode())]
        if b"date" not in index:
            pairs.append((b"date", self._listener.date()))
        if length is not None:
            pairs.append((b"content-length", b"%d" % length))
        elif (
            exchange.chunked
            and type(response.body) is not bytes
            and response.status not in _NO_BODY
            and request.method != b"HEAD"
        ):
            pairs.append((b"transfer-encoding", b"chunked"))
        if not exchange.keep_alive:
            pairs.append((b"connection", b"close"))
        elif not exchange.chunked:  # HTTP/1.0 asks to be told
            pairs.append((b"connection", b"keep-alive"))
        return STATUS_LINES[response.status] + encode_fields(pairs) + b"\r\n"

    def _write(self, data: bytes) -> None:
        self._sent += len(data)
        self._transport.write(data)

    def _ended(self, _result: None, error: BaseException | None) -> None:
        """The answer is written, or will never be."""
        exchange = self._current
        assert exchange is not None
        if isinstance(error, asyncio.CancelledError):
            exchange.keep_alive = False
            self._status = self._status or Kinds.CLIENT_GONE.status
        elif error is not None:
            logger.error("answering request %s failed", exchange.request.id, exc_info=error)
            exchange.keep_alive = False
            self.abort()
        if exchange.body is not None:
            exchange.body.close()
        self._account(exchange, cut=error is not None)
        self._current = self._task = None
        if not exchange.keep_alive:
            self._queue.clear()
            self._close()
        elif self._queue:
            # Through the loop: a long row of pipelined requests must not nest.
            self._listener.loop.call_soon(self._begin_next)
        elif self._listener.draining:
            self._close()
        else:
            self._head_since = self._now()  # the answer was waited for by us, not by who sends the next head
            self._rearm()

    def _begin_next(self) -> None:
        if self._queue and self._current is None and not self._closing:
            self._begin(self._queue.popleft())
        if len(self._queue) <= self._limits.pipelined // 2:
            self._go_on()

    def _go_on(self) -> None:
        """Process what stayed unread."""
        if self._queue_held and not self._closing:
            self._hold(bodies=self._bodies_held, queue=False)
            self._process(self._unread)

    def _account(self, exchange: _Exchange, *, cut: bool) -> None:
        request, listener = exchange.request, self._listener
        seconds = self._now() - request.arrived
        exchange.route.count(self._status, seconds)
        listener.bytes_out.value += self._sent
        if request.on_end is not None:
            ended = Ended(self._status, cut)
            for told in request.on_end:
                try:
                    told(ended)
                except Exception:
                    logger.exception("what hangs on the end of request %s failed", request.id)
        if listener.log is not None:
            listener.log.write(_line(exchange, self._status, self._sent, seconds, listener.log))


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")


def _line(exchange: _Exchange, status: int, sent: int, seconds: float, log: Any) -> Line:
    request, error = exchange.request, exchange.error
    body = request.body
    outcome: Outcome | None = None if error is None else error.outcome
    return Line(
        time=log.now(),
        id=request.id,
        trace=request.trace.trace_id,
        client=request.client,
        method=request.method.decode(),
        host=request.host.decode("latin-1"),
        path=request.path.decode("latin-1"),
        query=log.redacted(request.query),
        route=exchange.route.name,
        status=status,
        error="" if error is None else error.kind.name,
        outcome="" if outcome is None else outcome.value,
        bytes_in=len(body) if type(body) is bytes else cast("Body", body).received,
        bytes_out=sent,
        ms=round(seconds * 1000, 3),
        agent=(request.headers.index.get(b"user-agent") or b"").decode("latin-1"),
    )
