"""Many requests at once over keep-alive connections, each accounted for by what its client saw.

Every answer is one `Seen`: no exception and no hanging connection goes by another name than `lost`.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

LOST = "lost"  # no answer: the connection ended, or nothing came within the client's patience


class Seen(NamedTuple):
    """What a client saw of one request; times are monotonic."""

    id: str
    began: float
    ended: float
    status: int  # 0 for none
    outcome: str  # `ok`, what the problem says, or LOST
    fields: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.began


class Load:
    """A client with as many connections as it has requests open, kept for later ones. Belongs to one event loop."""

    def __init__(self, port: int, patience_s: float = 60.0) -> None:
        self._port = port
        self._patience_s = patience_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Load":
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ask(
        self, path: str, body: Any = None, *, method: str = "POST", identity: str = "-", fields: str = ""
    ) -> Seen:
        """One request; `body` is sent as JSON, bytes as they are; `fields` are further header lines."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(data)}\r\n{fields}\r\n"
        began = time.monotonic()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._patience_s):
                reader, writer = self._take_idle() or await self._connect()
                writer.write(head.encode() + data)
                status, answered, content = await _read(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            if writer is not None:
                writer.transport.abort()
            return Seen(identity, began, time.monotonic(), 0, LOST, {}, b"")
        if answered.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return Seen(identity, began, time.monotonic(), status, _outcome(status, answered, content), answered, content)

    def _take_idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One that the gateway has not closed since, having heard nothing on it for its idle timeout."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    if status == 204:
        return status, fields, b""
    return status, fields, await reader.readexactly(int(fields["content-length"]))


def _outcome(status: int, fields: Mapping[str, str], content: bytes) -> str:
    if status < 300:
        return "ok"
    if fields.get("content-type") != "application/problem+json":
        return "not a problem document"
    return str(json.loads(content).get("outcome", "no outcome"))
