"""A request's head, from bytes to what it means; every ambiguity is refused.

llhttp reads the fields; what it is lenient about is checked here: exactly one space in the request line, HTTP/1.0 and
1.1 only, lines that end in CRLF and nothing else, one Host, one Content-Length, `chunked` alone as transfer coding and
never beside a Content-Length or in HTTP/1.0 (RFC 9112 §3, §6). Bodies are framed by the connection, which is why the
parser sees heads only.
"""

from __future__ import annotations

import re

import httptools

from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Pairs
from castlegate.wire.fields import HOP_BY_HOP, without_named

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,31}) ([!-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[A-Z-]+ [^ \r\n]+ HTTP/\d+(?:\.\d+)?\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)(/[^#]*|\?[^#]*)?")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]{1,5})?")
_LONGEST_HOST = 262  # bytes: a name of 255 (RFC 1035 §2.3.4) and a port
_LENGTH = re.compile(rb"[0-9]{1,18}")

# Fields that the edge reads itself. They are not among the pairs that are passed on: what the services get in their
# place is written anew.
_READ_HERE = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"x-request-id", b"traceparent", b"tracestate",
    b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"via",
}  # fmt: skip

_OF_PROXIES = (b"x-forwarded-", b"x-real-ip")  # what proxies say of the client; believed of trusted ones only

_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))

_KNOWN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class Head:
    """What a request's head says."""

    __slots__ = ("chunked", "host", "keep_alive", "length", "method", "pairs", "read", "target", "version")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""  # origin form
        self.version = 1  # minor
        self.host = b""
        self.pairs: Pairs = []  # what is passed on
        self.read: dict[bytes, bytes] = {}  # what the edge reads itself
        self.length = 0  # announced bytes of body; 0 if chunked
        self.chunked = False
        self.keep_alive = True


class HeadReader:
    """Reads one connection's heads."""

    __slots__ = ("_head", "_max_fields", "_max_uri", "_parser", "_seen")

    def __init__(self, max_fields: int, max_uri: int) -> None:
        self._max_fields = max_fields
        self._max_uri = max_uri
        self._parser = httptools.HttpRequestParser(self)
        self._head = Head()
        self._seen = 0

    def read(self, raw: bytes) -> Head:
        """The head that `raw` is, from the method to the empty line. Raises `RequestRefused`."""
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise _refuse_line(raw, self._max_uri)
        method, target, minor = line.groups()
        if len(target) > self._max_uri:
            raise RequestRefused(Kinds.URI_TOO_LONG, f"The request target is longer than {self._max_uri} bytes.")
        head = self._head = Head()
        head.method = method
        head.version = 1 if minor == b"1" else 0
        if method not in _KNOWN_METHODS:
            raise _refuse_method(method)
        self._feed(raw)
        if self._seen + 2 != raw.count(b"\n"):
            raise RequestRefused(Kinds.FRAMING, "A header line is malformed.")
        self._frame(head)
        _locate(head, target)
        return head

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        self._seen += 1
        name = name.lower()
        if name not in _READ_HERE:
            if b"_" not in name and not name.startswith(_OF_PROXIES):
                self._head.pairs.append((name, value))
                return
            # Many servers take `X_Forwarded_For` for `X-Forwarded-For`: in no spelling does it pass unread.
            plain = name.replace(b"_", b"-")
            if plain not in _READ_HERE and not plain.startswith(_OF_PROXIES):
                self._head.pairs.append((name, value))
                return
            if plain != name:
                return
        read = self._head.read
        if name not in read:
            read[name] = value
        elif name in _ONCE:
            read[b" twice"] = name
        else:
            read[name] += b", " + value

    def _feed(self, raw: bytes) -> None:
        self._seen = 0
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            # Upgrades are not offered: the request is answered as if it had not asked (RFC 9110 §7.8).
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            raise RequestRefused(Kinds.FRAMING, "The request's head is malformed.") from error
        if self._seen > self._max_fields:
            raise RequestRefused(Kinds.HEADERS_TOO_LARGE, f"There are more than {self._max_fields} header fields.")

    def _frame(self, head: Head) -> None:
        """How long the body is, whether the connection lives on."""
        read = head.read
        if b" twice" in read:
            name = read[b" twice"].decode()
            raise RequestRefused(Kinds.FRAMING, f"The field {name} is there more than once.")
        length, coding = read.get(b"content-length"), read.get(b"transfer-encoding")
        if length is not None:
            if coding is not None or not _LENGTH.fullmatch(length):
                raise RequestRefused(Kinds.FRAMING, "The length of the body is ambiguous.")
            head.length = int(length)
        elif coding is not None:
            if coding.lower() != b"chunked" or not head.version:
                raise RequestRefused(Kinds.FRAMING, "The transfer coding is not acceptable.")
            head.chunked = True
        if head.length or head.chunked:
            # The parser waits for a body that it will not be given.
            self._parser = httptools.HttpRequestParser(self)
        connection = read.get(b"connection")
        if connection is None:
            head.keep_alive = head.version == 1
        else:
            options = {option.strip() for option in connection.lower().split(b",")}
            head.keep_alive = b"close" not in options and (head.version == 1 or b"keep-alive" in options)
            head.pairs = without_named(head.pairs, connection)


def _locate(head: Head, target: bytes) -> None:
    """Host and origin form of the target."""
    host = head.read.get(b"host")
    if host is None and head.version:
        raise RequestRefused(Kinds.FRAMING, "The field Host is missing.")
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise RequestRefused(Kinds.BAD_REQUEST, "The request target is not a path.")
        host = absolute[1]  # it overrides Host (RFC 9112 §3.2.2)
        target = absolute[2] or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
    if host and len(host) > _LONGEST_HOST:
        raise RequestRefused(Kinds.FRAMING, "The field Host is too long.")
    if host and not _HOST.fullmatch(host):
        raise RequestRefused(Kinds.FRAMING, "The field Host is malformed.")
    if b"#" in target:
        raise RequestRefused(Kinds.BAD_REQUEST, "The request target has a fragment.")
    head.host = host or b""
    head.target = target


def _refuse_line(raw: bytes, max_uri: int) -> RequestRefused:
    if _OTHER_VERSION.match(raw):
        return RequestRefused(Kinds.HTTP_VERSION, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if len(raw.partition(b"\r\n")[0]) > max_uri:
        return RequestRefused(Kinds.URI_TOO_LONG, f"The request target is longer than {max_uri} bytes.")
    return RequestRefused(Kinds.FRAMING, "The request line is malformed.")


def _refuse_method(method: bytes) -> RequestRefused:
    return RequestRefused(Kinds.METHOD_UNKNOWN, f"The method {method.decode()} is not known here.")
