"""Protocols that a client offers, read from hellos that OpenSSL wrote."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.wire.client_hello import offered_protocols


def hello(offered: list[str], name: str = "a.example") -> bytes:
    context = ssl.create_default_context()
    if offered:
        context.set_alpn_protocols(offered)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(message: bytes, sizes: list[int]) -> bytes:
    """The handshake message of a record, spread over records of these sizes and one for the rest."""
    content, records = message[5:], b""
    for size in [*sizes, len(content)]:
        part, content = content[:size], content[size:]
        if part:
            records += message[:3] + len(part).to_bytes(2, "big") + part
    return records


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(st.lists(names, max_size=8), st.lists(st.integers(1, 200), max_size=5))
def test_what_is_offered_is_read_however_it_is_spread(offered: list[str], sizes: list[int]) -> None:
    expected = [name.encode() for name in offered] if offered else None
    assert offered_protocols(in_records(hello(offered), sizes)) == expected


def test_what_follows_the_hello_is_not_read() -> None:
    assert offered_protocols(hello(["h2"]) + hello(["http/1.1"])) == [b"h2"]
    assert offered_protocols(hello(["h2"]) + b"\x14\x03\x03\x00\x01\x01") == [b"h2"]


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    offered_protocols(data)
    offered_protocols(b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data)
    offered_protocols(b"\x16\x03\x01" + (len(data) + 4).to_bytes(2, "big") + b"\x01\x00\x00\xff" + data)


@given(st.integers(0, 600), st.integers(0, 255))
def test_no_damage_makes_it_fail(at: int, value: int) -> None:
    damaged = bytearray(hello(["h2", "http/1.1"]))
    damaged[at % len(damaged)] = value
    offered_protocols(damaged)
    offered_protocols(damaged[:at])
