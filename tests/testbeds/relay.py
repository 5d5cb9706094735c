"""A TCP relay between a client and a server that may be slow, cut, refuse or fall silent while connections stay open.

In front of a Kafka broker it must be what the broker advertises (`advertised.listeners`), or clients go round it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Self

_CHUNK = 65_536


class Relay:
    """Listens on `port`; `target` may be told later. Runs in a thread of its own."""

    def __init__(self, target: int | None = None) -> None:
        self.target = target
        self.port = 0
        self.accepts = True  # else a new connection is closed at once
        self.delay_s = 0.0  # of each chunk, both ways
        self.connections = 0  # ever accepted
        self.heard: bytearray | None = None  # while it is set: what clients send is kept in it
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        self._ready.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._end)
        self._thread.join(5)

    def cut(self) -> None:
        """Reset every connection."""
        self._in_loop(lambda: [writer.transport.abort() for writer in list(self._open)])

    def silence(self) -> None:
        """Pass nothing on from now on, and keep connections open: a half-open network."""
        self._in_loop(self._flow.clear)

    def resume(self) -> None:
        """Pass on again, what has waited first."""
        self._in_loop(self._flow.set)

    def _in_loop(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._flow = asyncio.Event()
        self._flow.set()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self) -> None:
        self._ended.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if self.accepts and self.target is not None:
                await self._relay(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the relay
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        self._open |= {writer, far_writer}
        ways = [
            asyncio.ensure_future(self._pass(reader, far_writer, heard=True)),
            asyncio.ensure_future(self._pass(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()
            self._open -= {writer, far_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, heard: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if heard and self.heard is not None:
                    self.heard += data
                await self._flow.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
