"""Instances that answer after a while each: `python -m benchmarks.services.delayed PORT:MILLISECONDS ...`"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import uvloop
from benchmarks.measure import LOAD_CORE, pinned
from tests.testbeds.processes import Program, free_port

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class _Connection(asyncio.Protocol):
    """Answers each request on it, one at a time."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._waiting = asyncio.get_running_loop().call_later(self._delay, self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._waiting is not None:
            self._waiting.cancel()

    def _answer(self) -> None:
        self._transport.write(_ANSWER)


@contextlib.contextmanager
def delayed(milliseconds: Sequence[float]) -> Iterator[list[int]]:
    """Run them on the load's core; gives their ports."""
    ports = [free_port() for _ in milliseconds]
    pairs = [f"{port}:{delay}" for port, delay in zip(ports, milliseconds, strict=True)]
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.services.delayed", *pairs]
    with Program(pinned(LOAD_CORE, command), name="instances") as program:
        for port in ports:
            program.wait_for_port(port)
        yield ports


async def _serve(pairs: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    for pair in pairs:
        port, _, delay = pair.partition(":")
        await loop.create_server(lambda delay=delay: _Connection(float(delay) / 1000), "127.0.0.1", int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1:]))
