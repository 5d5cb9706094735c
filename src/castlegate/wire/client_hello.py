"""What a TLS client says in its first message: the name it asks for (SNI, RFC 6066 §3), the protocols it offers (ALPN,
RFC 7301). Read before OpenSSL sees it, so that a connection begins with the right context.

What is malformed is not judged here but left to OpenSSL, which is given the same bytes; nothing here raises.
"""

from __future__ import annotations

from typing import NamedTuple

_HANDSHAKE = 22
_LARGEST_RECORD = 16 * 1024  # RFC 8446 §5.1
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16


class Hello(NamedTuple):
    """What was said."""

    host: bytes = b""  # empty if no name is asked for
    protocols: list[bytes] | None = None  # None if none are offered


_NO_HELLO = Hello()  # OpenSSL will say what it is


def read_hello(received: bytes | bytearray) -> Hello | None:
    """What the bytes of a client say, from the first on; None if more of them are needed."""
    message, at = bytearray(), 0
    while at < len(received):
        if received[at] != _HANDSHAKE:
            return _NO_HELLO
        length = _number(received, at + 3, 2)
        if length > _LARGEST_RECORD:
            return _NO_HELLO
        if at + 5 + length > len(received):
            return None
        message += received[at + 5 : at + 5 + length]
        at += 5 + length
        if message and message[0] != _CLIENT_HELLO:
            return _NO_HELLO
        size = 4 + _number(message, 1, 3)
        if 4 <= size <= len(message):
            return _read(bytes(message[:size]))
    return None


def _read(message: bytes) -> Hello:
    at = 4 + 2 + 32  # type and length, version, random (RFC 8446 §4.1.2)
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        at += size + _number(message, at, size)
    end = min(at + 2 + _number(message, at, 2), len(message))
    at += 2
    extensions: dict[int, bytes] = {}
    while at < end:
        length = _number(message, at + 2, 2)
        extensions[_number(message, at, 2)] = message[at + 4 : at + 4 + length]
        at += 4 + length
    named, offered = extensions.get(_SERVER_NAME, b""), extensions.get(_ALPN)
    # Length of the list, then its only entry: type and length of the name.
    return Hello(named[5 : 5 + _number(named, 3, 2)], None if offered is None else _names(offered[2:]))


def _names(listed: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(listed):
        names.append(listed[at + 1 : at + 1 + listed[at]])
        at += 1 + listed[at]
    return names


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
