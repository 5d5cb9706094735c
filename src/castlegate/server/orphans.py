"""What the first process of a container owes the others there: to wait for those whose parent has ended.

They become its children, and once they have ended they stay in the table of processes until it waits for them: a probe
that leaves one behind each time would fill the table. Elsewhere init does it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Container

_LOOK = 1.0  # seconds between two looks: uvloop keeps SIGCHLD for itself


async def wait_for_orphans(own: Callable[[], Container[int]]) -> None:
    """If this is the first process, until cancelled. Those of `own` are left to who started them."""
    while sys.platform == "linux" and os.getpid() == 1:
        while (ended := _ended()) is not None and ended not in own():
            os.waitpid(ended, os.WNOHANG)  # noqa: ASYNC222 - it has ended
        await asyncio.sleep(_LOOK)


def _ended() -> int | None:
    """A child that has ended and is not waited for yet."""
    assert sys.platform == "linux"
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is no child at all
        return None
    return None if found is None else found.si_pid
