"""Small writes of one turn of the loop, made one after the other at its end.

Whoever reads at the other end is woken by a write only if it sleeps, and a wake-up costs more than the write itself
(on a virtual machine 10 us of our own time). Between writes that are apart it goes to sleep again; in a burst it is
woken once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger("castlegate.edge")


class Holder(Protocol):
    """A connection that holds bytes back for a burst."""

    def write_held(self) -> None:
        """Write them, if they are still there."""


class Burst:
    """Those who hold something."""

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        self._holders: list[Holder] = []

    def join(self, holder: Holder) -> None:
        """Have it write at the end of this turn."""
        holders = self._holders
        if not holders:
            asyncio.get_running_loop().call_soon(self._write)
        holders.append(holder)

    def _write(self) -> None:
        holders, self._holders = self._holders, []
        for holder in holders:
            try:
                holder.write_held()
            except Exception:
                logger.exception("what was held back could not be written")  # the others' still must be
