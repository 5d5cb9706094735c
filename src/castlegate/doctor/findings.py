"""What the doctor finds, and how it reaches things: every wait is bounded, and a name that hangs holds nobody up."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")

Verdict = Literal["well", "note", "wrong", "skipped"]


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    check: str
    """What was looked at."""
    verdict: Verdict
    """`note` is worth knowing and keeps nothing from working; `skipped` could not be told because of something else."""
    says: str
    advice: str = ""
    """What to do about it."""


class Unreachable(Exception):
    """Nobody can be spoken to there; says why and what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


async def in_thread(function: Callable[[], T], within: float) -> T:
    """The result of something that blocks. Raises `TimeoutError`; the thread is left behind then and ends with us."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # it is what `function` returned

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            if not loop.is_closed():
                raise

    threading.Thread(target=run, name="castlegate-doctor", daemon=True).start()
    return await asyncio.wait_for(done, within)


async def connect(host: str, port: int, within: float) -> str:
    """Open and close a connection; returns the address that took it. Raises `Unreachable`."""
    try:
        found = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), within)
    except TimeoutError:
        raise Unreachable(
            f"the name '{host}' was not resolved within {within:g} s", "see whether the DNS server answers"
        ) from None
    except OSError as error:
        raise Unreachable(
            f"the name '{host}' is not known ({error.strerror})",
            "correct the name, or see whether it is in DNS (or in /etc/hosts) of this machine",
        ) from error
    reasons: dict[str, None] = {}
    for family, _, _, _, address in found:
        reason = await _try(family, address, within)
        if reason is None:
            return str(address[0])
        reasons[f"{address[0]}: {reason}"] = None
    says = "; ".join(reasons)
    if "refused" in says:
        raise Unreachable(says, f"nothing listens on port {port} there: start it, or correct the port")
    raise Unreachable(says, "see whether the machine is up, and whether a firewall or network policy is in between")


async def _try(family: int, address: tuple[Any, ...], within: float) -> str | None:
    """Why no connection came about."""
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setblocking(False)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(tried, address), within)
        except TimeoutError:
            return f"no answer within {within:g} s"
        except OSError as error:
            return os.strerror(error.errno).lower() if error.errno else str(error)
    return None
