"""What has ended, for the other workers of the instance: a ring in a small file that all of them have mapped.

To look at it costs a read of memory. It only tells of changes: what is true stands elsewhere, where it was written
before it is told here, and whoever has missed more than the ring holds, or begins, asks there.

Layout: how many were ever told, in eight bytes; then the places of the ring, of the names that were told last.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_PLACES = 1024
_PLACE = 48  # bytes; a name is the SHA-256 of a secret in base64url, 43 characters
_FIRST = 8
_SIZE = _FIRST + _PLACES * _PLACE


class Board:
    """As one worker sees it."""

    def __init__(self, path: Path) -> None:
        """Made where it is missing. Raises `OSError`."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._allocate()
            self._memory = mmap.mmap(self._descriptor, _SIZE)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._words = memoryview(self._memory)[:_FIRST].cast("Q")

    @property
    def count(self) -> int:
        """How many were ever told."""
        return self._words[0]

    def tell(self, names: Sequence[str]) -> None:
        """These have ended, and that is written. Raises `OSError`."""
        with self._alone():
            for name in names:
                start = _start(self.count)
                self._memory[start : start + _PLACE] = name.encode().ljust(_PLACE)
                self._words[0] += 1

    def since(self, count: int) -> list[str] | None:
        """What was told after the first `count`; None where that is more than is here."""
        before = self.count
        if not 0 <= before - count < _PLACES:
            return None
        places = [_start(number) for number in range(count, before)]
        names = [self._memory[start : start + _PLACE].rstrip().decode("ascii", "replace") for start in places]
        # What was written meanwhile may have taken the places of what was read.
        return names if self.count - count < _PLACES else None

    def close(self) -> None:
        """No more."""
        self._words.release()
        self._memory.close()
        os.close(self._descriptor)

    def _allocate(self) -> None:
        """Written, not only made longer: memory could not tell of a full disk."""
        with self._alone():
            there = os.fstat(self._descriptor).st_size
            if there < _SIZE:
                os.pwrite(self._descriptor, bytes(_SIZE - there), there)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _start(number: int) -> int:
    return _FIRST + number % _PLACES * _PLACE
