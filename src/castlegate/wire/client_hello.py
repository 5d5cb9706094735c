"""What a TLS client offers in its first message and the `ssl` module does not tell: protocols (ALPN, RFC 7301).

Reads bytes that OpenSSL has accepted already, so it needs no opinion on what is malformed; it never raises.
"""

from __future__ import annotations

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_ALPN = 16


def offered_protocols(received: bytes | bytearray) -> list[bytes] | None:
    """The protocols that the client offers; None if it does not say. `received`: its bytes from the first on."""
    hello = _message(received)
    if hello[:1] != bytes((_CLIENT_HELLO,)):
        return None
    at = 4 + 2 + 32  # type and length, version, random (RFC 8446 §4.1.2)
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        at += size + _number(hello, at, size)
    end = at + 2 + _number(hello, at, 2)
    at += 2
    while at < min(end, len(hello)):
        kind, length = _number(hello, at, 2), _number(hello, at + 2, 2)
        if kind == _ALPN:
            return _names(hello[at + 6 : at + 4 + length])
        at += 4 + length
    return None


def _message(received: bytes | bytearray) -> bytes:
    """The first handshake message, which may be spread over records."""
    fragments, at = bytearray(), 0
    while at + 5 <= len(received) and received[at] == _HANDSHAKE:
        length = _number(received, at + 3, 2)
        fragments += received[at + 5 : at + 5 + length]
        at += 5 + length
    return bytes(fragments[: 4 + _number(fragments, 1, 3)])


def _names(listed: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(listed):
        names.append(listed[at + 1 : at + 1 + listed[at]])
        at += 1 + listed[at]
    return names


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
