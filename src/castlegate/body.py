"""Bodies that arrive in pieces, with backpressure, and what bounds the memory of those that are collected.

A `Body` has one source, which feeds it and is told to hold back, and one reader; `Budget` and `Share` count what
requests hold in memory. Nothing here knows what message a body belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from castlegate.errors import Kinds, RequestRefused
from castlegate.headers import Pairs
from castlegate.waiting import Waiter


class BodySource(Protocol):
    """Who feeds a body: it is told when to hold back and when nobody wants the rest."""

    def pause_body(self) -> None:
        """Stop reading from the wire."""

    def resume_body(self) -> None:
        """Read on."""

    def drop_body(self) -> None:
        """The reader has gone; the rest is to be discarded."""


class Body:
    """A stream of chunks for one reader, with backpressure towards its source.

    Fed by its source, read by `read()`; whoever drops it before the end calls `close()`. At most `HIGH_WATER` bytes
    plus one read of the socket wait in it.
    """

    HIGH_WATER = 256 * 1024  # bytes waiting at which the source is paused; resumed below half
    _JOINED = 4096  # bytes up to which chunks that wait are made one: an object of one byte takes forty

    __slots__ = (
        "_chunks", "_ended", "_error", "_on_failure", "_on_over", "_paused", "_source", "_waiter", "_waiting",
        "length", "limit", "on_cut", "on_wanted", "received", "trailers",
    )  # fmt: skip

    def __init__(self, source: BodySource, length: int | None = None) -> None:
        self.length = length  # announced length, None if chunked or until close
        self.limit: int | None = None  # bytes; reading on beyond it raises 413
        self.received = 0
        self.trailers: Pairs = []
        self.on_wanted: Callable[[], None] | None = None  # called before the first wait: sends 100 Continue
        self.on_cut: Callable[[], None] | None = None  # wakes a reader that waits for something else than chunks
        self._source = source
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._paused = False
        self._error: BaseException | None = None
        self._waiter: Waiter[None] | None = None
        self._on_failure: Callable[[BaseException], None] | None = None
        self._on_over: list[Callable[[BaseException | None], None]] | None = None

    # Source's side.

    def feed(self, chunk: bytes) -> None:
        """Append what arrived."""
        self.received += len(chunk)
        if self._error is not None:
            return
        if self.limit is not None and self.received > self.limit:
            self.fail(RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {self.limit} bytes."))
            return
        chunks = self._chunks
        if chunks and len(chunk) + len(chunks[-1]) <= self._JOINED:
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting > self.HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_body()
        self._wake()

    def end(self, trailers: Pairs | None = None) -> None:
        """All of it has arrived."""
        if trailers:
            self.trailers = trailers
        self._ended = True
        self._wake()
        self._tell_over()

    def fail(self, error: BaseException) -> None:
        """It will never be complete; `read` raises `error`, also instead of what still waits."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()
            if self._on_failure is not None:
                self._on_failure(error)
            self._tell_over()

    def cut(self, error: BaseException) -> None:
        """Have the reader give up at once, complete or not; what it has not taken is dropped."""
        if self._error is None:
            self._error = error
            self._chunks.clear()
            self._waiting = 0
            self._wake()
            if self.on_cut is not None:
                self.on_cut()
            self._tell_over()

    def _tell_over(self) -> None:
        told, self._on_over = self._on_over, None
        for tell in told or ():
            tell(self._error)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.settle(None)

    @property
    def waiting(self) -> int:
        """Bytes that the reader has not taken yet."""
        return self._waiting

    @property
    def paused(self) -> bool:
        """Whether the source was asked to hold back."""
        return self._paused

    # Reader's side.

    @property
    def over(self) -> bool:
        """Whether all of it has arrived, or nothing more will."""
        return self._ended or self._error is not None

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived, and is acceptable."""
        return self._ended and self._error is None

    def on_failure(self, tell: Callable[[BaseException], None] | None) -> None:
        """Whom to tell that it will never be complete, at once if that is so: a reader that waits for something else
        than chunks. None: nobody any more.
        """
        self._on_failure = tell
        if tell is not None and self._error is not None:
            tell(self._error)

    def when_over(self, tell: Callable[[BaseException | None], None]) -> None:
        """Whom else to tell, once, that its source is done with it, at once if that is so: None if all of it arrived,
        else why not, which is no failure of the source where its reader closed it.
        """
        if self.over:
            tell(self._error)
        elif self._on_over is None:
            self._on_over = [tell]
        else:
            self._on_over.append(tell)

    async def read(self) -> bytes:
        """The next chunk; `b""` at the end. Raises what the source failed with."""
        while True:
            if self._error is not None:
                raise self._error
            if self._chunks:
                chunk = self._chunks.popleft()
                self._waiting -= len(chunk)
                if self._paused and self._waiting < self.HIGH_WATER // 2:
                    self._paused = False
                    self._source.resume_body()
                return chunk
            if self._ended:
                return b""
            if self.on_wanted is not None:
                wanted, self.on_wanted = self.on_wanted, None
                wanted()
            self._waiter = Waiter()
            await self._waiter

    async def read_all(self, limit: int, share: Share) -> bytes:
        """The whole of it, at most `limit` bytes; raises `RequestRefused` (413) beyond, and where the budget is
        used up (503).
        """
        if self.length is not None and self.length > limit:
            raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
        whole = bytearray()  # a list of chunks may take many times what is in them: clients say how small they are
        while chunk := await self.read():
            if len(whole) + len(chunk) > limit:
                raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
            share.take(len(chunk))
            whole += chunk
        return bytes(whole)

    def close(self) -> None:
        """The reader wants no more of it; nothing if it was read to the end."""
        self._waiter = None
        if self._error is None and not (self._ended and not self._chunks):
            self._error = ConnectionAbortedError("body closed by its reader")
            self._chunks.clear()
            self._waiting = 0
            if self._paused:
                self._paused = False
                self._source.resume_body()
            self._source.drop_body()
            self._tell_over()


class Budget:
    """Bytes of bodies that may be held in memory at once, by all requests of a worker together."""

    __slots__ = ("_size", "left")

    def __init__(self, size: int) -> None:
        self._size = self.left = size

    def resize(self, size: int) -> None:
        """What is taken stays taken."""
        self.left += size - self._size
        self._size = size


class Share:
    """What one request has taken of a budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises `RequestRefused` (503) if there is not so much left."""
        if size > self._budget.left:
            raise RequestRefused(Kinds.OVERLOADED, "Too many bodies are being collected.")
        self._budget.left -= size
        self._taken += size

    def give_back(self, _ended: object) -> None:
        """All of it, when the request has ended."""
        self._budget.left += self._taken
        self._taken = 0
