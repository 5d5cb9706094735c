"""Changes to a file of API keys: one at a time, whole or not at all, and all else in it as it stood.

Who changes it holds a lock on its folder, so that two commands at once both have their way; the gateway, which reads
the file meanwhile, sees it before or after the change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from castlegate.config.report import Report
from castlegate.schemes.api_key import hash_of, new_id, new_key
from castlegate.schemes.key_file import EMPTY, Key, KeyFile, load_text, read_whole, write_line

HEADER = """\
# API keys of castlegate, one a line: of each only the SHA-256 is here, the key itself is nowhere. `castlegate key`
# changes this file, and so may you; running gateways take a change within seconds.
"""

_PATIENCE = 10.0  # seconds that another change may take
_MODE = 0o600
_WIDEST = 0o640  # that a file may keep


class NotChanged(Exception):
    """The file is as it was; says why."""


def add(path: Path, identity: str | None, described: Key) -> tuple[str, str]:
    """A new key with what is described of it, but its hash: the key itself, and its line in the file. Raises
    `NotChanged`, `ConfigError` and `OSError`.
    """
    path = path.resolve()
    with _locked(path):
        content = load_text(path) if path.exists() else HEADER.encode()
        file = _read(path, content)
        identity = identity or new_id()
        if identity in file.by_id:
            raise NotChanged(f"the id '{identity}' is taken")
        key, line = make(identity, described)
        end = b"" if not content or content.endswith(b"\n") else b"\n"
        _write(path, content + end + line.encode() + b"\n")
        return key, line


def make(identity: str, described: Key) -> tuple[str, str]:
    """A new key and its line, for a file that somebody else keeps. Raises `ConfigError`."""
    key = new_key(identity)
    line = write_line(identity, msgspec.structs.replace(described, hash=hash_of(key.encode()), created=_today()))
    report = Report()
    read_whole(line.encode(), "what was asked for", report)
    report.raise_if_any()
    return key, line


def revoke(path: Path, identity: str) -> None:
    """Have a key refused from now on; it stays in the file. Raises `NotChanged`, `ConfigError` and `OSError`."""
    path = path.resolve()
    with _locked(path):
        content = load_text(path)
        key = _key(_read(path, content), identity)
        if key.revoked is not None:
            raise NotChanged(f"the key '{identity}' is revoked already, since {key.revoked}")
        began = rf"^({re.escape(identity)}: +)(\{{.*)$"
        revoked = msgspec.structs.replace(key, revoked=_now())

        def change(found: re.Match[str]) -> str:
            if found[0].rstrip() == write_line(identity, key):
                return write_line(identity, revoked)
            # Written by hand, with a comment perhaps.
            return f'{found[1]}{{revoked: "{revoked.revoked}", {found[2][1:]}'

        changed = re.sub(began, change, content.decode("utf-8-sig"), count=1, flags=re.MULTILINE).encode()
        if _key(_read(path, changed), identity) != revoked:
            raise NotChanged(f"the line of '{identity}' has a form of its own: write 'revoked: ...' into it by hand")
        _write(path, changed)


def read_keys(path: Path) -> KeyFile:
    """What is in it. Raises `ConfigError` and `OSError`."""
    return _read(path, load_text(path))


def _key(file: KeyFile, identity: str) -> Key:
    found = file.by_id.get(identity)
    if found is None:
        raise NotChanged(f"there is no key '{identity}'")
    return found.key


def _read(path: Path, content: bytes) -> KeyFile:
    report = Report(path.parent)
    found = read_whole(content, str(path), report) if content else EMPTY
    report.raise_if_any()
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the files of its folder, as far as `castlegate key` is concerned."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise NotChanged(f"another change in '{path.parent}' takes longer than {_PATIENCE:g} s") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """In place of what is there, in one step; for its owner's eyes, and its group's if it was so."""
    before = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _MODE if before is None else stat.S_IMODE(before.st_mode) & _WIDEST)
            if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _today() -> str:
    return _now()[:10]
