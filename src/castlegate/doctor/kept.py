"""Files and folders of what the gateway itself keeps, and of what it proves itself or others with."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from castlegate.config.report import Report
from castlegate.doctor.findings import Finding
from castlegate.document import Document
from castlegate.issuer.keys import load_keys
from castlegate.schemes.key_file import Key, load_text, read_whole, unix_time

_LITTLE = 100 * 2**20  # bytes left, worth a note
_TOO_LITTLE = 5 * 2**20
_SOON = 14 * 86400.0  # seconds
_MOST_NAMED = 5


def files(document: Document, folder: Path) -> list[Finding]:
    """All that need no network."""
    found = [] if document.state is None else [state(folder / document.state)]
    if document.issuer is not None:
        found.append(_signing_keys(document.issuer.keys, folder))
        if document.issuer.state.file is not None:
            found.append(database("issuer state", folder / document.issuer.state.file))
    for name, scheme in document.auth.items():
        if scheme.keys is not None:
            found.append(_api_keys(f"keys of {name}", folder / scheme.keys.file))
    return found


def state(folder: Path) -> Finding:
    """The folder of quotas, or where it would be made; nothing is created."""
    check = "state"
    if folder.exists():
        return database(check, folder / "quotas.sqlite")
    above = next(each for each in folder.absolute().parents if each.exists())
    wrong = _not_writable(check, above)
    return wrong or Finding(check, "well", f"{folder} is made when the gateway starts")


def database(check: str, file: Path) -> Finding:
    """A file of SQLite, or its folder where there is none yet."""
    folder = file.parent
    if not folder.is_dir():
        return Finding(check, "wrong", f"{folder} is no folder", "name one that is, or that can be made")
    wrong = _not_writable(check, folder)
    if wrong is not None:
        return wrong
    if file.exists():
        if not os.access(file, os.R_OK | os.W_OK):
            who = f"user {os.geteuid()}"
            return Finding(check, "wrong", f"{file} cannot be read and written by {who}", f"chown it to {who}")
        wrong = _unreadable(check, file)
        if wrong is not None:
            return wrong
    free = shutil.disk_usage(folder).free
    says = f"{folder} can be written; {free // 2**20} MiB are free"
    if free < _TOO_LITTLE:
        return Finding(check, "wrong", says, "make room: what is not written is lost with the process")
    if free < _LITTLE:
        return Finding(check, "note", says, "make room")
    if file.exists() and file.stat().st_mode & 0o077:
        return Finding(check, "note", f"{file} can be used by others than its owner", f"chmod 600 {file}")
    return Finding(check, "well", says)


def _not_writable(check: str, folder: Path) -> Finding | None:
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return None
    who = f"user {os.geteuid()}"
    return Finding(check, "wrong", f"{folder} cannot be written by {who}", f"chown it to {who}, or name another folder")


def _unreadable(check: str, file: Path) -> Finding | None:
    """What is wrong with a file of SQLite; one that a gateway has locked is in use, and so is well."""
    try:
        opened = sqlite3.connect(f"file:{file.absolute()}?mode=ro", uri=True, timeout=0.0)
        try:
            opened.execute("SELECT count(*) FROM sqlite_schema")
        finally:
            opened.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return None
        return Finding(check, "wrong", f"{file} cannot be opened: {error}", "see whose file it is")
    except sqlite3.DatabaseError as error:
        return Finding(check, "wrong", f"{file}: {error}", "it is another's file, or broken: move it away")
    return None


def _signing_keys(names: list[str], folder: Path) -> Finding:
    check, report = "issuer keys", Report(folder)
    keys = load_keys(names, report.place("issuer", "keys"))
    told = ", ".join(f"{key.algorithm} {key.id[:8]}" for key in keys)
    says = f"tokens are signed with {told.partition(', ')[0]}"
    if len(keys) > 1:
        says += f"; {told.partition(', ')[2]} still count"
    if report.warnings:
        return Finding(check, "note", f"{says}; {report.warnings[0].text}", "chmod 600 the files of the keys")
    return Finding(check, "well", says)


def _api_keys(check: str, file: Path) -> Finding:
    try:
        entries = read_whole(load_text(file), str(file), Report(file.parent)).by_id
    except (OSError, ValueError) as error:
        return Finding(check, "wrong", f"{file} cannot be read: {error}", "see who may read it")
    keys = {name: line.key for name, line in entries.items()}
    good = {name: key for name, key in keys.items() if key.revoked is None}
    expired = [name for name, left in _ends(good) if left <= 0]
    ending = [f"{name} on {_day(good[name])}" for name, left in _ends(good) if 0 < left < _SOON]
    says = f"{file}: {len(good) - len(expired)} of {len(keys)} keys are accepted"
    if expired or ending:
        more = [f"expired: {_some(expired)}"] if expired else []
        more += [f"about to expire: {_some(ending)}"] if ending else []
        return Finding(check, "note", f"{says}; {'; '.join(more)}", "castlegate key new, and castlegate key revoke")
    if not good:
        return Finding(check, "note", f"{says}: nobody is let in", "castlegate key new")
    return Finding(check, "well", says)


def _ends(keys: dict[str, Key]) -> Iterator[tuple[str, float]]:
    """Of those that expire, in how many seconds."""
    now = time.time()
    for name, key in keys.items():
        if key.expires is not None:
            yield name, unix_time(key.expires) - now


def _day(key: Key) -> str:
    assert key.expires is not None, "those that never expire are not asked"
    return f"{datetime.fromtimestamp(unix_time(key.expires), UTC):%Y-%m-%d}"


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
