"""What operators say about the listener."""

from __future__ import annotations

import contextlib
import re
from ipaddress import ip_interface, ip_network
from typing import ClassVar

import msgspec

from castlegate.config.addresses import parse_address
from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, Size
from castlegate.edge.tls import EdgeTls

_PSEUDONYM = re.compile(r"[A-Za-z0-9._-]+")


class EdgeLimits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How much one client may send, and how many may be there."""

    connections: Count = 10_000
    """Client connections at once. One more is answered 503 and closed."""
    headers: Count = 100
    """Fields in a request's head, and in the trailers of its body. More are answered 431."""
    header_size: Size = 32 * 1024
    """Bytes of a request's head. More are answered 431."""
    uri: Size = 8 * 1024
    """Bytes of the request target. More are answered 414."""
    pipelined: Count = 32
    """Requests that may wait on one connection behind the one being answered; then no more is read from it."""
    collected: Size = 256 * 1024 * 1024
    """Bytes of request bodies that may be held in memory at once: of those for services behind Kafka, those that
    references look into, and small ones. What exceeds it is answered 503."""


class EdgeTimeouts(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long a client may take."""

    header: Seconds = 10.0
    """From a request's first byte to the end of its head; then 408 and the connection is closed."""
    body: Seconds = 30.0
    """Between two reads of a request's body; then 408 and the connection is closed."""
    idle: Seconds = 75.0
    """Between two requests on a connection; then it is closed."""
    write: Seconds = 30.0
    """How long a client may take nothing of its response before the connection is cut."""


class Listen(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where clients connect, and what they may do. A plain `host:port` stands for `address` alone."""

    short: ClassVar[str] = "address"

    address: str = "127.0.0.1:8080"
    """`host:port`; `[::1]:8080` for IPv6. Port 0 takes a free one and prints it."""
    name: str = "castlegate"
    """How the gateway names itself in `Via` and `Forwarded`."""
    trusted_proxies: list[str] = []
    """Networks (CIDR) whose `Forwarded` and `X-Forwarded-*` are believed and continued; others' are dropped."""
    tls: EdgeTls | None = None
    """Speak TLS, and nothing else, on this address."""
    limits: EdgeLimits = EdgeLimits()
    """Bounds on what clients send."""
    timeouts: EdgeTimeouts = EdgeTimeouts()
    """Bounds on how long they take."""

    def check(self, at: Place) -> None:
        """The address, the name and the networks."""
        try:
            parse_address(self.address)
        except ValueError as error:
            at.field("address").refuse(self.address, error)
        if not _PSEUDONYM.fullmatch(self.name):
            place = at.field("name")
            place.mistake(f"expected letters, digits, '.', '_' and '-', found {place.shown(self.name)}")
        for index, network in enumerate(self.trusted_proxies):
            _check_network(network, at.field("trusted_proxies", index))


def _check_network(network: str, at: Place) -> None:
    try:
        ip_network(network)
    except ValueError:
        expected = "expected a network such as 10.0.0.0/8, or an address"
        with contextlib.suppress(ValueError):
            expected = f"expected a network, this is an address inside of one; write {ip_interface(network).network}"
        at.refuse(network, ValueError(expected))
