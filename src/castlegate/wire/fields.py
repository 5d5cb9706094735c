"""Header fields as bytes on the wire: which belong to one connection only, and how a head is written."""

from __future__ import annotations

from http import HTTPStatus

from castlegate.message import Pairs

# Fields of one hop (RFC 9110 §7.6.1): read by the connection that they came over, never passed on.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)

STATUS_LINES = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode() if status in set(HTTPStatus) else b"")
    for status in range(100, 1000)
}


def encode_fields(pairs: Pairs) -> bytes:
    """`name: value` lines, each ended by CRLF."""
    return b"\r\n".join(map(b": ".join, pairs)) + b"\r\n" if pairs else b""


def without_named(pairs: Pairs, connection: bytes) -> Pairs:
    """`pairs` without the fields that the `Connection` field names as being of this hop only."""
    named = {name.strip().lower() for name in connection.split(b",")} - {b"close", b"keep-alive", b""}
    return [pair for pair in pairs if pair[0] not in named] if named else pairs


def encode_chunk(chunk: bytes) -> bytes:
    """One chunk of the chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


LAST_CHUNK = b"0\r\n\r\n"
