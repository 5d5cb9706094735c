"""What operators say about a service that speaks HTTP."""

from __future__ import annotations

import msgspec

from castlegate.config.units import Seconds, Size


class HttpPool(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Connections to each instance."""

    connections: int = 128
    """At most so many to one instance."""
    waiting: int = 1024
    """Requests that may wait for a connection; one more is answered 503."""
    idle: Seconds = 60.0
    """An unused connection is closed after this."""
    connect_timeout: Seconds = 1.0
    """For the connection to be made."""
    header_size: Size = 64 * 1024
    """Bytes of an answer's head; more is a bad answer (502)."""
    headers: int = 200
    """Fields in an answer's head; more is a bad answer (502)."""
    read_timeout: Seconds = 30.0
    """Between two reads of an answer's body; then it is cut."""


class HttpService(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service behind HTTP/1.1. A list of URLs stands for `instances` alone."""

    instances: list[str]
    """`http://host:port` of each instance; requests go round them in turn."""
    host: str | None = None
    """The `Host` sent to it; else the instance's own `host:port`."""
    pool: HttpPool = HttpPool()
    """Bounds on connections and waits."""
