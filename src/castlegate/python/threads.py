"""Threads for functions that block: so many, with a queue of so many in front of it.

    queued ──a thread is free──▶ running ──it returns or raises──▶ settled
       └──given up: it never runs   └──given up: it runs on, and nobody hears of it

Everything but `_work` runs in the loop. Threads are made when they are first needed, and hold up no exit.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from castlegate.errors import CallFailed, Kind, Kinds, Outcome
from castlegate.python.settings import PythonSettings
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles
from castlegate.waiting import Waiter

GIVEN_UP = Stumbles(logging.getLogger("castlegate.python"), "a function that nobody waited for any more")


class NotRun(CallFailed):
    """A function was not called at all."""

    def __init__(self, kind: Kind, detail: str = "") -> None:
        super().__init__(kind, Outcome.NOT_SENT, detail)


class Job:
    """One call of a function."""

    __slots__ = ("running", "waiter", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.waiter: Waiter[Any] = Waiter()
        self.running = False


class Threads:
    """Those of one worker."""

    def __init__(self, settings: PythonSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._most = settings.threads
        self._most_queued = settings.queued
        self._loop = loop
        self._handed: SimpleQueue[Job | None] = SimpleQueue()
        # Mutable, changed in the loop alone.
        self._made = 0
        self._busy = 0
        self._stopped = False
        self._queue: dict[Job, None] = {}  # in the order of their coming

    async def start(self) -> None:
        """Nothing until it is needed."""

    async def stop(self) -> None:
        """Threads end when they are free; what is queued gets a thread each, which ends behind it."""
        self._stopped = True
        for _ in range(self._made):
            self._handed.put(None)

    def watch(self, registry: Registry) -> None:
        """Have the gauges tell of these."""
        gauge = registry.gauge(
            "castlegate_function_threads", "Functions that block: those that run, and those that are queued.", "state"
        )
        gauge.watch(lambda: self._busy, "busy")
        gauge.watch(lambda: len(self._queue), "queued")

    def run(self, work: Callable[[], Any]) -> Job:
        """Have a thread do it; its waiter gets what comes of it. Raises `NotRun` (503)."""
        job = Job(work)
        if self._busy < self._most:
            self._hand_over(job)
        elif len(self._queue) < self._most_queued:
            self._queue[job] = None
        else:
            raise NotRun(Kinds.FUNCTION_BUSY)
        return job

    def give_up(self, job: Job) -> None:
        """Nobody waits for it any more."""
        self._queue.pop(job, None)

    def _hand_over(self, job: Job) -> None:
        self._busy += 1
        job.running = True
        self._handed.put(job)
        if self._stopped:
            self._handed.put(None)
        if self._stopped or self._made < self._busy:
            self._made += 1
            threading.Thread(target=self._work, name=f"castlegate-python-{self._made}", daemon=True).start()

    def _finished(self, job: Job, result: Any, error: BaseException | None) -> None:
        self._busy -= 1
        if self._queue:
            following = next(iter(self._queue))
            del self._queue[following]
            self._hand_over(following)
        if error is None:
            job.waiter.settle(result)
        elif not job.waiter.done():
            job.waiter.fail(error)
        elif isinstance(error, Exception):
            GIVEN_UP.tell(error)

    # What follows runs in the threads.

    def _work(self) -> None:
        while (job := self._handed.get()) is not None:
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # noqa: BLE001 - told to whoever waits
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._finished, job, result, error)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise
                return
            del job, result, error
