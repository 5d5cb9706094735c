"""A request as handlers see it, and what they may answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from castlegate_broker.codec import Message


@dataclass(frozen=True, slots=True)
class Peer:
    """The two ends of a client's connection."""

    host: str
    """Where the client is."""
    reached_at: tuple[str, int]
    """The address of ours that it connected to."""


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded request."""

    version: int
    client_id: str
    peer: Peer
    body: Message


# A future is answered when it is done and cancelled when its client has gone; None is no answer at all.
Answer = Message | asyncio.Future[Message] | None
Handler = Callable[[Request], Answer]
