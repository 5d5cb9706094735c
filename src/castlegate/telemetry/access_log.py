"""One line of JSON for each request, written off the loop.

Lines are encoded where the request ends and handed to a thread that writes them ten times a second. When the reader of
the log stalls, what exceeds the buffer is dropped and counted, and no request waits for it.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote_plus

import msgspec

from castlegate.telemetry.metrics import Counter

# Without waiting for whoever reads: a FIFO that nobody reads is a mistake, not a reason to hang.
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
LOG_MODE = 0o640  # it holds addresses and paths: not for everyone
_NAMES = re.compile(r"[\[\].]+")  # `user[token]` and `user.token` name a token too
MAX_BUFFERED = 64 * 1024  # lines waiting to be written
_PERIOD = 0.1  # seconds between two writes


# One template instead of an encoder: half of it never needs escaping.
_LINE = (
    b'{"time":"%b.%03dZ","id":"%b","trace":"%b","client":"%b","method":"%b","host":"%b","path":%b,"query":%b,'
    b'"route":%b,"status":%d,"error":"%b","outcome":"%b","bytes_in":%d,"bytes_out":%d,"ms":%.3f,"agent":%b}\n'
)


_nothing_to_escape = re.compile(rb"[ !#-\[\]-~]*").fullmatch


def json_text(value: bytes) -> bytes:
    """A JSON string of ISO-8859-1."""
    if _nothing_to_escape(value):
        return b'"%b"' % value
    return msgspec.json.encode(value.decode("latin-1"))


class AccessLog:
    """Where lines go: standard output or a file."""

    @classmethod
    def open(cls, path: str, redact: list[str], dropped: Counter) -> AccessLog | None:
        """The log that the configuration names, if it names one."""
        return None if path == "off" else cls(path, redact, dropped)

    def __init__(self, path: str, redact: list[str], dropped: Counter) -> None:
        self._path = path
        self._fd = sys.stdout.fileno() if path == "stdout" else os.open(Path(path), LOG_FLAGS, LOG_MODE)
        os.set_blocking(self._fd, True)  # for the thread that writes
        self._shared = not stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._secret = frozenset(name.lower() for name in redact)
        self._is_secret = lru_cache(1024)(self._names_a_secret)  # bounded with them: names are part of a bounded target
        self._lines: list[bytes] = []
        self._dropped = dropped
        self._stopped = threading.Event()
        self._second = 0
        self._stamp = b""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(
        self,
        id: bytes,  # noqa: A002 - the member's name
        trace: bytes,
        client: bytes,
        method: bytes,
        host: bytes,
        path: bytes,
        query: bytes,
        route: bytes,
        status: int,
        error: bytes,
        outcome: bytes,
        bytes_in: int,
        bytes_out: int,
        seconds: float,
        agent: bytes,
    ) -> None:
        """Log a request soon. `route` and `agent` are JSON already; of the others only path and query may need it."""
        lines = self._lines
        if len(lines) >= MAX_BUFFERED:
            self._dropped.value += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        lines.append(_LINE % (
            self._stamp, int((now - second) * 1000), id, trace, client, method, host, json_text(path),
            self._redacted(query) if query else b'""', route, status, error, outcome,
            bytes_in, bytes_out, seconds * 1000, agent,
        ))  # fmt: skip

    def _redacted(self, query: bytes) -> bytes:
        """A query as JSON, with the values of sensitive names replaced."""
        pairs = query.split(b"&")
        for index, pair in enumerate(pairs):
            name, equals, _ = pair.partition(b"=")
            if equals and self._is_secret(name):
                pairs[index] = name + b"=[redacted]"
        return json_text(b"&".join(pairs))

    def _names_a_secret(self, name: bytes) -> bool:
        return not self._secret.isdisjoint(_NAMES.split(unquote_plus(name.decode("latin-1")).lower()))

    def close(self) -> None:
        """Write what waits."""
        self._stopped.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while True:
            last = self._stopped.wait(_PERIOD)
            count = len(self._lines)
            if count:
                lines = self._lines[:count]
                del self._lines[:count]  # in place: the loop's thread goes on appending to it
                self._write(lines)
            if last:
                if self._path != "stdout":
                    os.close(self._fd)
                return

    def _write(self, lines: list[bytes]) -> None:
        try:
            if self._shared:
                for piece in _pieces(lines):
                    os.write(self._fd, piece)
                return
            data = b"".join(lines)
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self._dropped.value += len(lines)


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Whole lines in pieces that a pipe takes at once: what several workers write must not be mixed up inside of one
    (POSIX, write: up to PIPE_BUF bytes).
    """
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > select.PIPE_BUF and piece:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield b"".join(piece)
