"""How far a topic goes: who must have seen all that was written writes a mark behind it and reads it back.

One mark serves all who ask meanwhile, so that however many they are, the topic gets few.
"""

from __future__ import annotations

import asyncio
import logging

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.stores.log import Log
from castlegate.telemetry.stumbles import Stumbles
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

logger = logging.getLogger("castlegate.issuer")

MARK = b"-"  # key of records that say nothing but how far the log goes

_EVERY = 0.02  # seconds between two of them
_WITHIN_S = 5.0  # for one to be read back


class Asking:
    """One that waits until all that was written before has been read."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: Waiter[None] = Waiter()

    def expire(self) -> None:
        """Its deadline has passed."""
        self.waiter.fail(behind())


class Marks:
    """Of one log."""

    def __init__(self, log: Log, timer: Timer) -> None:
        self._log = log
        self._timer = timer
        self._asking: list[Asking] = []
        self._marking: asyncio.Task[None] | None = None

    async def see_all(self, deadline: float) -> None:
        """Return when all that was written before now has been read. Raises `CallFailed` (not sent)."""
        asking = Asking()
        self._asking.append(asking)
        if self._marking is None:
            self._marking = asyncio.get_running_loop().create_task(self._mark())
        self._timer.add(asking, deadline)
        try:
            await asking.waiter
        finally:
            self._timer.remove(asking, deadline)

    async def stop(self) -> None:
        """No more; who waits is told."""
        if self._marking is not None:
            self._marking.cancel()
            await asyncio.gather(self._marking, return_exceptions=True)
        for asking in self._asking:
            asking.waiter.fail(CallFailed(Kinds.DRAINING, Outcome.NOT_SENT))

    async def _mark(self) -> None:
        stumbles = Stumbles(logger, "finding out how far the issuer's topic goes")
        try:
            while self._asking:
                asking, self._asking = self._asking, []
                try:
                    await self._mark_for(asking)
                except Exception as error:  # noqa: BLE001 - logged
                    stumbles.tell(error)
                await asyncio.sleep(_EVERY)
        finally:
            self._marking = None

    async def _mark_for(self, asking: list[Asking]) -> None:
        """Tell all of them, whatever happens."""
        told, deadline = behind(), self._timer.now() + _WITHIN_S
        try:
            await self._log.reached(await self._log.append(MARK, b"{}", deadline), deadline)
            for each in asking:
                each.waiter.settle(None)
        except CallFailed as failed:
            # A mark that was written may be written again.
            told = CallFailed(failed.kind, Outcome.NOT_SENT, failed.detail)
        finally:
            for each in asking:
                each.waiter.fail(told)  # but those that have been told


def behind() -> CallFailed:
    """Not all was read yet."""
    return CallFailed(Kinds.NOT_KEPT, Outcome.NOT_SENT, "Not all refresh tokens are known yet.")
