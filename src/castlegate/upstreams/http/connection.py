"""One connection to an instance: a call's bytes out, its answer in, one at a time.

    idle ──send──▶ waiting for the head ──▶ body ──last byte──▶ idle, back to the pool
Whatever else happens (cut, malformed, bytes that nobody asked for, a deadline) ends in `_break`: the connection is
closed and never goes back. Only the callbacks of this class and `send` change its state.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome
from castlegate.message import Body, Call, Headers, Pairs, Reply
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.fields import HOP_BY_HOP, LAST_CHUNK, encode_chunk, without_named

if TYPE_CHECKING:
    from castlegate.upstreams.http.pool import Pool

_MOST_INTERIM = 16  # 1xx answers before the final one


class ServerConnection(asyncio.Protocol):
    """A connection of a pool."""

    def __init__(self, pool: Pool) -> None:
        # For the connection's life.
        self._pool = pool
        self._timer = pool.timer
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpResponseParser(self)
        self.closed = False
        self.used = False  # a call was answered over it before
        self.handed_over = False  # to a call; until then its end is a failure to connect
        self.idle_since = 0.0
        self._writable: Waiter[None] | None = None
        self._full = False
        # For one call.
        self._call: Call | None = None
        self._waiter: Waiter[Reply] | None = None
        self._deadline = 0.0  # under which it stands with the timer, 0 if it does not
        self._pump: DirectTask[None] | None = None
        self._pairs: Pairs = []
        self._read: dict[bytes, bytes] = {}
        self._status = 0
        self._interim = 0
        self._head_size = 0
        self._head_done = False
        self._complete = False
        self._keep = False
        self._chunks: list[bytes] = []
        self._body: Body | None = None
        self._last_read = 0.0

    # Pool's side.

    def send(self, call: Call, head: bytes) -> Waiter[Reply]:
        """Send a call; the waiter gets the answer's head with what has arrived of its body, or `CallFailed`."""
        self._call = call
        self._pairs, self._read, self._chunks = [], {}, []
        self._interim = self._head_size = 0
        self._head_done = self._complete = False
        self._body = None
        waiter = self._waiter = Waiter()
        body = call.body
        if type(body) is bytes:
            self._transport.write(head + body if body else head)
            self._wait_until(call.deadline)
        else:
            self._transport.write(head)
            self._pump = DirectTask(self._send_body(cast("Body", body)), self._body_sent)
            self._pump.start()
        return waiter

    def abandon(self) -> None:
        """The caller has gone: the answer, if it comes, is nobody's."""
        self._waiter = None
        self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))

    @property
    def silent(self) -> bool:
        """Whether not a byte of an answer came."""
        return not self._head_size

    def close(self) -> None:
        """Close an idle connection."""
        self.closed = True
        self._transport.close()

    def expire(self) -> None:
        """Called by the timer: the answer is late, or its body has stalled."""
        self._deadline = 0.0
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
        if self._call is None or self.closed:
            self._break(_bad("bytes that nobody asked for"))  # or a 408 before the close of an idle connection
            return
        if not self._head_done:
            end = data.find(b"\r\n\r\n")
            self._head_size += len(data) if end < 0 else end + 4
            if self._head_size > self._pool.settings.header_size:
                self._break(_bad("its head is too large"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(_bad("it switched protocols unasked"))
            return
        except httptools.HttpParserCallbackError as error:
            self._break(error.__context__ if isinstance(error.__context__, CallFailed) else _bad("it is malformed"))
            return
        except httptools.HttpParserError:
            if not self._complete:  # what follows the answer to a HEAD is not looked at
                self._break(_bad("it is malformed"))
                return
            self._keep = False
        self._deliver()

    def eof_received(self) -> None:
        """The instance sends no more; `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by the instance, or by us."""
        # Only an orderly end can be the end of a body: after a reset it is cut.
        if exc is None and self._call is not None and self._head_done and not self._complete and self._until_close:
            self._complete = True
            self._keep = False
            self._deliver()
        self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN, "The service broke off its answer."))

    def pause_writing(self) -> None:
        """The instance reads slower than the client sends."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        waiter, self._writable = self._writable, None
        if waiter is not None:
            waiter.settle(None)

    # httptools' side.

    def on_message_begin(self) -> None:
        """An answer begins. One that nobody asked for is not passed on, and ends the connection."""
        if self._complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, or a trailer."""
        name = name.lower()
        if self._head_done:
            return  # trailers are not passed on
        if name in HOP_BY_HOP or name == b"content-length":
            if name in self._read and name in (b"content-length", b"transfer-encoding"):
                raise _bad("its length is ambiguous")
            self._read[name] = self._read[name] + b", " + value if name in self._read else value
        else:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is read."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 999:
            raise _bad("its status is none")
        if status < 200:
            self._interim += 1
            if self._interim > _MOST_INTERIM or status == 101:
                raise _bad("too many interim answers")
            return
        if len(self._pairs) > self._pool.settings.headers:
            raise _bad("it has too many header fields")
        read = self._read
        if b"content-length" in read and b"transfer-encoding" in read:
            raise _bad("its length is ambiguous")
        if read.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise _bad("its transfer coding is unknown")
        self._head_done = True
        self._status = status
        self._keep = self._parser.should_keep_alive()
        call = self._call
        if call is not None and call.method == b"HEAD":
            # llhttp would take the next answer for this one's body.
            self._complete = True
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._complete:  # behind the answer to a HEAD
            self._keep = False
        elif self._body is not None:
            self._body.feed(data)
        else:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        """All of it is here; of an interim answer, nothing yet."""
        if self._head_done:
            self._complete = True
        else:
            self._pairs, self._read = [], {}

    # A body's source (message.BodySource).

    def pause_body(self) -> None:
        """The client is slow."""
        if not self.closed:
            self._transport.pause_reading()

    def resume_body(self) -> None:
        """It has caught up."""
        self._last_read = self._timer.now()
        if not self.closed:
            self._transport.resume_reading()

    def drop_body(self) -> None:
        """The client has gone."""
        self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))

    # Within.

    @property
    def _until_close(self) -> bool:
        return b"content-length" not in self._read and b"transfer-encoding" not in self._read

    def _deliver(self) -> None:
        """Pass on what the bytes just read have made of the answer."""
        if not self._head_done:
            return
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self._stop_waiting()
            reply = self._reply()
            if self._complete:
                self._release()
            else:
                self._last_read = self._timer.now()
                self._wait_until(self._last_read + self._pool.settings.read_timeout)
            waiter.settle(reply)
        elif self._body is not None:
            self._last_read = self._timer.now()
            if self._complete:
                body = self._body
                self._release()
                body.end()

    def _reply(self) -> Reply:
        call = self._call
        assert call is not None
        pairs, read = self._pairs, self._read
        status = self._status
        if read.get(b"connection", b"close").lower() not in (b"close", b"keep-alive"):
            pairs = without_named(pairs, read[b"connection"])
        length = read.get(b"content-length")
        if self._complete:
            if length is not None and (call.method == b"HEAD" or status == 304):
                pairs.append((b"content-length", length))
            return Reply(status, Headers(pairs), self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
        body = self._body = Body(self, None if length is None else int(length))
        for chunk in self._chunks:
            body.feed(chunk)
        return Reply(status, Headers(pairs), body)

    def _release(self) -> None:
        """The answer is complete: back to the pool, unless it cannot be used again."""
        self._stop_waiting()
        pump, self._pump = self._pump, None
        self._call = None
        self._body = None
        self._waiter = None
        self.used = True
        if pump is not None or not self._keep or self._parser.should_upgrade():
            self.closed = True
            if pump is not None:
                pump.cancel()
                self._transport.abort()  # it may never take what is still to be written
            else:
                self._transport.close()
            self._pool.forget(self)
        else:
            self._pool.put_back(self)

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
        self._call = None
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

    async def _send_body(self, body: Body) -> None:
        chunked = body.length is None
        try:
            while chunk := await body.read():
                self._transport.write(encode_chunk(chunk) if chunked else chunk)
                if self._full:
                    await self._until_writable()
            if chunked:
                self._transport.write(LAST_CHUNK)
        finally:
            body.close()

    async def _until_writable(self) -> None:
        """Wait for the service to read on, for `read_timeout` at most."""
        watched = not self._deadline  # else the answer's body is under way, and its own timeout runs
        if watched:
            self._wait_until(self._timer.now() + self._pool.settings.read_timeout)
        self._writable = Waiter()
        await self._writable
        if watched and self._body is None:
            self._stop_waiting()

    def _body_sent(self, _result: None, error: BaseException | None) -> None:
        self._pump = None
        call = self._call
        if isinstance(error, GatewayError):
            self._break(error)
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            self._break(CallFailed(Kinds.RESET, Outcome.UNKNOWN))
        elif error is None and call is not None and self._waiter is not None:
            self._wait_until(self._timer.now() + call.timeout)


def _bad(why: str) -> CallFailed:
    return CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, f"The service's answer is not valid: {why}.")
