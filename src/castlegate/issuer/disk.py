"""A thread with a connection of its own to an SQLite file: a transaction at a time, and a bound of those waiting."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from castlegate.errors import CallFailed, Kinds, Outcome

R = TypeVar("R")

_BUSY_S = 2.0  # how long another's transaction is waited for
_WAITING = 256


class Disk:
    """See the module."""

    def __init__(self, path: Path, schema: str, begin: Literal["BEGIN", "BEGIN IMMEDIATE"]) -> None:
        """`begin`: whether transactions read, or write."""
        self._path = path
        self._schema = schema
        self._begin = begin
        self._thread = ThreadPoolExecutor(1, "castlegate-issuer")
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None  # the thread's own

    def admit(self) -> None:
        """Raise `CallFailed` (not sent) if too many wait."""
        if self._waiting >= _WAITING:
            raise _failed("Too many requests wait for the disk.")

    async def do(self, work: Callable[[sqlite3.Connection], R], then: Callable[[R], None] | None = None) -> R:
        """A transaction, and what comes of it once it is on the disk, in the thread. Raises `CallFailed`."""
        self.admit()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work, then)
        except RuntimeError as error:  # the thread has been stopped
            raise CallFailed(Kinds.DRAINING, Outcome.NOT_SENT) from error
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # What follows runs in the thread.

    def _transact(self, work: Callable[[sqlite3.Connection], R], then: Callable[[R], None] | None) -> R:
        outcome = Outcome.NOT_SENT
        try:
            connection = self._connection = self._connection or self._open()
            connection.execute(self._begin)
            done = work(connection)
            outcome = Outcome.UNKNOWN
            connection.execute("COMMIT")
            if then is not None:
                then(done)
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
        connection.executescript(self._schema)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _failed(detail: str, outcome: Outcome = Outcome.NOT_SENT) -> CallFailed:
    return CallFailed(Kinds.NOT_KEPT, outcome, detail)
