"""What is used of quotas, in a file that outlives the gateway: a mirror of the places of the table in memory.

Written by one process, in the background; a crash forgets what was used since it was last written. Rows are places, so
there are never more than the table has. Keys are hashes with a secret that is kept here too: what they stand for is not
told by the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path

from castlegate.stores.counts import Quotas

_NAME = "quotas.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS secret (value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS quotas (
    place INTEGER PRIMARY KEY, key INTEGER NOT NULL, ends INTEGER NOT NULL, used INTEGER NOT NULL
);
"""
_SECRET = 16  # bytes
_MODE = 0o600
_OTHER = "it holds something else than quotas"


class Ledger:
    """One file. Another gateway that has it open is an error: two would count over one another."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError`."""
        self.path = folder / _NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self.path)
            # Used by one thread at a time, not always the same.
            self._file = sqlite3.connect(self.path, timeout=0.0, check_same_thread=False, isolation_level=None)
        except OSError as error:
            raise OSError(error.errno, f"the state folder {folder} cannot be used: {error.strerror}") from error
        except sqlite3.Error as error:
            raise self._refusal(error) from error
        try:
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            # What is in the log has outlived the process, if not the machine's power.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.executescript(_SCHEMA)
            self.secret = self._find_secret()
        except sqlite3.Error as error:
            self._file.close()
            raise self._refusal(error) from error

    def restore(self, quotas: Quotas) -> int:
        """Put what still counts into the table, before anybody uses it; returns how many keys. Raises `OSError`."""
        try:
            found = self._file.execute("SELECT key, ends, used FROM quotas WHERE ends > ?", (time.time(),)).fetchall()
            if not all(type(each) is int for row in found for each in row):
                raise sqlite3.DatabaseError(_OTHER)
            for key, ends, used in found:
                quotas.restore(key, ends, used)
            # Anew, since the table may have another size than the one before.
            self._write("DELETE FROM quotas", quotas.changed())
        except sqlite3.Error as error:
            raise self._refusal(error) from error
        return len(found)

    def save(self, quotas: Quotas) -> None:
        """Write what has changed. Raises `sqlite3.Error`; it is tried again the next time then."""
        rows = quotas.changed()
        if not rows:
            return
        try:
            self._write("", rows)
        except BaseException:
            quotas.mark(rows)
            raise

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def _write(self, before: str, rows: list[tuple[int, int, int, int]]) -> None:
        self._file.execute("BEGIN")
        try:
            if before:
                self._file.execute(before)
            self._file.executemany("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?, ?)", rows)
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def _find_secret(self) -> bytes:
        self._file.execute("BEGIN IMMEDIATE")
        found = self._file.execute("SELECT value FROM secret").fetchone()
        secret = secrets.token_bytes(_SECRET) if found is None else found[0]
        if not isinstance(secret, bytes) or len(secret) != _SECRET:
            raise sqlite3.DatabaseError(_OTHER)
        if found is None:
            self._file.execute("INSERT INTO secret VALUES (?)", (secret,))
        self._file.execute("COMMIT")
        return secret

    def _refusal(self, error: sqlite3.Error) -> OSError:
        reason = str(error)
        if "locked" in reason:
            reason = "another gateway has it open; each instance needs a state folder of its own"
        return OSError(f"the file {self.path} cannot be used: {reason}")


def _make_private(path: Path) -> None:
    """The file, made if it is missing, and what a crash has left beside it: SQLite gives what it adds the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _MODE))
    for each in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):
            each.chmod(_MODE)
