"""What a route says of its endpoint and of its bounds."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from castlegate.config.units import Seconds, Size, SizeOrZero

DEFAULT_TIMEOUT = 10.0  # seconds
DEFAULT_BODY = 10 * 1024 * 1024  # bytes
DEFAULT_BUFFER = 64 * 1024  # bytes

_RATE = re.compile(r"[0-9]+\s*/\s*[0-9]*[a-z]+")


class PublishSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An event put on a topic; answered 202 once the broker has acknowledged it."""

    publish: str | None = None
    """The topic."""


class RouteLimits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Bounds of one route; each that a route does not say is that of `defaults`."""

    merges: ClassVar[bool] = True

    body: Size | None = None
    """Bytes of a request's body; more are answered 413. 10 MiB if nothing is said."""
    buffer: SizeOrZero | None = None
    """A body announced as no larger than this is collected before the service is asked, so that a client which sends
    slowly holds no connection to it; others are passed on as they arrive. 64 KiB if nothing is said."""

    @staticmethod
    def meant(texts: list[str]) -> str:
        """What is said under a similar name."""
        return f"write 'limit: {texts[0]}'" if len(texts) == 1 and _RATE.fullmatch(texts[0]) else ""

    @property
    def largest_body(self) -> int:
        """Bytes."""
        return DEFAULT_BODY if self.body is None else self.body

    @property
    def largest_buffered(self) -> int:
        """Bytes."""
        return DEFAULT_BUFFER if self.buffer is None else self.buffer


class RouteBounds(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long a request may take and how large it may be."""

    timeout: Seconds | None = None
    """From the request's last byte to the head of the answer; 10 s if nothing is said."""
    limits: RouteLimits | None = None
    """Bounds on the request."""
