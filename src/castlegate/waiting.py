"""How a request waits: a future and a task that go on at once, without a turn of the event loop.

`Waiter` is settled by a protocol callback (bytes arrived, a reply was polled) and runs whoever awaits it there and
then. `DirectTask` drives one coroutine that may await waiters and asyncio futures alike. A waiter may also be awaited
from an ordinary `asyncio.Task`; that one is woken through the loop, since tasks cannot be entered from within tasks.

What a `DirectTask` runs is not an asyncio task: `asyncio.timeout`, `TaskGroup` and context variables need a task of
their own inside it. Deadlines travel with the call instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PENDING: Any = object()


class Waiter(Generic[T]):
    """One value to come, for one awaiting coroutine. Settled once; settling again is ignored."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_error", "_resume", "_value")

    def __init__(self) -> None:
        self._asyncio_future_blocking = False
        self._value: T = _PENDING
        self._error: BaseException | None = None
        self._resume: Callable[[], None] | None = None
        self._callback: Callable[[Any], object] | None = None

    def done(self) -> bool:
        """Whether it was settled."""
        return self._value is not _PENDING or self._error is not None

    def failed(self) -> bool:
        """Whether it was settled with an error."""
        return self._error is not None

    def settle(self, value: T) -> None:
        """Give the value; whoever waits runs on before this returns."""
        if self._value is _PENDING and self._error is None:
            self._value = value
            resume = self._resume
            if resume is not None:
                self._resume = None
                resume()
            else:
                self._wake()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in whoever waits."""
        if self._value is _PENDING and self._error is None:
            self._error = error
            self._wake()

    def result(self) -> T:
        """The value, or the error it failed with."""
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Waiter[T], None, T]:
        if self._value is _PENDING and self._error is None:
            self._asyncio_future_blocking = True
            yield self
        if self._error is not None:
            raise self._error
        return self._value

    def _wake(self) -> None:
        resume = self._resume
        if resume is not None:
            self._resume = None
            resume()
        elif self._callback is not None:
            callback, self._callback = self._callback, None
            asyncio.get_running_loop().call_soon(callback, self)

    # What asyncio.Task asks of a future that it is made to wait for (asyncio/futures.py, `isfuture`).

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        return asyncio.get_running_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Called through the loop when settled."""
        del context
        self._callback = callback
        if self.done():
            self._wake()

    def cancel(self, msg: object = None) -> bool:
        """Settle with `CancelledError`."""
        del msg
        if self.done():
            return False
        self.fail(asyncio.CancelledError())
        return True


class DirectTask(Generic[T]):
    """Runs a coroutine to its first wait at once, and on from each wait as soon as that is settled.

    `done(result, error)` is called exactly once, also after `cancel()`; it must not raise.
    """

    __slots__ = ("_cancel_requested", "_coroutine", "_done", "_running", "_waits_for")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._done: Callable[[T | None, BaseException | None], None] | None = done
        self._waits_for: Any = None
        self._running = False
        self._cancel_requested = False

    def start(self) -> None:
        """Run to the first wait; after each wait it goes on by itself."""
        self._advance()

    def cancel(self) -> None:
        """Raise `CancelledError` at the place where the coroutine waits; nothing if it has ended."""
        if self._done is None:
            return
        awaited = self._waits_for
        if self._running or awaited is None:
            self._cancel_requested = True
        elif isinstance(awaited, Waiter):
            awaited._resume = None
            self._advance(asyncio.CancelledError())
        else:
            awaited.cancel()

    def _advance(self, error: BaseException | None = None) -> None:
        self._waits_for = None
        self._running = True
        try:
            awaited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self._finish(stop.value, None)
            return
        except BaseException as raised:  # noqa: BLE001 - handed to `done`, which answers for all of them
            self._finish(None, raised)
            return
        self._running = False
        if isinstance(awaited, Waiter):
            awaited._resume = self._advance
            self._waits_for = awaited
        elif awaited is None:  # asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self._advance)
        else:
            awaited._asyncio_future_blocking = False
            self._waits_for = awaited
            awaited.add_done_callback(self._on_future)
        if self._cancel_requested and self._waits_for is not None:
            self._cancel_requested = False
            self.cancel()

    def _on_future(self, _future: object) -> None:
        self._advance()

    def _finish(self, result: T | None, error: BaseException | None) -> None:
        self._running = False
        done, self._done = self._done, None
        if done is not None:
            done(result, error)
