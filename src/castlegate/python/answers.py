"""What functions return and get: answers to clients, answers of services, and the errors of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from castlegate.config.fields import HOP_BY_HOP
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Reply

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5
_BODILESS = (204, 205, 304)

_encode = msgspec.json.Encoder().encode


def _is_own(name: str) -> bool:
    return name.lower() in HOP_BY_HOP or name.lower() == "content-length"


class Response:
    """An answer with more to it than data: status, fields, a body that is no JSON."""

    __slots__ = ("content", "headers", "status")

    def __init__(self, content: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content`: bytes and text go as they are; all else becomes JSON, None no body."""
        if not 200 <= status <= 599 or status not in set(HTTPStatus):
            raise ValueError(f"a status is 200 to 599, not {status}")
        self.content = content
        self.status = status
        self.headers = dict(headers or {})


class Problem(CallFailed):
    """Raised by a function: the client gets a problem document with this status and detail."""

    def __init__(self, status: int, detail: str = "") -> None:
        if not 400 <= status <= 599 or status not in set(HTTPStatus):
            raise ValueError(f"the status of a problem is 400 to 599, not {status}")
        super().__init__(Kinds.SERVICE_ERROR, Outcome.ANSWERED, detail or HTTPStatus(status).phrase, status=status)


class Answer:
    """What a service answered."""

    __slots__ = ("_fields", "body", "status")

    def __init__(self, status: int, fields: Headers, body: bytes) -> None:
        self.status = status
        self.body = body
        self._fields = fields

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields by their names in lower case; of one that repeats, all its values joined by commas."""
        return read_headers(self._fields)

    def data(self, into: Any = Any) -> Any:
        """The body as JSON, made into the type; None without a body. Text that is no JSON is text. Raises `CallFailed`
        (502) where it does not fit.
        """
        if not self.body:
            return None
        kind = self._fields.get(b"content-type") or b""
        try:
            if kind[:5].lower() == b"text/" and into in (Any, str):
                return self.body.decode()
            return msgspec.json.decode(self.body, type=into)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            detail = "A service's answer is not what was expected."
            raise CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, detail) from error


class ServiceFailed(CallFailed):
    """A service answered with a status of 400 or more."""

    def __init__(self, answer: Answer) -> None:
        detail = f"A service answered with status {answer.status}."
        super().__init__(Kinds.SERVICE_ERROR, Outcome.ANSWERED, detail, status=answer.status)
        self.answer = answer


def to_reply(result: Any) -> Reply:
    """What a function returned, as an answer. Raises `TypeError` and `ValueError` for what cannot be one."""
    response = result if isinstance(result, Response) else Response(result, status=204 if result is None else 200)
    headers, content = headers_of(response.headers, _is_own), response.content
    if isinstance(content, (bytes, bytearray, memoryview)):
        body, kind = bytes(content), b"application/octet-stream"
    elif isinstance(content, str) and isinstance(result, Response):
        body, kind = content.encode(), b"text/plain; charset=utf-8"
    elif content is None:
        return Reply(response.status, headers, b"")
    else:
        body, kind = _encode(content), b"application/json"
    if response.status in _BODILESS:
        raise ValueError(f"an answer with status {response.status} has no body")
    if b"content-type" not in headers:
        headers = headers.adding(b"content-type", kind)
    return Reply(response.status, headers, body)


def read_headers(headers: Headers) -> dict[str, str]:
    """By their names; of one that repeats, all its values joined by commas."""
    read: dict[str, str] = {}
    for name, value in headers.pairs():
        key, text = name.decode("latin-1"), value.decode("latin-1")
        read[key] = f"{read[key]}, {text}" if key in read else text
    return read


def headers_of(said: Mapping[str, str], is_own: Callable[[str], bool]) -> Headers:
    """Fields that a function sets; `is_own`: of which names only the gateway speaks. Raises `ValueError`."""
    fields: dict[bytes, bytes] = {}
    for name, value in said.items():
        if not _NAME.fullmatch(name) or is_own(name):
            raise ValueError(f"not a field that a function can set: {name!r}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"not a value of a header field, of {name}: {value!r}")
        key = name.lower().encode()
        if key in fields:
            raise ValueError(f"the field {name} is set twice")
        fields[key] = value.strip().encode("latin-1")
    return Headers.of(list(fields.items()))
