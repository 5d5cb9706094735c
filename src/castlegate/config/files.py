"""Whether files have changed since they were looked at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Signature = tuple[tuple[int, ...] | None, ...]


def signature(files: Iterable[Path]) -> Signature:
    """What differs when a file was written or replaced."""
    return tuple(_of_one(file) for file in files)


def _of_one(file: Path) -> tuple[int, ...] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev
