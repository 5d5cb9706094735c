"""A request's head, from bytes to what it means; every ambiguity is refused.

llhttp judges every head; what it is lenient about is checked here: exactly one space in the request line, HTTP/1.0 and
1.1 only, lines that end in CRLF and nothing else, one Host, one Content-Length, `chunked` alone as transfer coding and
never beside a Content-Length or in HTTP/1.0 (RFC 9112 §3, §6). Bodies are framed by the connection, which is why the
parser sees heads only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import httptools

from castlegate.config.fields import ends_at_gateway, spelling
from castlegate.errors import Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.routing.template import ANY, METHODS
from castlegate.telemetry.access_log import json_text
from castlegate.wire.fields import FieldReader, Malformed, without_named

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,31}) ([!-\"$-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[A-Z-]+ [^ \r\n]+ HTTP/(?!1\.[01]\r)\d+(?:\.\d+)?\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)(/[^#]*|\?[^#]*)?")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]{1,5})?")
_LONGEST_HOST = 262  # bytes: a name of 255 (RFC 1035 §2.3.4) and a port
_LENGTH = re.compile(rb"[0-9]{1,18}")

_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))

_KNOWN_METHODS = frozenset(method.encode() for method in METHODS) - {ANY}  # what a route can be for


class Fields:
    """What the fields of a head say. Shared by the requests of a connection that repeat them."""

    __slots__ = (
        "block", "chunked", "client", "forwarded", "headers", "host", "identified", "judged_by", "keep_alive", "length",
        "log_agent", "log_client", "read", "read_by", "version",
    )  # fmt: skip

    def __init__(self, block: bytes, version: bytes, read_by: FieldReader | None = None) -> None:
        self.block = block  # as it was received, with the empty line at its end
        self.version = version  # minor
        self.read_by = read_by  # another one might not pass on the same
        self.headers = Headers()  # what is passed on
        self.read: dict[bytes, bytes] = {}  # what the edge reads itself
        self.host = b""
        self.length = 0  # announced bytes of body; 0 if chunked
        self.chunked = False
        self.keep_alive = True
        self.identified = False  # whether they bring a request id or a trace
        # Set by the connection:
        self.judged_by: object = None  # the `Forwarding` that said the following
        self.log_client = b""  # as they stand in the access log
        self.log_agent = b'""'
        self.client = ""  # address, behind trusted proxies the one they vouch for
        self.forwarded = b""  # see `message.Request`


class HeadReader:
    """Reads the heads that the connections of a listener have collected."""

    __slots__ = ("__weakref__", "_lines", "_max_fields", "_max_uri")

    def __init__(self, max_fields: int, max_uri: int, dropped: frozenset[str] = frozenset()) -> None:
        """`dropped`: see `drop`."""
        self._max_fields = max_fields
        self._max_uri = max_uri
        self._lines = FieldReader(_roles(dropped), _ONCE)

    def drop(self, dropped: frozenset[str]) -> None:
        """From now on fields of these names, by `spelling`, are not passed on, besides those that never are."""
        self._lines = FieldReader(_roles(dropped), _ONCE)

    def read(self, raw: bytes, last: Fields | None) -> tuple[bytes, bytes, Fields]:
        """Method, target and fields of the head that `raw` is, from the method to the empty line. Raises
        `RequestRefused`. `last`: the fields before it on the connection, which come back if they are repeated.
        """
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise _refuse_line(raw, self._max_uri)
        method, target, version = line.groups()
        if len(target) > self._max_uri:
            raise RequestRefused(Kinds.URI_TOO_LONG, f"The request target is longer than {self._max_uri} bytes.")
        if method not in _KNOWN_METHODS:
            raise _refuse_method(method)
        block = raw[line.end() :]
        if last is None or block != last.block or version != last.version or last.read_by is not self._lines:
            last = self._read_fields(raw, block, version)
        return method, target, last

    def _read_fields(self, raw: bytes, block: bytes, version: bytes) -> Fields:
        lines = block[:-4].split(b"\r\n") if len(block) > 4 else []
        if len(lines) > self._max_fields:
            raise RequestRefused(Kinds.HEADERS_TOO_LARGE, f"There are more than {self._max_fields} header fields.")
        _validate(raw, len(lines) + 2)
        fields = Fields(block, version, self._lines)
        passed: list[bytes] = []
        try:
            self._lines.read(lines, passed, fields.read)
        except Malformed as malformed:
            raise RequestRefused(malformed.kind, malformed.detail) from malformed
        agent = fields.read.get(b"user-agent")
        if agent is not None:  # read for the access log
            fields.log_agent = json_text(agent)
            passed.append(b"user-agent: %b\r\n" % agent)
        fields.identified = b"x-request-id" in fields.read or b"traceparent" in fields.read
        _frame(fields, passed)
        fields.host = _host(fields)
        return fields


def locate(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Host and path of a request target that is no path: absolute form, which overrides Host (RFC 9112 §3.2.2), or the
    `*` of OPTIONS, which overrides nothing. Raises `RequestRefused`.
    """
    if target == b"*" and method == b"OPTIONS":
        return None, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RequestRefused(Kinds.BAD_REQUEST, "The request target is not a path.")
    host, path = absolute[1], absolute[2] or (b"*" if method == b"OPTIONS" else b"/")  # RFC 9112 §3.2.4
    if not _is_host(host):
        raise RequestRefused(Kinds.FRAMING, "The host of the request target is malformed.")
    return host, b"/" + path if path.startswith(b"?") else path


def _host(fields: Fields) -> bytes:
    host = fields.read.get(b"host")
    if host is None and fields.version == b"1":
        raise RequestRefused(Kinds.FRAMING, "The field Host is missing.")
    if host and not _is_host(host):
        raise RequestRefused(Kinds.FRAMING, "The field Host is malformed.")
    return host or b""


def _validate(raw: bytes, line_ends: int) -> None:
    """Whether llhttp takes it, with a parser of its own: one keeps waiting for a body that it is not given here."""
    try:
        httptools.HttpRequestParser(None).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # not offered: the request is answered as if it had not asked (RFC 9110 §7.8)
    except httptools.HttpParserError as error:
        raise RequestRefused(Kinds.FRAMING, "The request's head is malformed.") from error
    if raw.count(b"\n") != line_ends:
        raise RequestRefused(Kinds.FRAMING, "A header line is malformed.")


def _frame(fields: Fields, passed: list[bytes]) -> None:
    """How long the body is, whether the connection lives on, what is passed on."""
    read, modern = fields.read, fields.version == b"1"
    length, coding = read.get(b"content-length"), read.get(b"transfer-encoding")
    if length is not None:
        if coding is not None or not _LENGTH.fullmatch(length):
            raise RequestRefused(Kinds.FRAMING, "The length of the body is ambiguous.")
        fields.length = int(length)
    elif coding is not None:
        if coding.lower() != b"chunked" or not modern:
            raise RequestRefused(Kinds.FRAMING, "The transfer coding is not acceptable.")
        fields.chunked = True
    expected = read.get(b"expect")
    if expected is not None and expected.lower() != b"100-continue":
        raise RequestRefused(Kinds.EXPECTATION, "Only 100-continue can be expected.")
    connection = read.get(b"connection")
    if connection is None:
        fields.keep_alive = modern
    elif connection != b"keep-alive":
        options = {option.strip() for option in connection.lower().split(b",")}
        fields.keep_alive = b"close" not in options and (modern or b"keep-alive" in options)
        passed = without_named(passed, connection)
    fields.headers = Headers(passed)


def _roles(dropped: frozenset[str]) -> Callable[[bytes], bytes | None]:
    """Under which name the edge reads a field; None: it is passed on.

    Many servers take `X_Forwarded_For` for `X-Forwarded-For`: in no spelling does such a field pass unread, but only
    the true one means anything.
    """

    def role(name: bytes) -> bytes | None:
        text = name.decode("latin-1")
        return name if name == b"user-agent" or ends_at_gateway(text) or spelling(text) in dropped else None

    return role


def _is_host(host: bytes) -> bool:
    return len(host) <= _LONGEST_HOST and _looks_like_host(host)


@lru_cache(256)
def _looks_like_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _refuse_line(raw: bytes, max_uri: int) -> RequestRefused:
    if _OTHER_VERSION.match(raw):
        return RequestRefused(Kinds.HTTP_VERSION, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if len(raw.partition(b"\r\n")[0]) > max_uri:
        return RequestRefused(Kinds.URI_TOO_LONG, f"The request target is longer than {max_uri} bytes.")
    return RequestRefused(Kinds.FRAMING, "The request line is malformed.")


def _refuse_method(method: bytes) -> RequestRefused:
    return RequestRefused(Kinds.METHOD_UNKNOWN, f"The method {method.decode()} is not known here.")
