"""One spelling for every path: what is matched, checked and forwarded is the same bytes.

Servers disagree on what `/a/..;/b`, `%2e%2e`, `//` or `\\` mean. Whatever one behind could take for another path than
the one that was matched is refused; the rest gets its canonical form (RFC 3986 §6.2.2): unreserved characters decoded,
other escapes with upper-case hex, no empty and no dot segments. An encoded slash stays one, inside its segment.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from castlegate.errors import Kinds, RequestRefused

# Nearly every path: canonical as it is, no segment begins with a dot, no escapes and no parameters.
_is_plain = re.compile(
    rb"/|(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*+)++/?+",
).fullmatch

_UNACCEPTABLE = re.compile(rb"[\x00-\x20\x7f-\xff\\#?]|%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|7[Ff]|5[Cc])")
_TO_ENCODE = re.compile(rb'["<>\[\]^`{|}]')
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_WAY_UP = re.compile(rb"(?:^|/)\.{1,2}(?:;[^/]*)?(?:$|/)")


def normalise(raw: bytes) -> bytes:
    """The canonical form of an absolute path; raises `RequestRefused` (400)."""
    if _is_plain(raw):
        return raw
    if raw[:1] != b"/":
        raise _refused("The path does not begin with '/'.")
    if _UNACCEPTABLE.search(raw):
        raise _refused("The path holds a character or an escape that is not acceptable.")
    path = _ESCAPE.sub(_canonical_escape, _TO_ENCODE.sub(_encode, raw))
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise _refused("The path is not UTF-8.") from error
    return _without_dots(path)


def _without_dots(path: bytes) -> bytes:
    """Dot segments resolved (RFC 3986 §5.2.4) and empty ones dropped; what only looks like either is refused."""
    segments: list[bytes] = []
    given = path.split(b"/")[1:]
    for segment in given:
        if segment == b"..":
            if not segments:
                raise _refused("The path leads above the root.")
            segments.pop()
        elif segment not in (b"", b"."):
            if b";" in segment or b"%" in segment:
                _refuse_disguise(segment)
            segments.append(segment)
    if given[-1] in (b"", b".", b".."):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def _refuse_disguise(segment: bytes) -> None:
    # Tomcat cuts `;parameters` off before it resolves dots, and skips what is empty then.
    if segment[:1] == b";":
        raise _refused("The path has a segment of parameters alone.")
    plain = unquote_to_bytes(segment)
    # Some decode twice (CVE-2021-42013).
    if _WAY_UP.search(plain) or (b"%" in plain and _WAY_UP.search(unquote_to_bytes(unquote_to_bytes(plain)))):
        raise _refused("The path hides dot segments.")


def _canonical_escape(match: re.Match[bytes]) -> bytes:
    byte = int(match[0][1:], 16)
    character = bytes((byte,))
    return character if character.isalnum() or character in b"-._~" else b"%%%02X" % byte


def _encode(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _refused(detail: str) -> RequestRefused:
    return RequestRefused(Kinds.BAD_PATH, detail)
