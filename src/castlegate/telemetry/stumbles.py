"""Unforeseen errors of chores that go on for as long as the program runs: one must not end them, nor go unseen.

Each kind is logged with its traceback when it is first met, and then at most once a minute: a chore that fails does so
at every turn. A kind is a type of error and the line that raised it.
"""

from __future__ import annotations

import logging
import time
from traceback import extract_tb

_EVERY = 60.0  # seconds between two reports of a kind
_MOST = 100  # kinds that are remembered


class Stumbles:
    """Of one chore. Used by the one thread that does it."""

    def __init__(self, logger: logging.Logger, chore: str) -> None:
        """`chore`: what fails, in words such as `watching the file`."""
        self._logger = logger
        self._chore = chore
        self._told: dict[tuple[object, ...], tuple[float, int]] = {}  # kind → when it was logged, how many since

    def tell(self, error: Exception) -> None:
        """The chore has met it and goes on."""
        frames = extract_tb(error.__traceback__)
        kind = (type(error), *frames[-1][:2]) if frames else (type(error),)
        now = time.monotonic()
        at, more = self._told.get(kind, (-_EVERY, 0))
        if now - at < _EVERY:
            self._told[kind] = at, more + 1
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[kind] = now, 0
        again = f" ({more} more like it)" if more else ""
        self._logger.error("%s failed and goes on%s", self._chore, again, exc_info=error)
