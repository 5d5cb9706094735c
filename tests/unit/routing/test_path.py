"""Paths get one spelling, and nothing that a server behind could read as another path gets through."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.errors import Kinds, RequestRefused
from castlegate.routing.path import normalise

PIECES = [
    *rb"a b / // . .. ; %2e %2E %2f %2F %25 %3b %5c \ %00 %41 %7e %c3%a9 %ff %c0%ae | [ % %4 # ? x=1 * @".split(),
    b" ",
    b"\x80",
]
paths = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"/", b"/"),
        (b"/orders/123", b"/orders/123"),
        (b"/a/b/", b"/a/b/"),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"/...", b"/..."),
        (b"/a/../admin", b"/admin"),
        (b"/a/%2e%2E/admin", b"/admin"),
        (b"/a/./b/.", b"/a/b/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/..", b"/"),
        (b"//admin///x", b"/admin/x"),
        (b"/%7Euser/%41", b"/~user/A"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/%c3%a9", b"/%C3%A9"),
        (b"/a|b/[c]", b"/a%7Cb/%5Bc%5D"),
        (b"/a;v=1/b", b"/a;v=1/b"),
        (b"/a%3Bb", b"/a%3Bb"),
        (b"/100%25/a%252Fb", b"/100%25/a%252Fb"),
        (b"/caf%C3%A9/%E2%82%AC", b"/caf%C3%A9/%E2%82%AC"),
    ],
)
def test_a_path_gets_its_canonical_form(raw: bytes, canonical: bytes) -> None:
    assert normalise(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"*", b"a/b", b"http://x/", b"/..", b"/../x", b"/a/../../x", b"/%2e%2e/x", b"/a%00", b"/a\x00b",
        b"/a%0d%0aX: y", b"/a\tb", b"/a b", b"/%", b"/%4", b"/%zz", b"/a\\b", b"/a%5Cb", b"/..%5cadmin", b"/a#b",
        b"/a?b", b"/\xc3\xa9", b"/%ff", b"/%c0%ae%c0%ae/x", b"/a/..;/admin", b"/..;x/admin", b"/a/.;/b",
        b"/;x/admin", b"/a/;", b"/..%2Fadmin", b"/a%2f..%2fadmin", b"/a%2F..", b"/a%2F.;v/b", b"/..%3Bx/admin",
        b"/%7f", b"/%252e%252e/x", b"/..%252Fx", b"/a/%252E/b", b"/%25252e%25252e/x",
    ],
)  # fmt: skip
def test_a_path_that_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused) as raised:
        normalise(raw)
    assert raised.value.kind is Kinds.BAD_PATH
    assert raised.value.status == 400


@given(paths | st.binary(max_size=30).map(lambda tail: b"/" + tail))
def test_what_comes_out_has_nothing_left_to_normalise(raw: bytes) -> None:
    try:
        path = normalise(raw)
    except RequestRefused:
        return
    assert normalise(path) == path
    assert path.startswith(b"/")
    assert b"//" not in path
    for segment in path.split(b"/"):
        for piece in unquote_to_bytes(segment).split(b"/"):
            assert piece.partition(b";")[0] not in (b".", b"..")
    decoded = unquote_to_bytes(path)
    assert b"\\" not in decoded
    assert not any(byte < 0x20 or byte == 0x7F for byte in decoded)
    decoded.decode()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_segments_that_hold_no_slash_and_no_dots_keep_their_meaning(segments: list[str]) -> None:
    encoded = [b"".join(b"%%%02x" % byte for byte in segment.encode("utf-8", "replace")) for segment in segments]
    try:
        path = normalise(b"/" + b"/".join(encoded))
    except RequestRefused:
        assert any(set(segment) & {".", "\\", "\x7f"} or min(segment) < " " for segment in segments)
        return
    if not any(set(segment) & {".", "/"} for segment in segments):
        assert [unquote_to_bytes(each) for each in path[1:].split(b"/")] == [unquote_to_bytes(each) for each in encoded]
