"""What a client sends: bytes to exchanges, in the order in which they came.

    between ──first byte──▶ head ──complete──▶ body ──last byte──▶ between        any ──refused──▶ deaf

Heads are collected whole before they are parsed; a body that came whole with its head is `bytes`, any other a `Body`
that is fed from here. When the row of those who wait for their answer is full, or a body's reader is slow, nothing more
is read. Whether the client takes too long is the connection's business: it looks at what is arriving and held back.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from castlegate.body import Body
from castlegate.edge.framing import Fields
from castlegate.edge.opening import open_exchange, open_refusal
from castlegate.errors import Kinds, RequestRefused
from castlegate.wire.chunked import ChunkedDecoder
from castlegate.wire.fields import Malformed

if TYPE_CHECKING:
    from castlegate.edge.connection import ClientConnection
    from castlegate.edge.exchange import Exchange
    from castlegate.edge.listener import Listener

_HEAD_END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MOST_KEPT = 2048  # bytes of fields that a connection keeps for the next request


class Receiver:
    """The reading half of a connection. It is told of every byte, and hands each exchange to the answerer once."""

    __slots__ = (
        "_connection", "_decoder", "_empty_line", "_fields", "_left", "_limits", "_listener", "_reader", "bodies_held",
        "deaf", "head_since", "partial", "queue_held", "receiving", "unread",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, listener: Listener) -> None:
        # For the connection's life.
        self._connection = connection
        self._listener = listener
        self._limits = listener.settings.limits
        self._reader = listener.reader
        self._fields: Fields | None = None  # of the head before
        # What is arriving; others only look.
        self.partial = bytearray()  # a head that is not complete
        self.head_since = 0.0  # loop time of its first byte, or of the answer before it
        self._empty_line = False  # one came before the head that is expected
        self.receiving: Exchange | None = None  # whose body is
        self._left = 0  # bytes of an announced body still to come
        self._decoder: ChunkedDecoder | None = None
        self.deaf = False  # what comes is thrown away: the connection ends with the answer
        # What is held back.
        self.bodies_held = 0  # whose readers are slow
        self.queue_held = False  # too many wait for their answers, or others are to be served in between
        self.unread = b""

    @property
    def interrupted(self) -> bool:
        """Whether the client is, or may be, within something that is not read to its end."""
        return bool(self.deaf or self.receiving is not None or self.partial or self.unread)

    # The connection's side.

    def receive(self, data: bytes) -> None:
        """Take exchanges out of what has arrived; what nobody has room for stays unread."""
        if self.unread:
            data = self.unread + data
            self.unread = b""
        answerer, pipelined = self._connection.answerer, self._limits.pipelined
        try:
            while data and not self.deaf:
                raw = b""
                if len(answerer.waiting) >= pipelined:
                    self._keep(data)
                    return
                if self.receiving is None:
                    raw, data = self._cut_head(data)
                    if raw:
                        data = self._take(raw, data)
                    continue
                data = self._receive_body(data)
                if data and self.receiving is not None:  # a decoder's turn is over: others are served in between
                    self._keep(data)
                    self._listener.loop.call_soon(self.go_on)
                    return
        except RequestRefused as refusal:
            self.refuse(refusal, raw or bytes(self.partial) or data)

    def go_on(self) -> None:
        """Take up what was held back."""
        if self.queue_held and not self._connection.closing:
            self._hold(bodies=self.bodies_held, queue=False)
            self.receive(b"")

    def refuse(self, refusal: RequestRefused, head: bytes = b"") -> None:
        """What is arriving cannot be read, or takes too long: that is answered, after those before it. `head`: what has
        come of one.
        """
        self.deaf = True
        head = head or bytes(self.partial)
        self.partial.clear()
        receiving = self.receiving
        if receiving is None:
            connection = self._connection
            connection.answerer.accept(open_refusal(self._listener, connection.peer, refusal, connection.now(), head))
            return
        # The body will never be whole. A request whose turn has not come is not begun at all.
        receiving.keep_alive = False
        if receiving is not self._connection.answerer.current:
            receiving.error = refusal
        assert receiving.body is not None
        receiving.body.fail(refusal)

    def stop(self) -> None:
        """The client has gone."""
        self.deaf = True
        self.unread = b""
        if self.receiving is not None and self.receiving.body is not None:
            self.receiving.body.fail(RequestRefused(Kinds.CLIENT_GONE))

    # Heads.

    def _cut_head(self, data: bytes) -> tuple[bytes, bytes]:
        """A head from the front of `data`, empty if it is not complete, and what stands behind it."""
        partial = self.partial
        if partial == b"\r":  # of an empty line, perhaps
            data = b"\r" + data
            partial.clear()
        start = max(0, len(partial) - 3)
        if partial:
            partial += data
            end = partial.find(_HEAD_END, start) + 4
            if end > 3:
                data = bytes(partial)
                partial.clear()
        else:
            if data.startswith(b"\r\n"):  # one empty line before the request line is passed over (RFC 9112 §2.2)
                if self._empty_line:
                    raise RequestRefused(Kinds.FRAMING, "There are empty lines before the request.")
                self._empty_line = True
                return b"", data[2:]
            end = data.find(_HEAD_END) + 4
            if end <= 3:
                partial += data
                self.head_since = self._connection.now()
                self._connection.rearm()
        if (end if end > 3 else len(partial)) > self._limits.header_size:
            raise RequestRefused(Kinds.HEADERS_TOO_LARGE, f"The head is larger than {self._limits.header_size} bytes.")
        if end <= 3:
            if _BARE_LF.search(partial, start):  # the end of a head with such is waited for in vain
                self._reader.read(bytes(partial) + _HEAD_END, None)  # refuses it, for the first of its faults
                raise RequestRefused(Kinds.FRAMING, "A header line is malformed.")
            return b"", b""
        self._empty_line = False
        return (data, b"") if len(data) == end else (data[:end], data[end:])

    def _take(self, raw: bytes, rest: bytes) -> bytes:
        """Make an exchange of a head and what has arrived behind it; what is left over is returned."""
        method, target, fields = self._reader.read(raw, self._fields)
        listener, connection = self._listener, self._connection
        if fields is not self._fields or fields.judged_by is not listener.forwarding:
            self._adopt(fields)
        exchange = open_exchange(listener, connection.peer, method, target, fields, connection.now())
        if connection.certificate is not None:
            exchange.request.certificate = connection.certificate
        request, length = exchange.request, fields.length
        request.deadline = request.arrived + exchange.route.timeout
        if not length and not fields.chunked:
            connection.answerer.accept(exchange)
            return rest
        if exchange.error is None and length > exchange.route.max_body:
            exchange.error = RequestRefused(
                Kinds.BODY_TOO_LARGE, f"The body is larger than {exchange.route.max_body} bytes."
            )
        if exchange.error is not None:
            self.deaf = True  # its body is not read, so nothing behind it can be
            exchange.keep_alive = False
            connection.answerer.accept(exchange)
            return b""
        if length and len(rest) >= length:
            request.body = rest[:length]
            connection.answerer.accept(exchange)
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
        self.receiving = exchange
        self._left = fields.length
        self._decoder = ChunkedDecoder(limits.headers, limits.header_size) if fields.chunked else None
        if rest:
            try:
                rest = self._receive_body(rest)
            except RequestRefused as refusal:
                self.deaf = True
                self.receiving = None
                exchange.error = refusal
                exchange.keep_alive = False
                rest = b""
        self._connection.rearm()
        self._connection.answerer.accept(exchange)
        return rest

    def _adopt(self, fields: Fields) -> None:
        """What follows of fields for every request with them; the next one often repeats them."""
        forwarding, peer = self._listener.forwarding, self._connection.peer
        fields.judged_by = forwarding
        fields.client = forwarding.client(peer, fields.read)
        fields.log_client = fields.client.encode()
        fields.forwarded = forwarding.fields(peer, self._listener.scheme, fields.host, fields.read)
        self._fields = fields if len(fields.block) <= _MOST_KEPT else None

    # Bodies.

    def _receive_body(self, data: bytes) -> bytes:
        """Feed the body that is arriving; what stands behind it is returned."""
        exchange = self.receiving
        assert exchange is not None
        assert exchange.body is not None
        body, decoder = exchange.body, self._decoder
        if decoder is None:
            chunk, rest = data[: self._left], data[self._left :]
            self._left -= len(chunk)
            body.feed(chunk)
            done = not self._left
        else:
            try:
                chunks, rest = decoder.feed(data)
            except Malformed as malformed:
                raise RequestRefused(malformed.kind, malformed.detail) from malformed
            if chunks:
                body.feed(b"".join(chunks))
            done = decoder.done
        if done:
            connection = self._connection
            exchange.request.deadline = connection.now() + exchange.route.timeout
            self.receiving = None
            connection.rearm()
            body.end(decoder.trailers if decoder is not None else None)
        else:
            self._connection.rearm()
        return rest

    def _send_continue(self, exchange: Exchange) -> None:
        if exchange is self._connection.answerer.current and not exchange.sent:
            self._connection.write(_CONTINUE)

    # A body's source (body.BodySource).

    def pause_body(self) -> None:
        """Its reader is slow: that is not the client's fault."""
        self._hold(bodies=self.bodies_held + 1, queue=self.queue_held)
        self._connection.rearm()

    def resume_body(self) -> None:
        """Its reader has caught up."""
        self._hold(bodies=self.bodies_held - 1, queue=self.queue_held)
        self._connection.rearm()

    def drop_body(self) -> None:
        """Nobody wants the rest: the connection cannot be used for another request."""
        if self.receiving is not None:
            self.deaf = True
            self.receiving.keep_alive = False
            self._connection.rearm()

    # Holding back.

    def _keep(self, data: bytes) -> None:
        self.unread = data
        self._hold(bodies=self.bodies_held, queue=True)

    def _hold(self, *, bodies: int, queue: bool) -> None:
        """Read nothing while either holds back."""
        before, after = self.bodies_held or self.queue_held, bodies or queue
        self.bodies_held, self.queue_held = bodies, queue
        connection = self._connection
        if connection.closing or bool(before) == bool(after):
            return
        if after:
            connection.transport.pause_reading()
        else:
            connection.transport.resume_reading()
