"""An answer's head, from bytes to what it means; every ambiguity makes it a bad answer (RFC 9112 §6).

llhttp judges every head; bodies are framed by the connection, which is why the parser sees heads only.
"""

from __future__ import annotations

import re

import httptools

from castlegate.headers import Headers
from castlegate.wire.fields import HOP_BY_HOP, FieldReader, Malformed, without_named

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_WITHOUT_BODY = frozenset((204, 304))
_READ_HERE = HOP_BY_HOP | {b"content-length", b"x-request-id"}
_ONCE = frozenset((b"content-length", b"transfer-encoding"))


class AnswerHead:
    """What an answer's head says."""

    __slots__ = ("chunked", "headers", "keep_alive", "length", "method", "raw", "status")

    def __init__(self, raw: bytes, method: bytes, status: int) -> None:
        self.raw = raw
        self.method = method  # of the call
        self.status = status
        self.headers = Headers()  # what is passed on
        self.length: int | None = None  # bytes of body; None: chunked, or until the connection ends
        self.chunked = False
        self.keep_alive = True


class AnswerReader:
    """Reads the heads that the connections to a service have collected."""

    __slots__ = ("_fields", "_max_fields")

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self._fields = FieldReader(lambda name: name if name in _READ_HERE else None, _ONCE)

    def read(self, raw: bytes, method: bytes, last: AnswerHead | None) -> AnswerHead:
        """The head that `raw` is, to the empty line, in answer to `method`. Raises `Malformed`. `last`: the one before
        it on the connection, which comes back if it is repeated.
        """
        if last is not None and raw == last.raw and method == last.method:
            return last
        line = _STATUS_LINE.match(raw)
        if line is None:
            raise Malformed("its status line is malformed")
        block = raw[line.end() : -4]
        lines = block.split(b"\r\n") if block else []
        if len(lines) > self._max_fields:
            raise Malformed("it has too many header fields")
        _validate(raw, len(lines) + 2)
        head = AnswerHead(raw, method, int(line[2]))
        passed: list[bytes] = []
        read: dict[bytes, bytes] = {}
        self._fields.read(lines, passed, read)
        _frame(head, method, passed, read, old=line[1] == b"0")
        return head


def _validate(raw: bytes, line_ends: int) -> None:
    """Whether llhttp takes it, with a parser of its own: one keeps waiting for a body that it is not given here."""
    try:
        httptools.HttpResponseParser(None).feed_data(raw)
    except httptools.HttpParserUpgrade as error:
        raise Malformed("it switched protocols unasked") from error
    except httptools.HttpParserError as error:
        raise Malformed("it is malformed") from error
    if raw.count(b"\n") != line_ends:
        raise Malformed("it is malformed")


def _frame(head: AnswerHead, method: bytes, passed: list[bytes], read: dict[bytes, bytes], *, old: bool) -> None:
    """How long the body is, whether the connection lives on, what is passed on. `old`: HTTP/1.0."""
    length, coding = read.get(b"content-length"), read.get(b"transfer-encoding")
    if length is not None and (coding is not None or not _LENGTH.fullmatch(length)):
        raise Malformed("its length is ambiguous")
    if coding is not None and (old or coding.lower() != b"chunked"):
        raise Malformed("its transfer coding is unknown")
    connection = read.get(b"connection")
    if connection is None:
        head.keep_alive = not old
    elif connection != b"keep-alive":
        options = {option.strip() for option in connection.lower().split(b",")}
        head.keep_alive = b"close" not in options and not (old and b"keep-alive" not in options)
        passed = without_named(passed, connection)
    if method == b"HEAD" or head.status in _WITHOUT_BODY or head.status < 200:
        head.length = 0
        if length is not None and head.status != 204:
            passed.append(b"content-length: %b\r\n" % length)  # of the body that there would be
    elif coding is not None:
        head.chunked = True
    elif length is not None:
        head.length = int(length)
    else:
        head.keep_alive = False  # the end of the connection is the end of the body
    head.headers = Headers(passed)
