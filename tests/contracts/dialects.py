"""What every dialect must do, as a suite that each one inherits (tests/contracts/test_dialects.py).

A subclass says how the dialect is made and how a service of its family answers a request with what it was sent; the
rest is the same for all: what goes out and comes back is the same, an id is found where the inbox looks for it, and
whatever else comes back is an answer fit for a client or a `CallFailed`, never anything else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kafka.calls import make_call

from castlegate.errors import CallFailed, Outcome
from castlegate.message import Reply
from castlegate.upstreams.kafka.context import NAMES as CONTEXT_NAMES
from castlegate.upstreams.kafka.dialects.dialect import Dialect, ReceivedHeaders, Record, ReplyAddress, Value

ID = b"0123456789abcdef0000000000000001"
JSON, TEXT, BYTES = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream"

Echoed = tuple[ReceivedHeaders, bytes | None]

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
DOCUMENTS = st.dictionaries(st.text(max_size=8), LEAVES, max_size=4) | st.lists(LEAVES, max_size=4)
# As plain text: neither empty nor like JSON, and not with the first byte of a schema registry's record.
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: text[0] not in ("{", "[", '"', "\0")
)
NAMES = [
    "kafka_nest-err", "kafka_nest-is-disposed", "content-type", "error", "status", "at", ":status", ":path",
    "zilla:reply-to", "connection", "transfer-encoding", "content-length", "set-cookie", "__TypeId__", "x-request-id",
    "spring_json_header_types", "Upgrade",
]  # fmt: skip
VALUES_OF_HEADERS = [
    b"", b"200", b"204", b"404", b"099", b"600", b"application/json", b"text/plain", b"a\r\nset-cookie: b=c", b"\xff",
]  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(NAMES) | st.text(max_size=10),
    st.none() | st.sampled_from(VALUES_OF_HEADERS) | st.binary(max_size=40),
    max_size=6,
)
VALUES = st.none() | st.sampled_from([b"", b"{}", b"[", b"42", b'"', b'"x"', b"\0\0\0\0\1x"]) | st.binary(max_size=60)
NOT_TO_PASS = {b"connection", b"transfer-encoding", b"content-length", b"upgrade", b"x-request-id"}


def received(record: Record) -> ReceivedHeaders:
    """Headers as the other side reads them."""
    return {name: value.encode() if isinstance(value, str) else value for name, value in record.headers}


# Hypothesis warns of tests that several classes share; these keep nothing in their objects.
inherited = settings(suppress_health_check=[HealthCheck.differing_executors])


class DialectContract:
    """Inherited by a class for each dialect."""

    def make(self, **settings: Any) -> Dialect:
        """The dialect, with settings of its service."""
        raise NotImplementedError

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        """How a service answers with this value, which is text or JSON."""
        raise NotImplementedError

    mapped: ClassVar[dict[str, Any]] = {"status_header": "status", "reply_headers": {"location": "at"}}
    """What the dialect may be told of statuses and fields."""

    def encoded(self, dialect: Dialect, body: bytes, partition: int | None = 3) -> Record:
        """A request."""
        address = ReplyAddress("castlegate.replies", partition if dialect.partitioned else None)
        return dialect.encode(make_call(body, deadline=0.0), address, ID)

    def echo(self, body: bytes, *, text: bool) -> Reply:
        """What comes back of a body that a service answers as it got it."""
        dialect = self.make()
        record = self.encoded(dialect, body)
        headers, value = self.answer(received(record), record.value, text=text)
        answer = dialect.decode({**headers, dialect.correlation: ID}, value)
        assert isinstance(answer, Value)
        assert answer.last
        return answer.reply

    @inherited
    @given(document=DOCUMENTS)
    def test_json_comes_back_as_it_went(self, document: object) -> None:
        body = msgspec.json.encode(document)
        reply = self.echo(body, text=False)
        assert (reply.status, reply.headers.get(b"content-type"), reply.body) == (200, JSON, body)

    @inherited
    @given(words=WORDS)
    def test_text_comes_back_as_it_went(self, words: str) -> None:
        reply = self.echo(words.encode(), text=True)
        assert (reply.status, reply.headers.get(b"content-type"), reply.body) == (200, TEXT, words.encode())

    @inherited
    @given(body=st.binary(max_size=40), partition=st.none() | st.integers(0, 2**31 - 1))
    def test_a_request_says_its_id_and_where_to_answer(self, body: bytes, partition: int | None) -> None:
        dialect = self.make()
        record = self.encoded(dialect, body, partition)
        names = [name for name, _ in record.headers]
        assert len(set(names)) == len(names), "each header is written once"
        assert received(record)[dialect.correlation] == ID
        assert b"castlegate.replies" in received(record).values()
        assert not CONTEXT_NAMES & set(names)
        assert record.value == (body or record.value), "the body is not changed"

    @inherited
    @given(first=st.integers(0, 7), second=st.integers(0, 7))
    def test_a_changed_address_is_said_at_once(self, first: int, second: int) -> None:
        fresh, used = self.make(), self.make()
        self.encoded(used, b"{}", first)
        assert sorted(self.encoded(used, b"{}", second).headers) == sorted(self.encoded(fresh, b"{}", second).headers)

    @inherited
    @given(headers=HEADERS, value=VALUES)
    def test_any_reply_is_an_answer_fit_for_a_client_or_a_failed_call(
        self, headers: ReceivedHeaders, value: bytes | None
    ) -> None:
        dialect = self.make(**self.mapped)
        try:
            answer = dialect.decode({**headers, dialect.correlation: ID}, value)
        except CallFailed as error:
            assert error.outcome is Outcome.ANSWERED  # noqa: PT017
            assert 400 <= error.status <= 599  # noqa: PT017
            return
        reply = answer.reply if isinstance(answer, Value) else answer.empty
        assert isinstance(reply.body, bytes)
        assert 200 <= reply.status <= 599
        assert not (reply.body and reply.status in (204, 304))
        for name, field in reply.headers.pairs():
            assert not set(name + field) & {0, 10, 13}
            assert name not in NOT_TO_PASS
        if reply.headers.get(b"content-type") == JSON and reply.body and b"content-encoding" not in reply.headers:
            msgspec.json.decode(reply.body)

    @inherited
    @given(value=st.binary(min_size=1, max_size=20).filter(lambda value: not value.isascii()))
    def test_bytes_are_never_called_json_or_broken_text(self, value: bytes) -> None:
        dialect = self.make()
        headers, _ = self.answer({}, value, text=True)
        try:
            answer = dialect.decode({**headers, dialect.correlation: ID}, value)
        except CallFailed:
            return
        assert isinstance(answer, Value)
        kind = answer.reply.headers.get(b"content-type")
        if kind == TEXT:
            value.decode()
        else:
            assert kind == BYTES or (kind == JSON and msgspec.json.decode(value) is not msgspec.UNSET)
