"""Families of refresh tokens in a local file, for the workers of one instance: SQLite's write lock decides.

All is on the disk before anyone hears of it. Which families go on, each worker remembers of those that it was asked
for; what another one has ended it reads from a board that they share, before each look at what it remembers.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from castlegate.errors import CallFailed
from castlegate.issuer.board import Board
from castlegate.issuer.disk import Disk
from castlegate.issuer.families import Bounds, Family, Granted, RefreshToken, Room, begun, full, used
from castlegate.rules.remembered import Remembered
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.issuer")

R = TypeVar("R")
Ended = Sequence[str]
"""Families that a transaction has ended."""

_SWEEP_S = 60.0
_REMEMBERED = 10_000  # families of which each worker knows whether they go on

_SUBJECT = "json_extract(CAST(state AS TEXT), '$.granted.subject')"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS families (family TEXT PRIMARY KEY, ends REAL NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS families_ends ON families (ends);
CREATE INDEX IF NOT EXISTS families_subject ON families ({_SUBJECT});
"""
_TOO_MANY = f"""
SELECT family FROM families WHERE {_SUBJECT} = ? AND family != ?
ORDER BY json_extract(CAST(state AS TEXT), '$.used') DESC LIMIT -1 OFFSET ?
"""  # noqa: S608 - of a constant

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Family).decode


class FileFamilies:
    """See `castlegate.issuer.families.Families`."""

    def __init__(self, path: Path, bounds: Bounds, room: Room) -> None:
        self._bounds = bounds
        self._room = room
        self._writing = Disk(path, _SCHEMA, "BEGIN IMMEDIATE")
        self._reading = Disk(path, _SCHEMA, "BEGIN")  # by which nobody waits for what is being written
        self._sweeping: asyncio.Task[None] | None = None
        self._board_path = path.with_name(f"{path.name}-ended")
        self._board: Board | None = None  # made by the first thread that needs it
        self._making_board = threading.Lock()
        # The loop's own: whether a family goes on, as far as the board was read.
        self._known: Remembered[str, bool] = Remembered(_REMEMBERED)
        self._seen = 0

    @property
    def problem(self) -> str:
        """See `Families`."""
        return ""

    async def check(self, deadline: float) -> None:
        """See `Families`; whether there is room is told when one begins."""
        del deadline
        self._writing.admit()

    async def begin(self, token: RefreshToken, granted: Granted, deadline: float) -> None:
        """See `Families`."""
        del deadline  # a transaction has a bound of its own
        await self._write(lambda connection: self._begin(connection, token, granted))

    async def use(self, token: RefreshToken, following: RefreshToken, deadline: float) -> Granted | None:
        """See `Families`."""
        del deadline
        return await self._write(lambda connection: self._use(connection, token, following))

    async def end(self, token: RefreshToken, deadline: float) -> None:
        """See `Families`."""
        del deadline
        await self._write(lambda connection: (None, _delete(connection, [token.family])))

    def holds(self, family: str) -> bool:
        """See `castlegate.means.Logins`."""
        board = self._board
        if board is None:
            return False
        if board.count != self._seen:
            self._read_board(board)
        return self._known.get(family) is True

    async def lasts(self, family: str, deadline: float) -> bool:
        """See `castlegate.means.Logins`."""
        del deadline
        if self.holds(family):
            return True
        if self._known.get(family) is False:
            return False

        def look(connection: sqlite3.Connection) -> tuple[Board, int, bool]:
            board = self._shared_board()
            count = board.count
            found = connection.execute("SELECT 1 FROM families WHERE family = ?", (family,)).fetchone()
            return board, count, found is not None

        board, count, lasts = await self._reading.do(look)
        if not lasts or board.count == count:  # else it may have ended since, and nothing would tell of it again
            self._known.put(family, lasts)
        return lasts

    def _read_board(self, board: Board) -> None:
        """Know what others have ended."""
        seen, self._seen = self._seen, board.count
        ended = board.since(seen)
        if ended is None:
            self._known.clear()
            return
        for family in ended:
            self._known.put(family, False)

    async def start(self) -> None:
        """Delete what has expired, now and then."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """Close the files."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._writing.stop()
        await self._reading.stop()
        board, self._board = self._board, None
        if board is not None:
            board.close()

    async def _sweep(self) -> None:
        stumbles = Stumbles(logger, "deleting logins that have ended")
        while True:
            try:
                await self._writing.do(self._delete_expired)
            except CallFailed:
                pass  # whoever needs the file is told
            except Exception as error:  # noqa: BLE001 - logged
                stumbles.tell(error)
            await asyncio.sleep(_SWEEP_S)

    async def _write(self, work: Callable[[sqlite3.Connection], tuple[R, Ended]]) -> R:
        """A transaction; what it ends is told to all workers before its own caller hears of it."""

        def written(connection: sqlite3.Connection) -> tuple[R, Ended]:
            self._shared_board()  # where there can be none, nothing is written
            return work(connection)

        result, _ = await self._writing.do(written, self._tell)
        return result

    # What follows runs in the threads.

    def _tell(self, done: tuple[object, Ended]) -> None:
        if done[1]:
            self._shared_board().tell(done[1])

    def _shared_board(self) -> Board:
        """Made by the first that needs it. Raises `OSError`."""
        with self._making_board:
            if self._board is None:
                self._board = Board(self._board_path)
            return self._board

    def _begin(self, connection: sqlite3.Connection, token: RefreshToken, granted: Granted) -> tuple[None, Ended]:
        (count,) = connection.execute("SELECT count(*) FROM families").fetchone()
        if count >= self._room.most:
            raise full()
        family = begun(granted, token, time.time(), self._bounds)
        connection.execute("INSERT INTO families VALUES (?, ?, ?)", (token.family, family.until, _encode(family)))
        too_many = connection.execute(_TOO_MANY, (granted.subject, token.family, self._room.per_subject - 1)).fetchall()
        return None, _delete(connection, [other for (other,) in too_many])

    def _use(
        self, connection: sqlite3.Connection, token: RefreshToken, following: RefreshToken
    ) -> tuple[Granted | None, Ended]:
        found = connection.execute("SELECT state FROM families WHERE family = ?", (token.family,)).fetchone()
        if found is None:
            return None, ()
        family, now = _decode(found[0]), time.time()
        if not family.takes(token.own, now):
            if now < family.until:
                logger.warning("a refresh token of '%s' was used again: all of its login ends", family.granted.subject)
            return None, _delete(connection, [token.family])
        after = used(family, token, following, now, self._bounds)
        connection.execute(
            "UPDATE families SET ends = ?, state = ? WHERE family = ?", (after.until, _encode(after), token.family)
        )
        return after.granted, ()

    def _delete_expired(self, connection: sqlite3.Connection) -> None:
        """Access tokens of a login that nobody refreshes any more are good to their end."""
        connection.execute("DELETE FROM families WHERE ends < ?", (time.time() - self._bounds.access,))


def _delete(connection: sqlite3.Connection, families: Ended) -> Ended:
    connection.executemany("DELETE FROM families WHERE family = ?", [(family,) for family in families])
    return families
