"""One line of JSON for each request, written off the loop.

Lines are encoded where the request ends and handed to a thread that writes them ten times a second. When the reader of
the log stalls, what exceeds the buffer is dropped and counted, and no request waits for it.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote_plus

import msgspec

from castlegate.telemetry.metrics import Counter

LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
LOG_MODE = 0o640  # it holds addresses and paths: not for everyone
_NAMES = re.compile(r"[\[\].]+")  # `user[token]` and `user.token` name a token too
MAX_BUFFERED = 64 * 1024  # lines waiting to be written
_PERIOD = 0.1  # seconds between two writes


class Line(msgspec.Struct):
    """What is logged of a request."""

    time: str
    id: str
    trace: str
    client: str
    method: str
    host: str
    path: str
    query: str
    route: str
    status: int
    error: str
    outcome: str
    bytes_in: int
    bytes_out: int
    ms: float
    agent: str


class AccessLog:
    """Where lines go: standard output or a file."""

    def __init__(self, path: str, redact: list[str], dropped: Counter) -> None:
        self._fd = sys.stdout.fileno() if path == "stdout" else os.open(Path(path), LOG_FLAGS, LOG_MODE)
        self._secret = frozenset(name.lower() for name in redact)
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._dropped = dropped
        self._stopped = threading.Event()
        self._second = 0
        self._stamp = ""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def now(self) -> str:
        """The time of day in UTC, to the millisecond."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03d}Z"

    def redacted(self, query: bytes) -> str:
        """A query with the values of sensitive names replaced."""
        if not query:
            return ""
        pairs = []
        for pair in query.decode("latin-1").split("&"):
            name, equals, value = pair.partition("=")
            secret = equals and not self._secret.isdisjoint(_NAMES.split(unquote_plus(name).lower()))
            pairs.append(f"{name}=[redacted]" if secret else f"{name}{equals}{value}")
        return "&".join(pairs)

    def write(self, line: Line) -> None:
        """Log it soon."""
        lines = self._lines
        if len(lines) >= MAX_BUFFERED:
            self._dropped.value += 1
        else:
            lines.append(self._encode(line))

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
                self._write(b"\n".join(lines) + b"\n")
            if last:
                return

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self._dropped.value += data.count(b"\n")
