"""Families of refresh tokens in a compacted topic, for any number of instances: the order of its log decides.

Every worker holds a table of them, made of the log. To use a token, what the family is to be afterwards is written, and
read back: if the family still was what the record supposes, the use has won; else somebody was before it, and the
family ends. All readers see the same order, so all of them come to the same end.

A token is handed out only when the record that names it was read back and had won. So a record that has lost names one
that nobody has: wherever compaction leaves nothing of a family but such a record, the family is ended all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import time

import msgspec

from castlegate.errors import CallFailed
from castlegate.issuer.families import Bounds, Family, Granted, RefreshToken, Room, begun, full, used
from castlegate.issuer.marks import MARK, Marks, behind
from castlegate.rules.remembered import Remembered
from castlegate.stores.log import Log
from castlegate.telemetry.stumbles import Stumbles
from castlegate.wire.timer import Timer

logger = logging.getLogger("castlegate.issuer")

_BEGINNING_S = 2.0  # that a request waits for what was there before this worker to be read
_ASKING_S = 2.0  # that a request with an access token waits for what is not known of its login
_ENDED = 10_000  # families that are remembered to have ended
_SWEEP_S = 5.0  # between two looks for what has expired
_SWEPT = 500  # families at most that are deleted at once
_SWEEPING_S = 5.0  # for a record to be written
_SLACK_S = 60.0  # for clocks that differ
_JITTER_S = 600.0  # each worker waits so long or less, so that not all delete the same

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Family).decode


class TopicFamilies:
    """See `castlegate.issuer.families.Families`."""

    def __init__(self, log: Log, timer: Timer, bounds: Bounds, room: Room) -> None:
        self._log = log
        self._timer = timer
        self._bounds = bounds
        self._room = room
        # The table: changed by `restart` and `apply` alone, which the log calls.
        self._families: dict[bytes, Family] = {}
        self._by_subject: dict[str, dict[bytes, None]] = {}
        self._expiring: list[tuple[float, bytes]] = []  # a heap of every family and when it is to be looked at
        # Hashes of tokens whose record is under way → whether it has won, once it was read.
        self._under_way: dict[str, bool | None] = {}
        # The latest that have ended: none begins again, so what is said of one afterwards has lost.
        self._ended: Remembered[bytes, bool] = Remembered(_ENDED)
        self._marks = Marks(log, timer)
        self._sweeping: asyncio.Task[None] | None = None

    # The table.

    def restart(self) -> None:
        """See `castlegate.stores.log.Table`."""
        self._families.clear()
        self._by_subject.clear()
        self._expiring.clear()
        self._ended.clear()

    def apply(self, key: bytes, value: bytes | None) -> None:
        """See `castlegate.stores.log.Table`."""
        if key == MARK:
            return
        if value is None:
            self._end(key)
            return
        try:
            after = _decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            logger.warning("a record of the issuer's topic cannot be read and is left out")
            return
        won = self._used(key, after) if after.replaces else self._begun(key, after)
        if after.current in self._under_way:
            self._under_way[after.current] = won

    def _begun(self, key: bytes, family: Family) -> bool:
        """Whether there is room for it."""
        if key not in self._families and len(self._families) >= self._room.most:
            logger.warning("there are more logins than 'most' of the issuer's state: one is not known here")
            return False
        self._families[key] = family
        self._by_subject.setdefault(family.granted.subject, {})[key] = None
        heapq.heappush(self._expiring, (family.until, key))
        return True

    def _used(self, key: bytes, after: Family) -> bool:
        """Whether the use has won."""
        before = self._families.get(key)
        if before is None:
            # It may be the record that compaction has left; or it has lost, and the token before it has no grace.
            if not self._ended.get(key):
                self._begun(key, msgspec.structs.replace(after, former=""))
            return False
        if not before.takes(after.replaces, after.used):
            self._end(key)
            return False
        self._families[key] = after
        return True

    def _end(self, key: bytes) -> None:
        family = self._families.pop(key, None)
        if family is not None:
            subject = family.granted.subject
            del self._by_subject[subject][key]
            if not self._by_subject[subject]:
                del self._by_subject[subject]
        self._ended.put(key, True)

    # What endpoints use.

    @property
    def problem(self) -> str:
        """See `Families`."""
        return "" if self._log.caught_up else "issuer: not all refresh tokens have been read yet"

    async def check(self, deadline: float) -> None:
        """See `Families`."""
        await self._log.admit(deadline)
        if len(self._families) >= self._room.most:
            raise full()

    async def begin(self, token: RefreshToken, granted: Granted, deadline: float) -> None:
        """See `Families`."""
        if not await self._write(token, begun(granted, token, time.time(), self._bounds), deadline):
            with contextlib.suppress(CallFailed):
                await self._log.append(token.family.encode(), None, deadline)
            raise full()
        # If this fails, the next login of the subject ends one more.
        with contextlib.suppress(CallFailed):
            for key in self._too_many(granted.subject):
                await self._delete(key, deadline)

    def _too_many(self, subject: str) -> list[bytes]:
        """Families of a subject that there is no room for: the same for all who have read the same."""
        keys = self._by_subject.get(subject, {})
        excess = min(len(keys) - self._room.per_subject, _SWEPT)
        return heapq.nsmallest(excess, keys, key=lambda key: (self._families[key].used, key))

    async def use(self, token: RefreshToken, following: RefreshToken, deadline: float) -> Granted | None:
        """See `Families`."""
        await self._log.admit(deadline)
        key = token.family.encode()
        family = await self._find(token, deadline)
        if family is None:
            return None
        now = time.time()
        if not family.takes(token.own, now):
            if now < family.until:
                logger.warning("a refresh token of '%s' was used again: all of its login ends", family.granted.subject)
                await self._delete(key, deadline)
            return None
        after = used(family, token, following, now, self._bounds)
        if await self._write(following, after, deadline):
            return after.granted
        logger.warning("a refresh token of '%s' was used twice: all of its login ends", family.granted.subject)
        # If this fails, what was written ends the family too: it names a token that nobody has.
        with contextlib.suppress(CallFailed):
            await self._delete(key, deadline)
        return None

    async def end(self, token: RefreshToken, deadline: float) -> None:
        """See `Families`."""
        await self._log.admit(deadline)
        if await self._find(token, deadline) is not None:
            await self._delete(token.family.encode(), deadline)

    # What schemes use.

    def holds(self, family: str) -> bool:
        """See `castlegate.means.Logins`."""
        return family.encode() in self._families and self._log.caught_up

    async def lasts(self, family: str, deadline: float) -> bool:
        """See `castlegate.means.Logins`."""
        key, deadline = family.encode(), min(deadline, self._timer.now() + _ASKING_S)
        await self._read_beginning(deadline)
        if key not in self._families and not self._ended.get(key):
            # It may have begun at another instance, of which nothing was read yet; else it has ended for good.
            await self._log.admit(deadline)
            await self._marks.see_all(deadline)
            if key not in self._families:
                self._ended.put(key, True)
        return key in self._families

    async def _read_beginning(self, deadline: float) -> None:
        if not self._log.caught_up:
            try:
                await self._log.beginning(min(deadline, self._timer.now() + _BEGINNING_S))
            except CallFailed as failed:
                raise behind() from failed

    async def _delete(self, key: bytes, deadline: float) -> None:
        """Write that a family has ended, and read it back."""
        await self._log.reached(await self._log.append(key, None, deadline), deadline)

    async def _find(self, token: RefreshToken, deadline: float) -> Family | None:
        """The family as it is now. What is in the table may be old, which counts where the token does not fit it."""
        key = token.family.encode()
        await self._read_beginning(deadline)
        family = self._families.get(key)
        if family is None or token.own != family.current:
            await self._marks.see_all(deadline)
            family = self._families.get(key)
        return family

    async def _write(self, token: RefreshToken, after: Family, deadline: float) -> bool:
        """Write a record that names a token, and read it back; whether it has won."""
        self._under_way[token.own] = None
        try:
            offset = await self._log.append(token.family.encode(), _encode(after), deadline)
            await self._log.reached(offset, deadline)
            return self._under_way[token.own] is True
        finally:
            del self._under_way[token.own]

    # Its life.

    async def start(self) -> None:
        """Read, and delete what has expired."""
        self._log.start(self)
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """End."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._marks.stop()
        await self._log.stop()

    async def _sweep(self) -> None:
        # Access tokens of a login that nobody refreshes any more are good to their end.
        late = self._bounds.access + _SLACK_S + random.uniform(0, _JITTER_S)  # noqa: S311 - no secret
        stumbles = Stumbles(logger, "deleting logins that have ended")
        while True:
            await asyncio.sleep(_SWEEP_S)
            expired = self._expired(time.time() - late)
            try:
                while expired:
                    await self._log.append(expired[-1], None, self._timer.now() + _SWEEPING_S)
                    expired.pop()
            except CallFailed:
                pass  # whoever needs the topic is told
            except Exception as error:  # noqa: BLE001 - logged
                stumbles.tell(error)
            for key in expired:
                heapq.heappush(self._expiring, (0.0, key))

    def _expired(self, now: float) -> list[bytes]:
        """Families that ended before; at most so many."""
        expired: list[bytes] = []
        while self._expiring and self._expiring[0][0] <= now and len(expired) < _SWEPT:
            _, key = heapq.heappop(self._expiring)
            family = self._families.get(key)
            if family is None:
                continue
            if family.until <= now:
                expired.append(key)
            else:
                heapq.heappush(self._expiring, (family.until, key))
        return expired
