"""What a client says first, read from hellos that OpenSSL wrote."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.wire.client_hello import read_hello


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
    assert read_hello(in_records(hello(offered), sizes)) == (b"a.example", expected)


def test_what_follows_the_hello_is_not_read() -> None:
    assert read_hello(hello(["h2"]) + hello(["http/1.1"])) == (b"a.example", [b"h2"])
    assert read_hello(hello(["h2"]) + b"\x14\x03\x03\x00\x01\x01") == (b"a.example", [b"h2"])


def test_it_is_read_when_all_of_it_is_there() -> None:
    message = hello(["h2"])
    assert [read_hello(message[:end]) for end in range(len(message))] == [None] * len(message)


@pytest.mark.parametrize(
    "other", [b"G", b"\x17\x03\x03\x00\x01x", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x01\x02"]
)
def test_what_is_no_hello_is_left_to_openssl_at_once(other: bytes) -> None:
    assert read_hello(other) == (b"", None)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    read_hello(data)
    read_hello(b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data)
    read_hello(b"\x16\x03\x01" + (len(data) + 4).to_bytes(2, "big") + b"\x01\x00\x00\xff" + data)


@given(st.integers(0, 600), st.integers(0, 255))
def test_no_damage_makes_it_fail(at: int, value: int) -> None:
    damaged = bytearray(hello(["h2", "http/1.1"]))
    damaged[at % len(damaged)] = value
    read_hello(damaged)
    read_hello(damaged[:at])
