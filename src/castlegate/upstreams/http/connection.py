"""One connection to an instance: a call's bytes out, its answer in, one at a time.

    idle ──send──▶ waiting for the head ──▶ body ──last byte──▶ idle, back to the pool
Whatever else happens (cut, malformed, bytes that nobody asked for, a deadline) ends in `_break`: the connection is
closed and never goes back. Only the callbacks of this class and `send` change its state.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from castlegate.body import Body
from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome
from castlegate.message import Call, Reply
from castlegate.upstreams.http.framing import AnswerHead
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.chunked import ChunkedDecoder
from castlegate.wire.fields import LAST_CHUNK, Malformed, encode_chunk
from castlegate.wire.untaken import untaken

if TYPE_CHECKING:
    from castlegate.upstreams.http.pool import Pool
    from castlegate.upstreams.http.uploads import Uploads

_HEAD_END = b"\r\n\r\n"
_MOST_KEPT = 2048  # bytes of a head that a connection keeps for the next answer
_MOST_INTERIM = 16  # 1xx answers before the final one


class ServerConnection(asyncio.Protocol):
    """A connection of a pool."""

    __slots__ = (
        "_body", "_call", "_deadline", "_decoder", "_ended", "_full", "_head", "_held", "_interim", "_last_head",
        "_last_read", "_left", "_partial", "_pool", "_pump", "_silent", "_timer", "_transport",
        "_unread", "_untaken", "_uploads", "_waiter", "_writable", "closed", "handed_over", "idle_since",
        "used",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        # For the connection's life.
        self._pool = pool
        self._timer = pool.timer
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.closed = False
        self.handed_over = False  # to a call; until then its end is a failure to connect
        self.idle_since = 0.0
        self.used = False  # a call was answered on it
        self._writable: Waiter[None] | None = None
        self._full = False
        self._ended = False  # nothing more comes from the instance
        self._untaken = 0  # bytes that the instance had yet to take when the wait for it began
        # For one call.
        self._call: Call | None = None
        self._held = b""  # of it, to be written at the end of the loop's turn
        self._waiter: Waiter[Reply] | None = None
        self._deadline = 0.0  # under which it stands with the timer, 0 if it does not
        self._pump: DirectTask[None] | None = None
        self._uploads: Uploads | None = None  # among whose places the pump has one
        self._silent = True  # not a byte of an answer came
        self._partial = b""  # a head that is not complete
        self._interim = 0
        self._last_head: AnswerHead | None = None  # services often repeat it
        self._head: AnswerHead | None = None  # whose body is arriving
        self._left = 0  # bytes of it still to come, if announced
        self._decoder: ChunkedDecoder | None = None
        self._unread = b""  # behind a turn of the decoder
        self._body: Body | None = None
        self._last_read = 0.0

    # Pool's side.

    def send(self, call: Call, head: bytes, until: float, uploads: Uploads | None) -> Waiter[Reply]:
        """Send a call; the waiter gets the answer's head with what has arrived of its body, or `CallFailed`.
        `uploads`: where the call has a place, to be given back.
        """
        self._call = call
        self._silent = True
        waiter = self._waiter = Waiter()
        body = call.body
        if isinstance(body, bytes):
            self._held = head + body if body else head
            self._pool.burst.join(self)
            self._wait_until(until)
        else:
            self._transport.write(head)
            self._uploads = uploads
            self._pump = DirectTask(self._send_body(call, body), self._body_sent)
            self._pump.start()
        return waiter

    def write_held(self) -> None:
        """Write the call that was held back for this moment (`Burst`)."""
        if not self._held:
            return
        if self.closed:  # between being given to a task and the turn in which that sent the call
            self._break(_closed_before())
            return
        held, self._held = self._held, b""
        self._transport.write(held)

    def abandon(self, call: Call) -> None:
        """Who made this call has gone: the answer, unless it has just come, is nobody's."""
        if self._call is call:
            self._waiter = None
            self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))

    def close(self) -> None:
        """Close an idle connection."""
        self.closed = True
        self._transport.close()

    def expire(self) -> None:
        """Called by the timer: the answer is late, or its body has stalled."""
        self._deadline = 0.0
        call = self._call
        if call is not None and self._writable is not None and 0 < untaken(self._transport) < self._untaken:
            self._wait_for_room(call)
            return
        if self._body is not None:
            quiet_until = self._last_read + self._pool.settings.read_timeout
            if self._body.paused or quiet_until > self._timer.now():
                self._wait_until(max(quiet_until, self._timer.now() + 0.1))
                return
        self._break(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, "The service did not answer in time."))

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        call = self._call
        if self._held:
            self._break(_closed_before())
            return
        if call is None or self.closed:
            self._break(_bad("bytes that nobody asked for"))  # or a 408 before the close of an idle connection
            return
        try:
            if self._head is None:
                self._receive_head(call, self._partial + data if self._partial else data)
            else:
                self._receive_body(self._unread + data if self._unread else data)
        except Malformed as malformed:
            self._break(_bad(malformed.detail))

    def eof_received(self) -> None:
        """The instance sends no more; `connection_lost` follows, before which no call may be sent here."""
        self._ended = True
        if self._held:  # nothing can be written any more
            self._break(_closed_before())
        elif self._call is None and not self.closed:
            self.close()  # orderly, as TLS wants it
            self._pool.forget(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by the instance, or by us."""
        self._ended = True
        while exc is None and self._unread and not self.closed:
            self._go_on()  # it came before the end
        head = self._head
        # Only an orderly end can be the end of a body: after a reset it is cut.
        if exc is None and head is not None and head.length is None and not head.chunked and not self.closed:
            self._complete([], b"")
            return
        if self._held:
            self._break(_closed_before())
            return
        kind = Kinds.NO_ANSWER if self._silent else Kinds.RESET
        self._break(CallFailed(kind, Outcome.UNKNOWN, "The service broke off its answer."))

    def pause_writing(self) -> None:
        """The instance reads slower than the client sends."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        waiter, self._writable = self._writable, None
        if waiter is not None:
            waiter.settle(None)

    # Reading.

    def _receive_head(self, call: Call, data: bytes) -> None:
        """Take the answer's head off the front of `data`, past interim answers. Raises `Malformed`."""
        self._silent = False
        settings = self._pool.settings
        while True:
            end = data.find(_HEAD_END)
            if (len(data) if end < 0 else end + 4) > settings.header_size:
                raise Malformed("its head is too large")
            if end < 0:
                self._partial = data
                return
            head = self._pool.reader.read(data[: end + 4], call.method, self._last_head)
            data = data[end + 4 :]
            if head.status >= 200:
                break
            self._interim += 1
            if head.status == 101:
                raise Malformed("it switched protocols unasked")
            if self._interim > _MOST_INTERIM:
                raise Malformed("too many interim answers")
        self._partial = b""
        self._interim = 0
        self._last_head = head if end <= _MOST_KEPT else None
        length = head.length
        if length is not None and len(data) >= length:
            self._head = head
            self._complete([data[:length]], data[length:])
            return
        self._head = head
        if head.chunked:
            self._decoder = ChunkedDecoder(settings.headers, settings.header_size)
        else:
            self._left = length or 0
        self._receive_body(data)

    def _receive_body(self, data: bytes) -> None:
        """More of the body. Raises `Malformed`."""
        head, decoder = self._head, self._decoder
        assert head is not None
        self._last_read = self._timer.now()
        self._unread = b""
        if decoder is not None:
            chunks, rest = decoder.feed(data)
            if decoder.done:
                self._complete(chunks, rest)
                return
            if rest:  # a decoder's turn is over: others are served in between
                self._unread = rest
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
            data = b"".join(chunks)  # apart, chunks of a byte would take forty each
        elif head.length is not None:
            data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            if not self._left:
                self._complete([data], rest)
                return
        body = self._stream(head)
        if data:
            body.feed(data)

    def _go_on(self) -> None:
        """Decode what stayed unread, then read on."""
        unread = self._unread
        if unread and not self.closed:
            self._unread = b""
            self.data_received(unread)
            self._read_on()

    def _stream(self, head: AnswerHead) -> Body:
        """The body, delivered with the head before its first bytes are fed."""
        body = self._body
        if body is None:
            body = self._body = Body(self, head.length)
            self._stop_waiting()
            self._wait_until(self._last_read + self._pool.settings.read_timeout)
            waiter, self._waiter = self._waiter, None
            if waiter is not None:
                waiter.settle(Reply(head.status, head.headers, body))
        return body

    def _complete(self, chunks: list[bytes], rest: bytes) -> None:
        """The last bytes of the answer are here: back to the pool, unless the connection cannot be used again."""
        head, body, waiter, pump = self._head, self._body, self._waiter, self._pump
        assert head is not None
        if self._deadline:
            self._stop_waiting()
        self._call = self._head = self._decoder = self._body = self._waiter = self._pump = None
        self._pool.instance.in_flight -= 1
        if pump is not None or rest or self._ended or not head.keep_alive:
            self.closed = True
            if pump is not None:
                pump.cancel()
                self._transport.abort()  # it may never take what is still to be written
            else:
                self._transport.close()
            self._pool.forget(self)
        else:
            self.used = True
            self._pool.put_back(self)
        whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if body is not None:
            if whole:
                body.feed(whole)
            body.end()
        elif waiter is not None:
            waiter.settle(Reply(head.status, head.headers, whole))

    # A body's source (body.BodySource).

    def pause_body(self) -> None:
        """The client is slow."""
        if not self.closed and self._body is not None:
            self._transport.pause_reading()

    def resume_body(self) -> None:
        """It has caught up."""
        self._last_read = self._timer.now()
        self._read_on()

    def _read_on(self) -> None:
        """Unless the client is slow, or what came has yet to be decoded."""
        if not (self.closed or self._unread or (self._body is not None and self._body.paused)):
            self._transport.resume_reading()

    def drop_body(self) -> None:
        """The client has gone."""
        if self._body is not None:
            self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))

    # Its end, timeouts and the request's body.

    def _break(self, error: BaseException) -> None:
        """Close for good; whoever waits is told `error`."""
        if not self.closed:
            self.closed = True
            self._transport.abort()
            self._pool.forget(self)
        self._stop_waiting()
        waiter, self._waiter = self._waiter, None
        body, self._body = self._body, None
        pump, self._pump = self._pump, None
        writable, self._writable = self._writable, None
        if self._call is not None:
            self._pool.instance.in_flight -= 1
        self._call = self._head = None
        self._unread = self._held = b""
        if pump is not None:
            pump.cancel()
        elif writable is not None:
            writable.settle(None)
        if body is not None:
            body.fail(error)
        if waiter is not None:
            waiter.fail(error)

    def _wait_until(self, deadline: float) -> None:
        self._deadline = deadline
        self._timer.add(self, deadline)

    def _stop_waiting(self) -> None:
        if self._deadline:
            self._timer.remove(self, self._deadline)
            self._deadline = 0.0

    async def _send_body(self, call: Call, body: Body) -> None:
        chunked = body.length is None
        try:
            while chunk := await body.read():
                self._transport.write(encode_chunk(chunk) if chunked else chunk)
                if self._full:
                    await self._until_writable(call)
            if chunked:
                self._transport.write(LAST_CHUNK)
        finally:
            body.close()

    async def _until_writable(self, call: Call) -> None:
        """Wait for the service to read on. One that takes nothing is given up when it would be for not answering."""
        watched = not self._deadline  # else the answer's body is under way, and its own timeout runs
        if watched:
            self._wait_for_room(call)
        self._writable = Waiter()
        await self._writable
        if watched and self._body is None:
            self._stop_waiting()

    def _wait_for_room(self, call: Call) -> None:
        self._untaken = untaken(self._transport)
        self._wait_until(call.until(self._timer.now()))

    def _body_sent(self, _result: None, error: BaseException | None) -> None:
        self._pump = None
        call = self._call
        if isinstance(error, GatewayError):
            self._break(error)
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))
        elif error is None and call is not None and self._waiter is not None:
            self._wait_until(call.until(self._timer.now()))
        uploads, self._uploads = self._uploads, None
        if uploads is not None:
            uploads.leave()


def _closed_before() -> CallFailed:
    """An idle connection ended, in whatever way, in the very turn in which a call was given to it."""
    return CallFailed(Kinds.NO_ANSWER, Outcome.NOT_SENT, "The service closed the connection.")


def _bad(why: str) -> CallFailed:
    return CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, f"The service's answer is not valid: {why}.")
