"""Families of refresh tokens in a local file, for the workers of one instance: SQLite's write lock decides.

All is done by one thread of each worker, a transaction at a time, and is on the disk before anyone hears of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.issuer.families import Bounds, Family, Granted, RefreshToken, begun, full, used
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.issuer")

R = TypeVar("R")

_BUSY_S = 2.0  # how long another worker's transaction is waited for
_WAITING = 256  # for the thread, at once
_SWEEP_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS families (family TEXT PRIMARY KEY, ends REAL NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS families_ends ON families (ends);
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Family).decode


class FileFamilies:
    """See `castlegate.issuer.families.Families`."""

    def __init__(self, path: Path, bounds: Bounds, most: int) -> None:
        self._path = path
        self._bounds = bounds
        self._most = most
        self._thread = ThreadPoolExecutor(1, "castlegate-issuer")
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None  # the thread's own
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """See `Families`."""
        return ""

    async def check(self, deadline: float) -> None:
        """See `Families`; whether there is room is told when one begins."""
        del deadline
        self._admit()

    async def begin(self, token: RefreshToken, granted: Granted, deadline: float) -> None:
        """See `Families`."""
        del deadline  # a transaction has a bound of its own
        await self._do(lambda connection: self._begin(connection, token, granted))

    async def use(self, token: RefreshToken, following: RefreshToken, deadline: float) -> Granted | None:
        """See `Families`."""
        del deadline
        return await self._do(lambda connection: self._use(connection, token, following))

    async def end(self, token: RefreshToken, deadline: float) -> None:
        """See `Families`."""
        del deadline
        await self._do(lambda connection: _delete(connection, token))

    async def start(self) -> None:
        """Delete what has expired, now and then."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """Close the file."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _sweep(self) -> None:
        stumbles = Stumbles(logger, "deleting logins that have ended")
        while True:
            try:
                await self._do(_delete_expired)
            except CallFailed:
                pass  # whoever needs the file is told
            except Exception as error:  # noqa: BLE001 - logged
                stumbles.tell(error)
            await asyncio.sleep(_SWEEP_S)

    async def _do(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """A transaction, in the thread."""
        self._admit()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        except RuntimeError as error:  # the thread has been stopped
            raise CallFailed(Kinds.DRAINING, Outcome.NOT_SENT) from error
        finally:
            self._waiting -= 1

    def _admit(self) -> None:
        if self._waiting >= _WAITING:
            raise _failed("Too many requests wait for the disk.")

    # What follows runs in the thread.

    def _transact(self, work: Callable[[sqlite3.Connection], R]) -> R:
        outcome = Outcome.NOT_SENT
        try:
            connection = self._connection = self._connection or self._open()
            connection.execute("BEGIN IMMEDIATE")
            done = work(connection)
            outcome = Outcome.UNKNOWN
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise _failed("What is known of refresh tokens cannot be written.", outcome) from error
        finally:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return done

    def _open(self) -> sqlite3.Connection:
        # Nobody else is to read it, although tokens cannot be made of hashes.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a token that was handed out survives the machine
        connection.executescript(_SCHEMA)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin(self, connection: sqlite3.Connection, token: RefreshToken, granted: Granted) -> None:
        (count,) = connection.execute("SELECT count(*) FROM families").fetchone()
        if count >= self._most:
            raise full()
        family = begun(granted, token, time.time(), self._bounds)
        connection.execute("INSERT INTO families VALUES (?, ?, ?)", (token.family, family.until, _encode(family)))

    def _use(self, connection: sqlite3.Connection, token: RefreshToken, following: RefreshToken) -> Granted | None:
        found = connection.execute("SELECT state FROM families WHERE family = ?", (token.family,)).fetchone()
        if found is None:
            return None
        family, now = _decode(found[0]), time.time()
        if not family.takes(token.own, now):
            if now < family.until:
                logger.warning("a refresh token of '%s' was used again: all of its login ends", family.granted.subject)
            _delete(connection, token)
            return None
        after = used(family, token, following, now, self._bounds)
        connection.execute(
            "UPDATE families SET ends = ?, state = ? WHERE family = ?", (after.until, _encode(after), token.family)
        )
        return after.granted


def _delete(connection: sqlite3.Connection, token: RefreshToken) -> None:
    connection.execute("DELETE FROM families WHERE family = ?", (token.family,))


def _delete_expired(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM families WHERE ends < ?", (time.time(),))


def _failed(detail: str, outcome: Outcome = Outcome.NOT_SENT) -> CallFailed:
    return CallFailed(Kinds.NOT_KEPT, outcome, detail)
