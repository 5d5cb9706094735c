"""What a service answered, as JSON that can be put into the answer of a composition: checked, never believed.

Bytes that are JSON in UTF-8 stay as they are; they are neither parsed into objects nor printed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers

NULL = b"null"

_CHARSET = re.compile(rb";\s*charset=\"?([A-Za-z0-9_-]+)", re.IGNORECASE)
_CHARSETS = {b"utf-8": "utf-8", b"utf8": "utf-8", b"us-ascii": "ascii", b"iso-8859-1": "latin-1"}

_is_json = msgspec.json.Decoder(msgspec.Raw).decode
_parse = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Take = Callable[[bytes], bytes]


def too_deep() -> CallFailed:
    """It can be read, but not by what has to look into it."""
    return bad_answer("The service's answer is nested too deeply.")


def bad_answer(detail: str) -> CallFailed:
    """The service answered, and its answer is of no use."""
    return CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, detail)


def check(content: bytes) -> bytes:
    """The same bytes; of none, `null`. Raises `CallFailed` unless they are one JSON document in UTF-8."""
    if not content:
        return NULL
    try:
        _is_json(content)
        if not content.isascii():
            content.decode()  # msgspec looks into no string that it skips
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_answer("The service's answer is not valid JSON.") from error
    return content


def parse(content: bytes) -> Any:
    """The value. Raises `CallFailed` as `check` does."""
    try:
        return _parse(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_answer("The service's answer is not valid JSON.") from error


class Digest:
    """What the fields of an answer say of its content, and of how long it may be kept."""

    __slots__ = ("control", "passed", "take", "vary")

    def __init__(self, headers: Headers, passed: tuple[bytes, ...]) -> None:
        """`passed`: beginnings of the lines that the client gets."""
        self.take: Take = _taker(headers)
        control, age = headers.get(b"cache-control"), headers.get(b"age")
        if control is None and b"expires" in headers:
            control = b"no-cache"  # a time of another clock, which nothing can be reckoned with
        if control is not None and age is not None:
            control = b", ".join([control, *(b"age=%b" % each.strip() for each in age.split(b","))])
        self.control = control
        self.vary = headers.get(b"vary")
        self.passed = [line for line in headers.lines if line.startswith(passed)] if passed else []


def _taker(headers: Headers) -> Take:
    """How the bytes of an answer become JSON."""
    if (headers.get(b"content-encoding") or b"identity").strip().lower() != b"identity":
        return _encoded
    kind = headers.get(b"content-type")
    if kind is None:
        return check
    plain = kind.partition(b";")[0].strip().lower()
    if plain == b"application/json" or plain.endswith(b"+json"):
        return check
    if plain.startswith(b"text/"):
        charset = _CHARSET.search(kind)
        name = _CHARSETS.get(charset[1].lower()) if charset is not None else "utf-8"
        return _unreadable if name is None else lambda content: _text(content, name)
    return _foreign


def _text(content: bytes, charset: str) -> bytes:
    try:
        return _encode(content.decode(charset))
    except UnicodeDecodeError as error:
        raise bad_answer("The service's answer is text that cannot be read.") from error


def _encoded(_content: bytes) -> bytes:
    raise bad_answer("The service's answer is encoded, which it was asked not to be.")


def _unreadable(_content: bytes) -> bytes:
    raise bad_answer("The service's answer is text in a charset that is not known.")


def _foreign(content: bytes) -> bytes:
    if content:
        raise bad_answer("The service's answer is neither JSON nor text.")
    return NULL
