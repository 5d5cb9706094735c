"""What is fuzzed: a target takes bytes, and raises where something holds that must not.

    edge      a client's connection: bytes to requests
    answers   a service's connection: bytes to an answer
    kafka     a record of an inbox: sorted, and decoded by every dialect
    token     a client's token: bytes to claims that may be believed if the signature is good

The first bytes of an input say how the rest is cut into pieces; the outcome may not depend on them.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.testbeds.answers import Answers
from tests.testbeds.edge import BODY_LIMIT, Edge, split

from castlegate.errors import CallFailed
from castlegate.message import Reply
from castlegate.routing.path import normalise
from castlegate.schemes.tokens import Rules, TokenRefused, judge, principal_of, read
from castlegate.telemetry.metrics import Counter, Gauge, Histogram
from castlegate.upstreams.kafka.dialects.dialect import Dialect, ReceivedHeaders, Value
from castlegate.upstreams.kafka.dialects.faststream import FastStream
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.inbox import Counters, Events, Inbox
from castlegate.upstreams.kafka.settings import HeaderNames, KafkaService

Target = Callable[[bytes], None]

_LINES = re.compile(rb"(?:[a-z0-9!#$%&'*+.^_`|~-]++: [\t -~\x80-\xff]*+\r\n)*+")
_OF_ONE_HOP = (b"connection: ", b"transfer-encoding: ", b"te: ", b"upgrade: ", b"keep-alive: ", b"host: ", b"trailer: ")
_REFUSALS = {200, 204, 400, 404, 405, 408, 413, 414, 417, 431, 501, 505}
_TAG = b"0123456789abcdef"


def _check_lines(wire: bytes) -> None:
    assert _LINES.fullmatch(wire), wire


@contextmanager
def edge_target() -> Iterator[Target]:
    """See above."""
    edge = Edge()

    def target(data: bytes) -> None:
        cuts, stream = data[:4], data[4:]
        seen, statuses, closed = edge.play([stream])
        seen_of_pieces, statuses_of_pieces, closed_of_pieces = edge.play(split(stream, cuts))
        assert (seen_of_pieces, closed_of_pieces) == (seen, closed)
        # Of two faults in a head that comes in pieces the one in front is seen first.
        assert [status if status < 400 or not closed else 400 for status in statuses_of_pieces] == [
            status if status < 400 or not closed else 400 for status in statuses
        ]
        assert _REFUSALS.issuperset(statuses)
        assert len(seen) <= statuses.count(200)
        assert closed or not {400, 413, 417, 431}.intersection(statuses)
        for request in seen:
            assert normalise(request.path) == request.path
            assert not set(request.path + request.query) & set(b" \r\n\t\x00#")
            assert len(request.body) <= BODY_LIMIT
            assert b"\r\n\r\n" not in request.forwarded
            _check_lines(request.fields)
            assert not request.fields.startswith(_OF_ONE_HOP)

    yield target
    edge.close()


@contextmanager
def answers_target() -> Iterator[Target]:
    """See above."""
    answers = Answers()
    methods = (b"GET", b"HEAD", b"POST", b"OPTIONS")

    def target(data: bytes) -> None:
        how, cuts, stream = data[:1] or b"\0", data[1:5], data[5:]
        method, closes = methods[how[0] & 3], bool(how[0] & 4)
        whole = answers.play(method, [stream], closes=closes)
        in_pieces = answers.play(method, split(stream, cuts), closes=closes)
        assert in_pieces.error == whole.error
        if whole.error is None:
            assert in_pieces == whole
        assert whole.error is None or not whole.reused
        assert whole.status is None or 200 <= whole.status <= 999
        _check_lines(whole.fields)
        assert not whole.fields.startswith(_OF_ONE_HOP[:-2])

    yield target
    answers.close()


class _Record:
    """As much of a `confluent_kafka.Message` as the inbox looks at."""

    def __init__(self, headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
        self._headers, self._value = headers, value

    def error(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0  # none

    def topic(self) -> str:
        return "inbox"

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return self._headers


def _dialects() -> list[Dialect]:
    mapped: dict[str, Any] = {
        "status_header": "status",
        "reply_headers": {"Location": "location", "Content-Type": "kind", "X-A": "a"},
    }
    return [
        kind(KafkaService(dialect=name, **settings))
        for settings in ({}, mapped)
        for name, kind in (("nest", Nest), ("faststream", FastStream), ("plain", Plain))
    ] + [Plain(KafkaService(dialect="plain", names=HeaderNames(error="error"), **mapped))]


_NAMES = (
    "kafka_correlationId", "correlation_id", "correlation-id", "kafka_nest-err", "kafka_nest-is-disposed", "error",
    "content-type", "status", "location", "kind", "a",
)  # fmt: skip


def _pieces(data: bytes) -> list[bytes]:
    """Length-prefixed pieces."""
    pieces = []
    while data:
        size = data[0]
        pieces.append(data[1 : 1 + size])
        data = data[1 + size :]
    return pieces


@contextmanager
def kafka_target() -> Iterator[Target]:
    """See above."""
    unidentified: list[int] = []

    def never(*_: object) -> None:
        raise AssertionError

    inbox = Inbox(
        None,  # type: ignore[arg-type]
        _TAG,
        Events(never, unidentified.append, never, never, never, never),
        Counters(Counter(), Gauge(), Histogram()),
    )
    inbox.correlation = {"inbox": _NAMES[:3]}
    dialects = _dialects()

    def target(data: bytes) -> None:
        headers: list[tuple[str, bytes | None]] = []
        value: bytes | None = None
        for piece in _pieces(data):
            if not piece or piece[0] >= 2 * len(_NAMES):
                value = piece[1:] if piece else None
                continue
            number, null = divmod(piece[0], 2)
            content = piece[1:].replace(b"TAG", _TAG)
            headers.append((_NAMES[number], None if null else content))
        record, other = _Record(headers, value), _Record([("correlation_id", _TAG + b"1")], b"v")
        received = inbox._sort([record, other, record])  # type: ignore[list-item]
        assert len(received) in (1, 3)
        assert received[len(received) // 2][2] == b"v"
        _decode_all(dialects, dict(headers), value)

    yield target


def _decode_all(dialects: list[Dialect], headers: ReceivedHeaders, value: bytes | None) -> None:
    for dialect in dialects:
        try:
            answer = dialect.decode(headers, value)
        except CallFailed as failure:
            status, answer = failure.status, None
            failure.detail.encode()
        if answer is None:
            assert 400 <= status <= 599
            continue
        reply: Reply = answer.reply if isinstance(answer, Value) else answer.empty
        assert 200 <= reply.status <= 599
        assert isinstance(reply.body, bytes)
        _check_lines(reply.headers.wire)


@contextmanager
def token_target() -> Iterator[Target]:
    """An input is a token as it stands, and header and claims of one, with a line break between them."""
    rules = Rules(
        issuer=None, audiences=None, algorithms=None, jku=None, typ=frozenset((None, "jwt")), leeway=60.0, required=(),
        subject="sub", scopes=("scope", "scp"),
    )  # fmt: skip

    def target(data: bytes) -> None:
        header, _, claims = data.partition(b"\n")
        for token in (
            data,
            b".".join([urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims, b"signature")]),
        ):
            try:
                found = read(token, 8192, 8)
                judge(found, rules, 1_800_000_000.0)
                principal = principal_of(found, rules, "tokens")
            except TokenRefused:
                continue
            # Another reader sees the same.
            parts = [part + b"=" * (-len(part) % 4) for part in token.split(b".")]
            assert json.loads(urlsafe_b64decode(parts[1])) == found.claims
            assert json.loads(urlsafe_b64decode(parts[0]))["alg"] == found.header.algorithm
            assert isinstance(principal.subject, str)
            assert principal.subject
            assert principal.expires > 1_800_000_000.0 - 60.0

    yield target


TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "edge": edge_target,
    "answers": answers_target,
    "kafka": kafka_target,
    "token": token_target,
}
