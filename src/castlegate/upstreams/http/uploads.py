"""The share of an instance's connections that clients who are still sending may hold.

Such a call holds a connection for as long as its client likes. Without a share, as many slow clients as there are
connections would have all of them, and nobody else would be served.

Mutable state: `_taken` (places of calls that send) and `_waiting` (for one, in order); changed by `enter` and `leave`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from castlegate.body import Body
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.upstreams.http.settings import HttpPool
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer


class _Place(Waiter[None]):
    """Someone who waits for a place."""

    __slots__ = ()

    def expire(self) -> None:
        """Called by the timer."""
        self.fail(_busy("Too many other uploads to this service did not end in time."))


class Uploads:
    """Places for calls to one instance whose bodies are still arriving."""

    __slots__ = ("_most", "_most_waiting", "_taken", "_timer", "_waiting")

    def __init__(self, settings: HttpPool, timer: Timer) -> None:
        self._most = settings.most_uploads
        self._most_waiting = settings.waiting
        self._timer = timer
        self._taken = 0
        self._waiting: deque[_Place] = deque()

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    async def enter(self, body: Body, deadline: float) -> None:
        """Take a place, or wait for one until `deadline` (loop time). Raises `CallFailed`, not sent; or what `body`
        failed with meanwhile.
        """
        if self._taken < self._most:
            self._taken += 1
            return
        if len(self._waiting) >= self._most_waiting:
            raise _busy("Too many uploads to this service are under way.")
        place = _Place()
        self._waiting.append(place)
        self._timer.add(place, deadline)
        body.on_failure(place.fail)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.failed():
                self.leave()  # it was given in the same moment
            raise
        finally:
            body.on_failure(None)
            self._timer.remove(place, deadline)
            if place in self._waiting:
                self._waiting.remove(place)

    def leave(self) -> None:
        """Give a place back: all of the body has been sent, or never will be."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.settle(None)
                return
        self._taken -= 1


def _busy(detail: str) -> CallFailed:
    return CallFailed(Kinds.POOL_EXHAUSTED, Outcome.NOT_SENT, detail)
