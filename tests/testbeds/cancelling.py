"""Callers that are cancelled at the worst moment: what they wait for is there, and they have not run yet."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from castlegate.waiting import Waiter


def cancelled_when_settled(coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Run it in a task, and cancel that between the settling of a waiter that it awaits and its own next step. Such a
    step is taken through the loop, behind what is asked at every turn here.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coroutine)

    def look() -> None:
        awaited: Any = task._fut_waiter  # type: ignore[attr-defined]
        if isinstance(awaited, Waiter) and awaited.done() and not awaited.failed():
            task.cancel()
        elif not task.done():
            loop.call_soon(look)

    loop.call_soon(look)
    return task
