"""The worker's one timer: turns a table of deadlines into calls, every grain while something waits."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from castlegate.rules.deadlines import GRAIN, Deadlines

logger = logging.getLogger("castlegate.timer")


class Expires(Protocol):
    """What can run out of time."""

    def expire(self) -> None:
        """Its time is up. Must not raise."""


class Timer:
    """Deadlines on the loop's clock; costs nothing while nobody waits."""

    __slots__ = ("_deadlines", "_loop", "_running", "add", "now", "remove")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deadlines: Deadlines[Expires] = Deadlines(self._wake)
        self._running = False
        self.now = loop.time
        self.add = self._deadlines.add  # (entry, deadline): call `entry.expire()` once that loop time has passed
        self.remove = self._deadlines.remove  # it was settled in time

    def _wake(self) -> None:
        if not self._running:
            self._running = True
            self._loop.call_later(GRAIN, self._tick)

    def _tick(self) -> None:
        for entry in self._deadlines.due(self._loop.time()):
            try:
                entry.expire()
            except Exception:
                logger.exception("a deadline could not be dealt with")  # the others still must
        if len(self._deadlines):
            self._loop.call_later(GRAIN, self._tick)
        else:
            self._running = False
