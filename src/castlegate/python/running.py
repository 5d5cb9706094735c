"""Runs one function: an `async def` as a task of the loop, any other in a thread; until a time, and no longer than
somebody waits for it.

Whoever is given up is told so where it can be: a task is cancelled, a thread is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.python.threads import GIVEN_UP, Job, NotRun, Threads
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

_ALIVE: set[asyncio.Task[Any]] = set()  # the loop itself does not keep those alive that were given up


class Ended(Exception):
    """A function raised what would end the program, or the request."""


class Runner(NamedTuple):
    """What functions are run with."""

    timer: Timer
    threads: Threads
    loop: asyncio.AbstractEventLoop

    async def run(
        self, function: Callable[..., Any], arguments: dict[str, Any], until: float, *, asynchronous: bool
    ) -> Any:
        """What it returns; raises what it raises, and `CallFailed` where it is out of time or there is no thread."""
        waiter: Waiter[Any]
        if asynchronous:
            task = self.loop.create_task(_guarded(function(**arguments)))
            _ALIVE.add(task)
            task.add_done_callback(_ALIVE.discard)
            waiter = Waiter()
            task.add_done_callback(partial(_settle, waiter))
            expiry = _Expiry(waiter, None)
            give_up: Callable[[], object] = task.cancel
        else:
            job = self.threads.run(partial(_contained, function, arguments))
            waiter, expiry = job.waiter, _Expiry(job.waiter, job)
            give_up = partial(self.threads.give_up, job)
        self.timer.add(expiry, until)
        try:
            return await waiter
        finally:
            self.timer.remove(expiry, until)
            give_up()  # nothing if it has ended
            waiter.fail(asyncio.CancelledError())


class _Expiry:
    """The deadline of one."""

    __slots__ = ("_job", "_waiter")

    def __init__(self, waiter: Waiter[Any], job: Job | None) -> None:
        self._waiter = waiter
        self._job = job

    def expire(self) -> None:
        """It is over, once all that is due with it has been told to the function."""
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        begun = self._job is None or self._job.running
        detail = "The function did not answer in time."
        self._waiter.fail(
            CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, detail) if begun else NotRun(Kinds.TIMEOUT, detail)
        )


async def _guarded(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:  # the loop or the request would end with it
        raise Ended(f"the function raised {error!r}") from error


def _contained(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return function(**arguments)
    except Exception:
        raise
    except BaseException as error:
        raise Ended(f"the function raised {error!r}") from error


def _settle(waiter: Waiter[Any], task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if not waiter.done():
        if task.cancelled():
            waiter.fail(Ended("the function cancelled itself"))
        elif error is not None:
            waiter.fail(error)
        else:
            waiter.settle(task.result())
    elif isinstance(error, Exception):
        GIVEN_UP.tell(error)
