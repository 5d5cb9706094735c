"""What supervisor and workers tell one another, over a pair of sockets: a line of JSON for each message.

    supervisor ──Prepare──▶ worker ──Prepared or Refused──▶ supervisor ──Switch──▶ worker ──Switched──▶
The first configuration comes in the same way as every later one. The end of the line is the end of the other process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec

from castlegate.rules.instances import Out
from castlegate.telemetry.metrics import Announcement
from castlegate.upstreams.http.roster import Roster

_LONGEST = 64 * 1024 * 1024  # bytes of a message; a configuration is bounded well below


class Prepare(msgspec.Struct, tag=True):
    """Make a generation of this configuration, and keep it. It was read and checked by the supervisor, once for all."""

    version: int
    document: bytes  # a `Document` in MessagePack
    rosters: dict[str, Roster]  # of its services


class Switch(msgspec.Struct, tag=True):
    """Serve the generation that was prepared."""

    version: int


class Discard(msgspec.Struct, tag=True):
    """Drop what was prepared, if anything was."""


class Drain(msgspec.Struct, tag=True):
    """Tell clients to close; `stop`: accept no more, finish what is in flight and end."""

    stop: bool


class Follow(msgspec.Struct, tag=True):
    """This is known of a service's instances from now on."""

    service: str
    roster: Roster


class Refresh(msgspec.Struct, tag=True):
    """Bring gauges and announcements up to date, and say so."""

    number: int


class Refreshed(msgspec.Struct, tag=True):
    """They are, and every order before that is followed."""

    number: int


class Prepared(msgspec.Struct, tag=True):
    """All of it could be made."""

    version: int


class Refused(msgspec.Struct, tag=True):
    """It could not; nothing has changed."""

    version: int
    reason: str


class Switched(msgspec.Struct, tag=True):
    """It is served from now on."""

    version: int


class State(msgspec.Struct, tag=True, frozen=True):
    """Whether requests should be sent to this worker; `reason` says what is amiss, also while ready but degraded."""

    ready: bool
    reason: str = ""


class Outs(msgspec.Struct, tag=True, frozen=True):
    """All instances that this worker has taken out itself: by service and name, who says so, and why."""

    services: dict[str, dict[str, dict[str, Out]]]


class Metrics(msgspec.Struct, tag=True):
    """Children that were made."""

    announced: list[Announcement]


Order = Prepare | Switch | Discard | Drain | Follow | Refresh
Word = Prepared | Refused | Switched | Refreshed | State | Outs | Metrics


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = msgspec.json.Decoder(incoming).decode
        self._encode = msgspec.json.Encoder().encode

    @classmethod
    async def open(cls, end: socket.socket, incoming: Any) -> Channel:
        """Over a connected socket; `incoming` is the union of messages that the other end sends."""
        reader, writer = await asyncio.open_connection(sock=end, limit=_LONGEST)
        return cls(reader, writer, incoming)

    def tell(self, message: Order | Word) -> None:
        """Send it; nothing if the other end has gone."""
        if not self._writer.is_closing():
            self._writer.write(self._encode(message) + b"\n")

    async def receive(self) -> Any:
        """The next message; None when the other end has gone."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        return self._decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """After what was told has left."""
        self._writer.close()
