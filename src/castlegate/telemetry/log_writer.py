"""A thread that writes lines to a file or to standard output, ten times a second.

When the reader of a pipe or the disk stalls, what exceeds the buffer is dropped and counted, and nobody waits for it.
The file is opened anew, so that it can be rotated, by the thread itself: one that is stalled then stays the only one,
however often it is told to.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from castlegate.telemetry.metrics import Counter

logger = logging.getLogger("castlegate.log")

# Without waiting for whoever reads: a FIFO that nobody reads is a mistake, not a reason to hang.
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
LOG_MODE = 0o640  # it holds addresses and paths: not for everyone
MAX_BUFFERED = 64 * 1024  # lines waiting to be written
_PERIOD = 0.1  # seconds between two writes
_LAST = 2.0  # seconds that the last lines may take


class LogWriter:
    """Of one path. Whoever writes appends whole lines to `lines`, up to `MAX_BUFFERED` of them."""

    def __init__(self, path: str, dropped: Counter) -> None:
        """Raises `OSError`."""
        self.path = path
        self.lines: list[bytes] = []
        self.dropped = dropped
        self._fd, self._shared = _open(path)
        self._stale = False  # it is to be opened anew
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Write to what is found under the path from now on."""
        self._stale = True

    def close(self) -> None:
        """Write what waits. Blocks for a moment: not in the loop."""
        self._stopped.set()
        self._thread.join(timeout=_LAST)

    def _run(self) -> None:
        while True:
            last = self._stopped.wait(_PERIOD)
            count = len(self.lines)
            if self._stale:
                self._stale = False
                self._open_anew()
            if count:
                lines = self.lines[:count]
                del self.lines[:count]  # in place: the loop's thread goes on appending to it
                self._write(lines)
            if last:
                if self.path != "stdout":
                    os.close(self._fd)
                return

    def _open_anew(self) -> None:
        if self.path == "stdout":
            return
        try:
            opened = _open(self.path)
        except OSError as error:
            logger.error("the log %s cannot be opened anew and is written on as it was: %s", self.path, error.strerror)
            return
        os.close(self._fd)
        self._fd, self._shared = opened

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
            self.dropped.value += len(lines)


def _open(path: str) -> tuple[int, bool]:
    """The descriptor, and whether others may be writing to the same pipe."""
    fd = sys.stdout.fileno() if path == "stdout" else os.open(Path(path), LOG_FLAGS, LOG_MODE)
    os.set_blocking(fd, True)  # for the thread that writes
    return fd, not stat.S_ISREG(os.fstat(fd).st_mode)


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
