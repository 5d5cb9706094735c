"""What functions return and get: answers to clients, answers of services, and the errors of both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from castlegate.config.fields import HOP_BY_HOP
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Reply

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5
_OWN = HOP_BY_HOP | {"content-length"}
_BODILESS = (204, 205, 304)

_encode = msgspec.json.Encoder().encode


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

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        """By their names in lower case."""
        self.body = body

    def data(self, into: Any = Any) -> Any:
        """The body as JSON, made into the type; None without a body. Text that is no JSON is text. Raises `CallFailed`
        (502) where it does not fit.
        """
        if not self.body:
            return None
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip()
        try:
            if kind.startswith("text/") and into in (Any, str):
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
    headers, content = _headers(response.headers), response.content
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


def _headers(said: Mapping[str, str]) -> Headers:
    for name, value in said.items():
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise ValueError(f"not a field that an answer can set: {name!r}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"not a value of a header field, of {name}: {value!r}")
    return Headers.of([(name.lower().encode(), value.strip().encode("latin-1")) for name, value in said.items()])
