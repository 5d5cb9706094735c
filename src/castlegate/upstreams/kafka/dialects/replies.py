"""Replies made of records: body and its type checked, status and fields taken from the headers a service names.

What a service got wrong is a 502 of that request alone; nothing of a record reaches a client's header unchecked.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Reply
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders
from castlegate.upstreams.kafka.settings import KafkaService

JSON = b"content-type: application/json\r\n"
TEXT = b"content-type: text/plain; charset=utf-8\r\n"
BYTES = b"content-type: application/octet-stream\r\n"

WITHOUT_BODY = (204, 205, 304)
_LONGEST_DETAIL = 1000  # characters of a service's own words that a client is shown
_STATUS = re.compile(rb"[2-5][0-9][0-9]")
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5: no CR, LF, NUL or other control
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_parse_raw = msgspec.json.Decoder(msgspec.Raw).decode


def bad_answer(detail: str) -> CallFailed:
    """The service answered, and its answer makes no sense."""
    return CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, detail)


def looks_like_json(value: bytes) -> bool:
    """NestJS's rule: an object or an array. Numbers and strings are text."""
    return value[:1] in (b"{", b"[")


def is_json_type(kind: bytes) -> bool:
    """Whether a content type is one of JSON."""
    kind = kind.partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def check_json(value: bytes) -> None:
    """Raise `CallFailed` (502) unless `value` is one JSON document in UTF-8."""
    try:
        _parse_raw(value)
        if not value.isascii():
            value.decode()  # msgspec looks into no string that it skips
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_answer("The service's answer is not valid JSON.") from error


def is_utf8(value: bytes) -> bool:
    """Whether it can be called text."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_or_bytes(value: bytes) -> bytes:
    """The type of what is not JSON; bytes that are no UTF-8, or start with a schema registry's 0x00, are no text."""
    return TEXT if value[:1] != b"\0" and is_utf8(value) else BYTES


class ReplyMaker:
    """Makes replies of one service: plain ones, or with the status and the fields its settings take from headers."""

    __slots__ = ("_fields", "_mapped", "_status_header")

    def __init__(self, settings: KafkaService) -> None:
        self._status_header = settings.status_header
        self._fields = [(field.lower().encode("ascii"), header) for field, header in settings.reply_headers.items()]
        self._mapped = bool(self._status_header or self._fields)

    def reply(self, headers: ReceivedHeaders, status: int, kind: bytes | None, body: bytes) -> Reply:
        """A success; `kind` is its field of the content type."""
        fields = Headers([] if kind is None else [kind])
        if self._mapped:
            status = self.status(headers, status)
            fields = self._with_fields(headers, fields)
            if status in WITHOUT_BODY:
                fields = fields.without(b"content-type")
                body = b""
        return Reply(status, fields, body)

    def status(self, headers: ReceivedHeaders, default: int) -> int:
        """The status that the record names; `default` where it names none."""
        if self._status_header is None:
            return default
        value = headers.get(self._status_header)
        if value is None:
            return default
        return status_of(value)

    def error_status(self, headers: ReceivedHeaders) -> int | None:
        """The status that the record names for an error; None where it names none, or a success."""
        status = self.status(headers, 0)
        return status if status >= 400 else None

    def _with_fields(self, headers: ReceivedHeaders, fields: Headers) -> Headers:
        for field, header in self._fields:
            value = headers.get(header)
            if value is None:
                continue
            if field == b"content-type":
                fields = fields.without(field)
            fields = fields.adding(field, checked_field(value))
        return fields


def status_of(value: bytes) -> int:
    """A status that a header names; raises `CallFailed` (502) for what is none."""
    if _STATUS.fullmatch(value) is None:
        raise bad_answer("The service's answer has no valid status.")
    return int(value)


def checked_field(value: bytes) -> bytes:
    """A value fit for a response field; raises `CallFailed` (502) for one that is not."""
    if _FIELD_VALUE.fullmatch(value) is None:
        raise bad_answer("The service's answer has a header field that is not valid.")
    return value.strip(b" \t")


def service_error(value: bytes, status: int | None = None) -> CallFailed:
    """The error a service tells, as text or as JSON with `message` and `status` or `statusCode`."""
    text = value.decode("utf-8", "replace").strip()
    detail = text
    if looks_like_json(value):
        try:
            told: Any = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told = None
        if isinstance(told, dict):
            detail = _message(told)
            status = status or _status(told)
    detail = _CONTROLS.sub(" ", detail[:_LONGEST_DETAIL])
    return CallFailed(Kinds.SERVICE_ERROR, Outcome.ANSWERED, detail, status=status or Kinds.SERVICE_ERROR.status)


def _status(told: dict[str, Any]) -> int | None:
    for name in ("status", "statusCode"):
        status = told.get(name)
        if type(status) is int and 400 <= status <= 599:
            return status
    return None


def _message(told: dict[str, Any]) -> str:
    message = told.get("message", told.get("error", ""))
    if isinstance(message, list):  # NestJS's validation pipe: one sentence for each field
        message = "; ".join(str(each) for each in message)
    return message if isinstance(message, str) else ""
